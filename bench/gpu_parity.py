"""Loss and gradients of every lever, kernels off and on, against torch's autograd in fp32 on the processor.

The yardstick is what rounding alone does: torch's own autograd in the step's type on the same device. A lever whose gradients
are further from fp32 than `TIMES` that is not at rounding level. Weights are the same 4-bit ones everywhere.

Needs: stilnovo.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpu_runner import Row
from gpu_step import TINY, device_of, step_type
from stilnovo.engine.loss import chunked_losses, tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import kernels, lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LoraConfig

CONFIG = replace(TINY, hidden_size=256, intermediate_size=512, heads=8, kv_heads=4, head_dim=32, layers=4)
LENGTHS = (130, 1, 75, 50)
TIMES = 1.5
FLOOR = 1e-4  # errors below this are rounding in fp32


def levers_to_try(layers: int) -> dict[str, Levers]:
    """The plain setting first, then each lever by itself, then all that save memory together."""
    plain = Levers(layers=all_layers("keep", layers), optimizer="adamw")
    alone: dict[str, dict[str, Any]] = {
        "recompute": {"layers": all_layers("recompute", layers)},
        "attention kept": {"layers": all_layers("attention", layers)},
        "offload": {"layers": all_layers("offload", layers)},
        "inputs on the host": {"layers": all_layers("recompute", layers), "inputs": "host"},
        "streamed layers": {"streamed_layers": layers}, "embedding on the host": {"embedding": "host"},
        "streamed head": {"head": "streamed", "head_tile": 100}, "tiled": {"tile": 48},
        "head groups": {"attention_groups": 2}, "dense copies": {"keep_dense": True},
    }  # fmt: skip
    together = {key: value for lever in alone.values() for key, value in lever.items()}
    together["layers"] = all_layers("recompute", layers)
    return {"plain": plain, **{n: replace(plain, **c) for n, c in {**alone, "together": together}.items()}}


def model_of(device: torch.device, dtype: torch.dtype) -> Llama:
    """The small model with an adapter whose B is not zero; tables rounded to `dtype`, weights quantised on the processor."""
    model = Llama(CONFIG, random_source(3, std=0.05), lambda weight: quantized_linear(weight, "nf4"))
    lora.attach(model, LoraConfig(r=8))
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(model).values():
        module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.05)
    return model.to(device=device, dtype=dtype)


def ids() -> Tensor:
    """The tokens and their targets."""
    return torch.randint(0, CONFIG.vocab_size, (257,), generator=torch.Generator().manual_seed(3))


def outcome(model: Llama, loss: Tensor) -> tuple[float, Tensor]:
    """The loss, and all gradients side by side."""
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in lora.parameters(model)]
    assert all(gradient is not None for gradient in gradients), "a parameter got no gradient"
    return loss.item(), torch.cat([gradient.detach().double().flatten().cpu() for gradient in gradients])  # type: ignore[union-attr]


def by_autograd(model: Llama) -> tuple[float, Tensor]:
    """By torch's autograd, in the model's type."""
    tokens = ids().to(model.device)
    hidden = model.hidden(tokens[:-1], positions_of(LENGTHS, model.device), Blocks(LENGTHS))
    return outcome(model, chunked_losses(hidden, model.head, tokens[1:], 64).sum())


def by_engine(model: Llama, levers: Levers) -> tuple[float, Tensor]:
    """By the engine's explicit passes."""
    tokens, engine = ids().to(model.device), TrainingEngine(model, levers)
    hidden = engine.hidden(tokens[:-1], LENGTHS)
    return outcome(model, tiled_losses(hidden, engine.head, tokens[1:], levers.loss_chunk).sum())


def distance(found: tuple[float, Tensor], exact: tuple[float, Tensor]) -> tuple[float, float]:
    """Relative distance of loss and of gradients."""
    return abs(found[0] / exact[0] - 1), float((found[1] - exact[1]).norm() / exact[1].norm())


@functools.cache
def yardstick(device: torch.device, dtype: torch.dtype) -> tuple[tuple[float, Tensor], float]:
    """Loss and gradients in fp32, and how far from them rounding alone leads."""
    with kernels.switched(False):
        exact = by_autograd(model_of(torch.device("cpu"), dtype).float())
        return exact, distance(by_autograd(model_of(device, dtype)), exact)[1]


def parity(job: Row) -> Iterator[Row]:
    """One lever, kernels off or on."""
    device = device_of(job)
    dtype = step_type(device)
    exact, rounding = yardstick(device, dtype)
    limit = TIMES * max(rounding, FLOOR)
    levers = levers_to_try(CONFIG.layers)[job["lever"]]
    with kernels.switched(job["kernels"]):
        loss, gradient = distance(by_engine(model_of(device, dtype), levers), exact)
    same = gradient <= limit and loss <= limit
    yield {
        "lever": job["lever"], "kernels": job["kernels"], "type": str(dtype), "loss": loss, "gradient": gradient,
        "autograd_gradient": rounding, "outcome": "ok" if same else "differs",
    }  # fmt: skip
