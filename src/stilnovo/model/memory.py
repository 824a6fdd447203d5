"""The memory of a training run, line by line: predicted from shapes alone, and measured on the run itself.

Predictions are sums over what the code keeps (see the comments at each line), not fits. Measurements: the bytes of the
tensors themselves, and for what autograd keeps, the storages seen by torch's saved-tensor hooks in one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import BLOCK, NESTED_BLOCK, FrozenLinear, Scheme
from stilnovo.plan.shape import LlamaConfig, LoraConfig, lora_parameters

OPTIMIZER_BLOCK = 256  # values that share a scale in bitsandbytes' 8-bit optimizer states


@dataclass(frozen=True)
class MemoryLine:
    """One thing that takes room, in bytes."""

    item: str
    predicted: int
    measured: int | None
    note: str


@dataclass(frozen=True)
class TrainingShape:
    """What a step's memory depends on beside the model: `tokens` in one forward pass, and the recipe's switches."""

    tokens: int
    dtype_bytes: int
    checkpointing: bool
    loss_chunk: int
    eight_bit_optimizer: bool


def linear_bytes(rows: int, columns: int, scheme: Scheme, dtype_bytes: int) -> int:
    """Bytes that a projection (rows × columns) takes under a scheme, tables included."""
    size = rows * columns
    if scheme == "none":
        return size * dtype_bytes
    if scheme in ("nf4", "fp4"):
        blocks = -(-size // BLOCK)
        # packed, 8-bit block maxima, their scales, two code tables (16 and 256 values) and the offset
        return -(-size // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * (16 + 256 + 1)
    groups = rows * -(-columns // BLOCK)
    return groups * BLOCK * (8 if scheme == "int8" else 4) // 8 + 3 * groups  # 16-bit scale, 8-bit zero point


def layer_kept_values(config: LlamaConfig, lora_config: LoraConfig) -> int:
    """Values a token leaves behind in one layer for backward, without checkpointing."""
    c, f = config.hidden_size, config.intermediate_size
    heads = config.heads * config.head_dim
    stream = 4 * c + 2  # both norms' inputs and outputs, and their 1/rms
    # Queries, keys and values spread over all heads (grouped heads are repeated for the kernel), output twice (as the
    # kernel keeps it and as o_proj reads it), one logsumexp a head.
    attention = 5 * heads + config.heads
    low_rank = len(lora_config.projections) * lora_config.r
    return stream + attention + 3 * f + low_rank  # gate, up and their product


def predict(
    config: LlamaConfig, scheme: Scheme, lora_config: LoraConfig, shape: TrainingShape
) -> list[tuple[str, int, str]]:
    """(item, bytes, note) of every line, in the order of the ledger."""
    shapes = list(config.linear_shapes().values())
    frozen = config.layers * sum(linear_bytes(*s, scheme, shape.dtype_bytes) for s in shapes)
    tables = config.vocab_size * config.hidden_size * shape.dtype_bytes * (1 if config.tie_embeddings else 2)
    norms = (2 * config.layers + 1) * config.hidden_size * shape.dtype_bytes
    trainable = lora_parameters(config, lora_config)
    states = 2 * trainable * 4
    if shape.eight_bit_optimizer:
        states = 2 * trainable + 2 * 4 * (trainable // OPTIMIZER_BLOCK)
    layer = shape.tokens * layer_kept_values(config, lora_config) * shape.dtype_bytes
    stream = shape.tokens * config.hidden_size * shape.dtype_bytes
    kept = config.layers * stream if shape.checkpointing else config.layers * layer
    kept += 2 * stream  # the last norm's input, and the gradient that the loss keeps instead of logits
    logits = min(shape.loss_chunk, shape.tokens) * config.vocab_size * 4
    dense = max(rows * columns for rows, columns in shapes) * shape.dtype_bytes
    lines = [
        ("frozen projections", frozen, f"{config.layers} layers of 7, {scheme}"),
        ("embedding and head", tables, "tied, one table" if config.tie_embeddings else "two tables"),
        ("norms", norms, ""),
        ("adapter", trainable * 4, f"{trainable:,} values in fp32"),
        ("gradients", trainable * 4, "of the adapter alone"),
        ("optimizer", states, "two moments, 8 bits each" if shape.eight_bit_optimizer else "two moments in fp32"),
        ("kept for backward", kept, f"{shape.tokens:,} tokens, " + ("layer inputs" if shape.checkpointing else "whole layers")),
        ("logits of one chunk", 2 * logits, f"{min(shape.loss_chunk, shape.tokens)} rows of {config.vocab_size:,}, twice"),
        ("one dense projection", dense, "made for one product at a time"),
    ]  # fmt: skip
    if shape.checkpointing:
        lines.append(("inside of one layer", layer, "recomputed in backward"))
    return lines


def measure_kept(model: Llama, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps after `forward`, each storage counted once, the model's own tensors not at all."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    held: list[Tensor] = []  # keeps storages alive, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())
        return tensor.detach()  # an output kept with its history would keep the whole graph alive

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(seen.values())


def measure(model: Llama, optimizer: torch.optim.Optimizer, kept: int) -> dict[str, int]:
    """Bytes of each line that can be weighed, by the item's name; after at least one step."""
    linears = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    trainable = lora.parameters(model)
    states = [
        v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor) and v.numel() > 1
    ]
    # The 8-bit code tables are shared by all parameters.
    unique = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in states}
    norms = [b for name, b in model.named_buffers() if name.endswith("layernorm") or name == "norm"]
    return {
        "frozen projections": sum(linear.nbytes for linear in linears),
        "embedding and head": model.embed_tokens.nbytes + (0 if model.lm_head is None else model.lm_head.nbytes),
        "norms": sum(b.nbytes for b in norms),
        "adapter": sum(p.nbytes for p in trainable),
        "gradients": sum(p.nbytes for p in trainable),
        "optimizer": sum(unique.values()),
        "kept for backward": kept,
    }
