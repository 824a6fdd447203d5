"""RMSNorm with what stands beside it: the residual that is added before it, the gradient that its own is added to.

A program holds one row; nothing but that row is read, and it is read once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm(
    x, residual, weight, out, columns, x_row, residual_row, out_row, eps, ADD: tl.constexpr, WIDTH: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = column < columns
    value = tl.load(x + row * x_row + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + row * residual_row + column, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row * x_row + column, rounded, mask=inside)
        value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / columns + eps)
    # Rounded before the weight: as the model's own norm and transformers do.
    norm = (value * scale).to(out.dtype.element_ty).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_row + column, (norm * w).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward(
    grad, x, weight, total, columns, grad_row, x_row, total_row, eps,
    ADD: tl.constexpr, AGAIN: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Triton kernel: the gradient of x into `total` (added with ADD), RMSNorm of x over `grad` with AGAIN."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = column < columns
    value = tl.load(x + row * x_row + column, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(grad + row * grad_row + column, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / columns + eps)
    norm, slope = value * scale, d * w
    # r (w g − n · mean(n w g)) with n = x r
    inner = tl.sum(norm * slope, 0) / columns
    found = (slope - norm * inner) * scale
    place = total + row * total_row + column
    if ADD:
        found += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, found.to(total.dtype.element_ty), mask=inside)
    if AGAIN:
        rounded = norm.to(grad.dtype.element_ty).to(tl.float32)
        tl.store(grad + row * grad_row + column, (rounded * w).to(grad.dtype.element_ty), mask=inside)


def _width(columns: int) -> tuple[int, int]:
    """Columns rounded up to a power of two, and the warps that share a row."""
    width = 1 << (columns - 1).bit_length()
    return width, min(16, max(1, width // 512))


def _norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float, out: Tensor, add: bool) -> None:
    rows, columns = x.shape
    width, warps = _width(columns)
    assert x.stride(1) == residual.stride(1) == out.stride(1) == weight.stride(0) == 1
    _rms_norm[(rows,)](
        x, residual, weight, out, columns, x.stride(0), residual.stride(0), out.stride(0), eps,
        ADD=add, WIDTH=width, num_warps=warps,
    )  # fmt: skip


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """RMSNorm of (T, C) into `out` (not x itself); rows may be strided."""
    _norm(x, x, weight, eps, out, False)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """x += residual, in x's type, then RMSNorm of it into `out`."""
    _norm(x, residual, weight, eps, out, True)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float, total: Tensor, add: bool, again: bool) -> None:
    rows, columns = x.shape
    width, warps = _width(columns)
    assert x.stride(1) == grad.stride(1) == total.stride(1) == weight.stride(0) == 1
    _rms_norm_backward[(rows,)](
        grad, x, weight, total, columns, grad.stride(0), x.stride(0), total.stride(0), eps,
        ADD=add, AGAIN=again, WIDTH=width, num_warps=warps,
    )  # fmt: skip


def rms_norm_backward_(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> None:
    """Gradient of x from that of `rms_norm(x)` (T, C), written over `grad`."""
    _backward(grad, x, weight, eps, grad, False, False)


def rms_norm_backward_add(grad: Tensor, x: Tensor, weight: Tensor, eps: float, total: Tensor) -> None:
    """Add the gradient of x (T, C) to `total`."""
    _backward(grad, x, weight, eps, total, True, False)


def rms_norm_backward_again(grad: Tensor, x: Tensor, weight: Tensor, eps: float, total: Tensor) -> None:
    """Add the gradient of x (T, C) to `total`; RMSNorm of x goes over `grad`."""
    _backward(grad, x, weight, eps, total, True, True)
