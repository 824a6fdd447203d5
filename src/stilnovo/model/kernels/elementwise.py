"""SwiGLU and RMSNorm, forward and backward, each one pass over its rows.

In torch each is four to eight launches with temporaries in fp32. Backward writes over its inputs where the caller allows
it: the gradients of gate and up take the place of gate and up, as `engine/blocks.py` does with torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SPAN = 1024  # values a program of SwiGLU takes


@triton.jit
def _swiglu(gate, up, out, columns, gate_row, up_row, out_row, SPAN: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * SPAN + tl.arange(0, SPAN)
    inside = column < columns
    g = tl.load(gate + row * gate_row + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + column, mask=inside, other=0.0).to(tl.float32)
    # Rounded to the stored type between the two products, as torch does.
    silu = (g / (1 + tl.exp(-g))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * out_row + column, (silu * u).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(grad, gate, up, columns, grad_row, gate_row, up_row, SPAN: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * SPAN + tl.arange(0, SPAN)
    inside = column < columns
    d = tl.load(grad + row * grad_row + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + row * gate_row + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = 1 / (1 + tl.exp(-g))
    silu = g * sigmoid
    # d silu / d gate = σ + silu (1 − σ)
    tl.store(
        gate + row * gate_row + column,
        (d * u * (sigmoid + silu * (1 - sigmoid))).to(gate.dtype.element_ty),
        mask=inside,
    )
    tl.store(up + row * up_row + column, (d * silu).to(up.dtype.element_ty), mask=inside)


def swiglu(gate: Tensor, up: Tensor, out: Tensor) -> Tensor:
    """SwiGLU: SiLU(gate) · up (T, F), into `out`; rows may be strided (two halves of one product)."""
    rows, columns = gate.shape
    assert gate.stride(1) == up.stride(1) == out.stride(1) == 1
    grid = (rows, triton.cdiv(columns, SPAN))
    _swiglu[grid](gate, up, out, columns, gate.stride(0), up.stride(0), out.stride(0), SPAN=SPAN)
    return out


def swiglu_backward_(grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Gradients of gate and up from that of their product (T, F), written over gate and up."""
    rows, columns = gate.shape
    assert gate.stride(1) == up.stride(1) == grad.stride(1) == 1
    grid = (rows, triton.cdiv(columns, SPAN))
    _swiglu_backward[grid](grad, gate, up, columns, grad.stride(0), gate.stride(0), up.stride(0), SPAN=SPAN)


@triton.jit
def _rms_norm(x, weight, out, columns, eps, WIDTH: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = column < columns
    value = tl.load(x + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / columns + eps)
    # Rounded before the weight: as the model's own norm and transformers do.
    norm = (value * scale).to(out.dtype.element_ty).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + column, (norm * w).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward(grad, x, weight, columns, eps, WIDTH: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = column < columns
    value = tl.load(x + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(grad + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / columns + eps)
    norm, slope = value * scale, d * w
    # r (w g − n · mean(n w g)) with n = x r
    inner = tl.sum(norm * slope, 0) / columns
    tl.store(grad + row * columns + column, ((slope - norm * inner) * scale).to(grad.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """RMSNorm: x / sqrt(mean(x²) + eps) · weight of (T, C), into `out` (not x itself)."""
    rows, columns = x.shape
    assert x.is_contiguous() and out.is_contiguous()
    _rms_norm[(rows,)](x, weight, out, columns, eps, WIDTH=triton.next_power_of_2(columns))
    return out


def rms_norm_backward_(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Gradient of x from that of `rms_norm(x)` (T, C), written over `grad`."""
    rows, columns = x.shape
    assert x.is_contiguous() and grad.is_contiguous() and grad.dtype in (torch.float32, x.dtype)
    _rms_norm_backward[(rows,)](grad, x, weight, columns, eps, WIDTH=triton.next_power_of_2(columns))
    return grad
