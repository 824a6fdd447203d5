"""The operations with a backward of their own, against finite differences and against plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from stilnovo.model.functions import rms_norm, rotate, swiglu
from stilnovo.model.lora import LoraConfig
from stilnovo.model.lora_linear import LoraLinear
from stilnovo.model.quantize import DenseLinear, quantized_linear


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def variable(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding as complex numbers: dimension i + i·(dimension i + D/2), times e^(i·angle)."""
    first, second = x.chunk(2, dim=-1)
    found = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([found.real, found.imag], dim=-1)


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def lora_pair(dtype: torch.dtype = torch.float64) -> tuple[LoraLinear, Callable[[Tensor], Tensor]]:
    """A LoRA projection with a B that is not zero, and the same written plainly."""
    module = LoraLinear(DenseLinear(torch.randn(7, 8, dtype=dtype)), LoraConfig(r=3, alpha=5)).to(dtype)
    torch.nn.init.normal_(module.lora_B)

    def plain(x: Tensor) -> Tensor:
        return x @ module.base.dense(dtype).T + module.scale * (x @ module.lora_A.T) @ module.lora_B.T

    return module, plain


def test_gradients_equal_finite_differences() -> None:
    angles, weight = torch.randn(5, 1, 4, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    linear = DenseLinear(torch.randn(7, 8, dtype=torch.float64))
    assert gradcheck(swiglu, (variable(5, 8), variable(5, 8)))
    assert gradcheck(lambda x: rms_norm(x, weight, 1e-5), (variable(5, 8),))
    assert gradcheck(lambda x: rotate(x, angles.cos(), angles.sin()), (variable(5, 2, 8),))
    assert gradcheck(lambda x: linear(x), (variable(5, 8),))


def test_lora_gradients_equal_finite_differences() -> None:
    module, _ = lora_pair()
    assert gradcheck(lambda x, a, b: module(x), (variable(5, 8), module.lora_A, module.lora_B))


def check(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-12
) -> None:
    """Same values, and same gradients for a random gradient from above."""
    upstream = torch.randn_like(ours(*inputs))
    assert torch.allclose(ours(*inputs), theirs(*inputs), rtol=tolerance, atol=tolerance)
    got = torch.autograd.grad((ours(*inputs) * upstream).sum(), inputs)
    expected = torch.autograd.grad((theirs(*inputs) * upstream).sum(), inputs)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def test_equal_plain_autograd() -> None:
    angles, weight = torch.randn(5, 1, 4, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    check(swiglu, lambda gate, up: F.silu(gate) * up, variable(5, 8), variable(5, 8))
    check(lambda x: rms_norm(x, weight, 1e-5), lambda x: plain_norm(x, weight), variable(5, 8))
    check(lambda x: rotate(x, angles.cos(), angles.sin()), lambda x: turned(x, angles), variable(5, 2, 8))
    module, plain = lora_pair()
    check(lambda x, a, b: module(x), lambda x, a, b: plain(x), variable(5, 8), module.lora_A, module.lora_B)


def test_equal_torch_in_single_precision() -> None:
    weight = torch.randn(16)
    x = variable(6, 16, dtype=torch.float32)
    check(lambda x: rms_norm(x, weight, 1e-5), lambda x: F.rms_norm(x, (16,), weight, 1e-5), x, tolerance=1e-5)


def test_norm_in_half_precision_is_computed_in_single() -> None:
    x = 300 * torch.randn(4, 64)  # squares beyond the range of fp16
    found = rms_norm(x.half(), torch.ones(64).half(), 1e-5)
    assert found.dtype == torch.float16
    assert torch.allclose(found.float(), F.rms_norm(x, (64,)), atol=5e-3)


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4", "none"])
def test_frozen_linear_equals_dense_autograd(scheme: str) -> None:
    module = quantized_linear(torch.randn(48, 80), scheme)  # type: ignore[arg-type]
    dense = module.dense(torch.float32)
    check(module, lambda x: F.linear(x, dense), variable(6, 80, dtype=torch.float32), tolerance=1e-6)


def test_frozen_linear_saves_nothing() -> None:
    module, saved = quantized_linear(torch.randn(48, 80), "nf4"), list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):  # type: ignore[func-returns-value]
        module(variable(6, 80, dtype=torch.float32))
    assert saved == []
