"""Products of one token, or a few, with affine weights, which are read once as they are kept: int8 and int4.

Torch makes whole numbers in 16 bits of every weight first, 5 bytes of traffic for one that is kept. Here a program takes a strip of
rows of W and one token, and keeps a sum in fp32 for each place of a piece; nothing is rounded before the end. The programs of all
tokens with one strip are neighbours, so that the card's cache has it for the second one.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from stilnovo.plan.levers import BLOCK

STRIP = 4  # rows of W that a program takes: few, because many programs have to read at once
PIECE = 512  # weights of a row that it reads at once


@triton.jit
def _affine_product(
    x, packed, scale, zero, out, rows, x_row, out_row,
    COLUMNS: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr, STRIP: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Triton kernel: STRIP outputs of one token, Σ s (q − z) x."""
    SHARE: tl.constexpr = 8 // BITS  # weights of a byte
    BYTES: tl.constexpr = COLUMNS // SHARE
    token, row = tl.program_id(0).to(tl.int64), tl.program_id(1) * STRIP + tl.arange(0, STRIP)
    there, place = row < rows, row.to(tl.int64)[:, None]
    total = tl.zeros((STRIP, PIECE), tl.float32)
    for start in range(0, BYTES, PIECE):
        byte = start + tl.arange(0, PIECE)
        inside = byte < BYTES
        both = there[:, None] & inside[None, :]
        q = tl.load(packed + place * BYTES + byte[None, :], mask=both, other=0)
        group = place * (COLUMNS // GROUP) + (byte * SHARE // GROUP)[None, :]
        s = tl.load(scale + group, mask=both, other=0.0).to(tl.float32)
        z = tl.load(zero + group, mask=both, other=0).to(tl.float32)
        source = x + token * x_row + byte * SHARE
        first = tl.load(source, mask=inside, other=0.0).to(tl.float32)[None, :]
        if BITS == 8:
            total += (q.to(tl.float32) - z) * s * first
        else:  # two to a byte, the first in the low half
            second = tl.load(source + 1, mask=inside, other=0.0).to(tl.float32)[None, :]
            total += (((q & 15).to(tl.float32) - z) * first + ((q >> 4).to(tl.float32) - z) * second) * s
    tl.store(out + token * out_row + row, tl.sum(total, 1).to(out.dtype.element_ty), mask=there)


def affine_product(x: Tensor, packed: Tensor, scale: Tensor, zero: Tensor, bits: int, out: Tensor) -> None:
    """Multiply x (T, I) with the parts of an `AffineLinear` (O, I), I a multiple of a group, into `out` (T, O)."""
    tokens, columns = x.shape
    rows = len(packed)
    assert packed.is_contiguous() and scale.is_contiguous() and zero.is_contiguous() and not columns % BLOCK
    assert x.stride(1) == out.stride(1) == 1
    _affine_product[(tokens, -(-rows // STRIP))](
        x, packed, scale, zero, out, rows, x.stride(0), out.stride(0),
        COLUMNS=columns, BITS=bits, GROUP=BLOCK, STRIP=STRIP, PIECE=PIECE * bits // 8,
    )  # fmt: skip
