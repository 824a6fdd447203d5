"""Quantisation against bitsandbytes and against equation 6 written out in numpy; the four operations against autograd."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.model.functions import frozen_linear, rms_norm, rotate, swiglu
from stilnovo.model.memory import linear_bytes
from stilnovo.model.quantize import AffineLinear, DenseLinear, FourBitLinear, checked_scheme, quantized_linear


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(96, 160, generator=torch.Generator().manual_seed(5))  # 160: the last group is short


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_four_bit_is_bitsandbytes(weight: Tensor, scheme: str) -> None:
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=scheme, compress_statistics=True)
    ours = FourBitLinear(weight, "nf4" if scheme == "nf4" else "fp4")
    assert torch.equal(ours.dense(torch.float32), bnb.dequantize_4bit(packed, state))
    moved = ours.to(torch.bfloat16)
    assert moved.packed.dtype == torch.uint8
    assert moved.nested_absmax.dtype == torch.float32
    assert moved.dense(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [8, 4])
def test_affine_is_equation_6(weight: Tensor, bits: int) -> None:
    ours = AffineLinear(weight, 8 if bits == 8 else 4)
    top = 2**bits - 1
    for row in range(0, 96, 7):
        for start in range(0, 160, 64):
            group = weight[row, start : start + 64].numpy()
            low, high = min(group.min(), 0), max(group.max(), 0)
            s = np.float32(np.float16((high - low) / top))
            z = np.clip(np.round(-low / s), 0, top)
            expected = s * (np.clip(np.round(group / s + z), 0, top) - z)
            got = ours.dense(torch.float32)[row, start : start + 64].numpy()
            assert np.abs(got - expected).max() <= 1e-5
            assert np.abs(got - group).max() <= 1.01 * s  # half a step for q, half for the rounded zero point


def test_error_falls_with_bits(weight: Tensor) -> None:
    error = {
        scheme: float((quantized_linear(weight, checked_scheme(scheme)).dense(torch.float32) - weight).abs().mean())
        for scheme in ("fp4", "nf4", "int4", "int8", "none")
    }
    assert error["none"] == 0
    assert error["int8"] < 0.01 < error["nf4"] < error["fp4"] < 0.2
    assert error["int8"] < error["int4"]


@pytest.mark.parametrize("scheme", ["none", "nf4", "fp4", "int8", "int4"])
def test_predicted_bytes_are_the_kept_ones(scheme: str) -> None:
    for shape in [(96, 160), (576, 1536), (192, 576)]:
        module = quantized_linear(torch.randn(shape), checked_scheme(scheme))
        assert linear_bytes(*shape, checked_scheme(scheme), 4) == module.nbytes


def test_constant_weights_survive() -> None:
    for scheme in ("nf4", "int8", "int4"):
        zeros = quantized_linear(torch.zeros(64, 64), checked_scheme(scheme)).dense(torch.float32)
        assert torch.equal(zeros, torch.zeros(64, 64))


def test_unknown_scheme() -> None:
    with pytest.raises(InputError, match="int3"):
        checked_scheme("int3")


def test_keep_dense_gives_the_same_and_lets_go(weight: Tensor) -> None:
    module = quantized_linear(weight, "nf4")
    fresh = module.dense(torch.float32)
    module.keep_dense(torch.float32)
    assert torch.equal(module.dense(torch.float32), fresh)
    assert module.dense(torch.float32) is module.dense(torch.float32)
    module.keep_dense(None)
    assert module.dense(torch.float32) is not module.dense(torch.float32)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_operations_pass_gradcheck() -> None:
    torch.manual_seed(3)
    assert torch.autograd.gradcheck(swiglu, (double(5, 8), double(5, 8)))
    x, angles = double(5, 2, 8), torch.randn(5, 1, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: rotate(t, angles.cos(), angles.sin()), (x,))
    linear = DenseLinear(torch.randn(7, 8, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda t: frozen_linear(t, linear), (double(5, 8),))


def test_rms_norm_is_torchs() -> None:
    x = torch.randn(6, 16, requires_grad=True)
    weight, upstream = torch.randn(16), torch.randn(6, 16)
    (ours,) = torch.autograd.grad((rms_norm(x, weight, 1e-5) * upstream).sum(), x)
    (theirs,) = torch.autograd.grad((F.rms_norm(x, (16,), weight, 1e-5) * upstream).sum(), x)
    assert torch.allclose(rms_norm(x, weight, 1e-5), F.rms_norm(x, (16,), weight, 1e-5), atol=1e-6)
    assert torch.allclose(ours, theirs, atol=1e-5)
