"""Rotary embedding in one pass, in place or on the way from one tensor to another.

Torch takes five launches and a copy of half of x. A program turns a few heads of one token, whose angles it reads once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

VALUES = 2048  # values that a program turns, about


@triton.jit
def _rotate(
    x, cos, sin, out, heads, half, x_row, x_head, out_row, out_head, table_row,
    BACK: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Triton kernel: dimension i turns with dimension i + D/2."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, HALF)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    within = column < half
    c = tl.load(cos + row * table_row + column, mask=within, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + row * table_row + column, mask=within, other=0.0).to(tl.float32)[None, :]
    if BACK:
        s = -s
    inside = (head < heads)[:, None] & within[None, :]
    source = x + row * x_row + head[:, None] * x_head + column[None, :]
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    target = out + row * out_row + head[:, None] * out_head + column[None, :]
    tl.store(target, (first * c - second * s).to(out.dtype.element_ty), mask=inside)
    tl.store(target + half, (second * c + first * s).to(out.dtype.element_ty), mask=inside)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool, out: Tensor) -> None:
    """Rotate x (T, heads, D) by cos and sin (T, 1, D/2), or back, into `out`, which may be x itself."""
    rows, heads, size = x.shape
    half = size // 2
    width = 1 << (half - 1).bit_length()
    together = max(1, min(VALUES // (2 * width), 1 << (heads - 1).bit_length()))
    assert x.stride(2) == out.stride(2) == cos.stride(2) == sin.stride(2) == 1 and cos.stride(0) == sin.stride(0)
    _rotate[(rows, -(-heads // together))](
        x, cos, sin, out, heads, half, x.stride(0), x.stride(1), out.stride(0), out.stride(1), cos.stride(0),
        BACK=back, HEADS=together, HALF=width,
    )  # fmt: skip
