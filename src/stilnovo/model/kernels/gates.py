"""SwiGLU and its gradients, each one pass over its rows.

In torch backward is six launches with temporaries in fp32. Here it writes over its inputs: gradients take the place of
gate and up, and the product, which the adapter's gradients need again, that of its own gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

SPAN = 1024  # values that a program takes


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
    # d silu / d gate = σ (1 + gate (1 − σ))
    slope = d * u * (sigmoid * (1 + g * (1 - sigmoid)))
    silu = (g / (1 + tl.exp(-g))).to(grad.dtype.element_ty).to(tl.float32)
    tl.store(gate + row * gate_row + column, slope.to(gate.dtype.element_ty), mask=inside)
    tl.store(up + row * up_row + column, (d * silu).to(up.dtype.element_ty), mask=inside)
    tl.store(grad + row * grad_row + column, (silu * u).to(grad.dtype.element_ty), mask=inside)


def swiglu(gate: Tensor, up: Tensor, out: Tensor) -> None:
    """SwiGLU of (T, F) into `out`; rows may be strided (two halves of one product)."""
    rows, columns = gate.shape
    assert gate.stride(1) == up.stride(1) == out.stride(1) == 1
    grid = (rows, -(-columns // SPAN))
    _swiglu[grid](gate, up, out, columns, gate.stride(0), up.stride(0), out.stride(0), SPAN=SPAN)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Gradients of gate and up (T, F) over them, the product over `grad`."""
    rows, columns = gate.shape
    assert gate.stride(1) == up.stride(1) == grad.stride(1) == 1
    grid = (rows, -(-columns // SPAN))
    _swiglu_backward[grid](grad, gate, up, columns, grad.stride(0), gate.stride(0), up.stride(0), SPAN=SPAN)
