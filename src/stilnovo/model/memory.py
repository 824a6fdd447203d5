"""Measure the memory of a training run, item by item, as `stilnovo.plan.ledger` predicts it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import psutil
import torch
from torch import Tensor

from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each storage counted once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def measure(model: Llama, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Measured bytes by the ledger's item names; call it after at least one step."""
    trainable = lora.parameters(model)
    states = [
        v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor) and v.numel() > 1
    ]
    frozen = [m for m in model.modules() if isinstance(m, lora.FrozenLoraLinear)]
    return {
        "frozen projections": sum(m.nbytes for m in model.modules() if isinstance(m, FrozenLinear) and m not in frozen),
        "frozen adapter": sum(m.nbytes for m in frozen),
        "embedding": model.embed_tokens.nbytes,
        "head": 0 if model.lm_head is None else model.lm_head.nbytes,
        "norms": sum(b.nbytes for name, b in model.named_buffers() if name.endswith("layernorm") or name == "norm"),
        "adapter": sum(p.nbytes for p in trainable),
        "gradients": sum(p.nbytes for p in trainable),
        "optimizer": storage_bytes(states),  # the 8-bit code tables are shared by all parameters
    }


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of torch's allocator on a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # it has no `resource`
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes
