"""What test_kernels.py runs under Triton's interpreter: one operator against its torch counterpart, over many shapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.engine import blocks, elementwise, product
from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import kernels, lora
from stilnovo.model.functions import rms_norm, rotate, swiglu
from stilnovo.model.kernels import operators
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import AffineLinear, FourBitLinear, quantized_linear
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.recipe_sections import Scheme

GENERATOR = torch.Generator().manual_seed(11)
EPS = 1e-5
#: The interpreter cuts where a card rounds to bf16: one unit in the last place a rounding.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
#: One row, one column, powers of two and not, more than one program a row.
SHAPES = [(1, 1), (1, 576), (7, 100), (3, 1024), (5, 1100), (2, 4097)]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=GENERATOR).to(dtype)


def strided(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows that do not follow each other without a gap, as those of gate and up in one product."""
    return random(rows, 2 * columns + 3, dtype=dtype)[:, 1 : columns + 1]


def cases() -> Iterator[tuple[int, int, torch.dtype]]:
    for rows, columns in SHAPES:
        for dtype in TOLERANCE:
            yield rows, columns, dtype


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> int:
    assert found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected.float(), atol=TOLERANCE[dtype], rtol=4 * TOLERANCE[dtype])
    return found.numel()


def check_four_bit(scheme: str) -> int:
    compared = 0
    # More than one nested block and a last program that is not full; a short last block; half a last byte.
    for rows, columns in ((160, 192), (3, 32), (5, 37)):
        linear = FourBitLinear(random(rows, columns) * 0.05, scheme)  # type: ignore[arg-type]
        for dtype in TOLERANCE:
            expected = in_torch(lambda: linear.dense(dtype))  # noqa: B023
            found = linear.dense(dtype)
            if dtype == torch.bfloat16:
                torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)
            else:
                assert torch.equal(found, expected), (scheme, dtype, rows, columns)
            compared += found.numel()
    return compared


def check_affine() -> int:
    compared = 0
    for bits in (8, 4):
        for rows, columns in ((5, 64), (3, 100), (2, 64 * 40)):
            linear = AffineLinear(random(rows, columns), bits)  # type: ignore[arg-type]
            for dtype in TOLERANCE:
                expected = in_torch(lambda: linear.dense(dtype))  # noqa: B023
                found = linear.dense(dtype)
                if dtype == torch.bfloat16:
                    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)
                else:
                    assert torch.equal(found, expected), (bits, dtype, rows, columns)
                compared += found.numel()
    return compared


def in_torch(action: Callable[[], Tensor]) -> Tensor:
    """What torch computes, the kernels switched off."""
    os.environ[kernels.SWITCH] = "0"
    try:
        return action()
    finally:
        os.environ[kernels.SWITCH] = "1"


def check_swiglu() -> int:
    compared = 0
    for rows, columns, dtype in cases():
        gate, up = strided(rows, columns, dtype), strided(rows, columns, dtype)
        compared += close(elementwise.gated(gate, up), F.silu(gate) * up, dtype)
    return compared


def check_swiglu_backward() -> int:
    compared = 0
    for rows, columns, dtype in cases():
        gate, up, grad = (strided(rows, columns, dtype) for _ in range(3))
        leaves = [gate.detach().float().requires_grad_(), up.detach().float().requires_grad_()]
        product = swiglu(*leaves)
        expected = torch.autograd.grad(product, leaves, grad.float())
        elementwise.gated_backward_(grad, gate, up)
        compared += sum(
            close(found, right, dtype)
            for found, right in ((gate, expected[0]), (up, expected[1]), (grad, product.detach()))
        )
    return compared


def check_rms_norm() -> int:
    compared = 0
    for rows, columns, dtype in cases():
        x, weight = strided(rows, columns, dtype), 1 + 0.1 * random(columns).to(dtype)
        compared += close(elementwise.normed(x, weight, EPS), rms_norm(x, weight, EPS), dtype)
        residual, total = random(rows, columns, dtype=dtype), x.clone()
        found = elementwise.added_normed(total, residual, weight, EPS)
        compared += close(total, x + residual, dtype) + close(found, rms_norm(x + residual, weight, EPS), dtype)
    return compared


def check_rms_norm_backward() -> int:
    compared = 0
    for rows, columns, dtype in cases():
        x, weight, grad = strided(rows, columns, dtype), 1 + 0.1 * random(columns).to(dtype), random(rows, columns)
        leaf = x.float().requires_grad_()
        norm = rms_norm(leaf, weight.float(), EPS)
        (expected,) = torch.autograd.grad(norm, leaf, grad.to(dtype).float())
        compared += close(elementwise.norm_backward_(grad.to(dtype).clone(), x, weight, EPS), expected, dtype)
        for again in (False, True):
            total, slope = strided(rows, columns, dtype), grad.to(dtype).clone()
            before = total.float().clone()
            (operators.rms_norm_backward_again if again else operators.rms_norm_backward_add)(
                slope, x, weight, EPS, total
            )
            compared += close(total, before + expected, dtype)
            compared += close(slope, norm.detach() if again else grad.to(dtype), dtype)
    return compared


def check_rotate() -> int:
    compared = 0
    for tokens, heads, size in ((1, 1, 2), (3, 5, 64), (2, 40, 128), (4, 3, 96)):
        for dtype in TOLERANCE:
            angles = random(tokens, 1, size // 2)
            cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
            x = random(tokens, heads * size + 7, dtype=dtype)[:, : heads * size].view(tokens, heads, size)
            expected, start = rotate(x.float(), cos.float(), sin.float()), x.clone()
            elsewhere = torch.empty_like(start)
            operators.rotate(x, cos, sin, False, elsewhere)
            elementwise.rotate_(x, cos, sin)
            compared += close(x, expected, dtype) + close(elsewhere, expected, dtype)
            elementwise.rotate_(x, cos, sin, back=True)
            compared += close(x, start, dtype)
    return compared


def check_softmax() -> int:
    compared = 0
    for rows, vocabulary, width in ((1, 5, 5), (3, 700, 256), (4, 9000, 4500)):
        for dtype in TOLERANCE:
            logits, targets = random(rows, vocabulary, dtype=dtype) * 3, torch.randint(0, vocabulary, (rows,))
            leaf = logits.float().requires_grad_()
            losses = F.cross_entropy(leaf, targets, reduction="none")
            (expected,) = torch.autograd.grad(losses.sum(), leaf)
            whole, out = logits.clone(), torch.empty(rows)
            operators.softmax_whole(whole, targets, True, out)
            compared += close(out, losses.detach(), torch.float32) + close(whole, expected, dtype)
            peak, mass, picked = torch.full((rows, 1), -torch.inf), torch.zeros(rows, 1), torch.zeros(rows, 1)
            for start in range(0, vocabulary, width):
                tile, shrink = logits[:, start : start + width].clone(), torch.empty(rows, 1)
                before = peak.clone()
                operators.softmax_tile(tile, targets, start, peak, mass, picked, shrink, True)
                compared += close(shrink, (before - peak).exp(), torch.float32)
                compared += close(tile, (logits[:, start : start + width].float() - peak).exp(), dtype)
            compared += close((mass.log() + peak - picked)[:, 0], losses.detach(), torch.float32)
    return compared


def check_engine() -> int:
    """A whole step of a tiny model, every kernel in its place: loss and gradients as with torch alone."""
    compared, one = 0, product.on_card(torch.empty(0))
    assert not one
    product.on_card = blocks.on_card = lambda _: True  # type: ignore[assignment]
    for scheme, change in ENGINES:
        expected = in_torch(lambda: step(scheme, change))  # noqa: B023
        for found, right in zip(step(scheme, change), expected, strict=True):
            torch.testing.assert_close(found, right, atol=2e-5, rtol=2e-4)
            compared += found.numel()
    return compared


ENGINES: list[tuple[Scheme, dict[str, Any]]] = [
    ("nf4", {"layers": ("keep", "attention")}),
    ("int8", {"layers": ("recompute", "offload"), "tile": 9, "attention_groups": 2, "head_tile": 20}),
    ("int4", {"layers": ("recompute", "recompute"), "head": "int8", "head_tile": 30, "loss_chunk": 7}),
]


def step(scheme: Scheme, change: dict[str, Any]) -> list[Tensor]:
    """Loss and gradients."""
    shape = LlamaConfig(
        vocab_size=53, hidden_size=40, intermediate_size=48, layers=2, heads=4, kv_heads=2, head_dim=10, max_positions=64
    )  # fmt: skip
    source = random_source(3, std=0.2)
    made = Llama(shape, lambda n, s: source(n, s), lambda w: quantized_linear(w, scheme))
    lora.attach(made, LoraConfig(r=4))
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(made).values():
        module.lora_B.data = torch.randn(module.lora_B.shape, generator=generator) * 0.1
    tokens = torch.randint(0, shape.vocab_size, (18,), generator=generator)
    levers = Levers(**{"loss_chunk": 16, **change})
    engine = TrainingEngine(made, levers)
    loss = tiled_losses(engine.hidden(tokens[:-1], (5, 12)), engine.head, tokens[1:], levers.loss_chunk).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(p.grad for p in lora.parameters(made) if p.grad is not None)]


CHECKS: dict[str, Callable[[], int]] = {
    "nf4": lambda: check_four_bit("nf4"), "fp4": lambda: check_four_bit("fp4"), "affine": check_affine,
    "swiglu": check_swiglu, "swiglu_backward": check_swiglu_backward, "rms_norm": check_rms_norm,
    "rms_norm_backward": check_rms_norm_backward, "rotate": check_rotate, "softmax": check_softmax, "engine": check_engine,
}  # fmt: skip

if __name__ == "__main__":
    print(f"compared {CHECKS[sys.argv[1]]()} values")
