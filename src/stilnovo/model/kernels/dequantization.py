"""Quantised projections to a dense matrix in one launch, into memory that is used again.

For NF4 and FP4 bitsandbytes takes three launches and a round trip of all block maxima in fp32: decode the 8-bit maxima, add
their offset, then decode the weights. Here a program decodes what its own blocks need. Rounding is as in bitsandbytes: the
maximum is nested_code[q] · nested_absmax + offset in fp32, both operations rounded, the weight code[nibble] · maximum in fp32,
then cast once. So that product and sum stay two roundings, the compiler may not fuse them (`enable_fp_fusion`).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from stilnovo.plan.levers import BLOCK, NESTED_BLOCK

BLOCKS = 32  # quantisation blocks that a program decodes


@triton.jit
def _four_bit(
    packed, absmax, code, offset, nested_absmax, nested_code, out, blocks, weights,
    BLOCK: tl.constexpr, NESTED: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Triton kernel: each program dequantises BLOCKS blocks of BLOCK weights; the last may be short, even by half a byte."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    level = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    coarse = tl.load(nested_absmax + block // NESTED, mask=inside, other=0.0)
    largest = tl.load(nested_code + level) * coarse + tl.load(offset)
    byte = block[:, None] * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
    pair = tl.load(packed + byte, mask=2 * byte < weights, other=0).to(tl.int32)
    first = tl.load(code + (pair >> 4)) * largest[:, None]
    second = tl.load(code + (pair & 15)) * largest[:, None]
    both = tl.interleave(first, second)
    place = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(out + place, both.to(out.dtype.element_ty), mask=place < weights)


def dequantize_4bit(
    packed: Tensor, absmax: Tensor, code: Tensor, offset: Tensor, nested_absmax: Tensor, nested_code: Tensor, out: Tensor
) -> None:  # fmt: skip
    """Dequantise the parts of a `FourBitLinear` to its dense matrix (O, I), into `out` of any floating-point type."""
    blocks = absmax.numel()
    assert out.is_contiguous() and packed.element_size() == 1
    _four_bit[(-(-blocks // BLOCKS),)](
        packed, absmax, code, offset, nested_absmax, nested_code, out, blocks, out.numel(),
        BLOCK=BLOCK, NESTED=NESTED_BLOCK, BLOCKS=BLOCKS, enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _affine(
    packed, scale, zero, out, columns, groups, packed_row, out_row,
    BITS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Triton kernel: GROUPS groups of one row, w = s (q − z); the last group may be short."""
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    there = group < groups
    s = tl.load(scale + row * groups + group, mask=there, other=0.0).to(tl.float32)[:, None]
    z = tl.load(zero + row * groups + group, mask=there, other=0).to(tl.float32)[:, None]
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    if BITS == 8:
        q = tl.load(packed + row * packed_row + column, mask=there[:, None], other=0)
    else:  # two to a byte, the first in the low half
        byte = group[:, None] * (GROUP // 2) + tl.arange(0, GROUP // 2)[None, :]
        pair = tl.load(packed + row * packed_row + byte, mask=there[:, None], other=0)
        q = tl.interleave(pair & 15, pair >> 4)
    value = (q.to(tl.float32) - z) * s
    tl.store(out + row * out_row + column, value.to(out.dtype.element_ty), mask=column < columns)


def dequantize_affine(packed: Tensor, scale: Tensor, zero: Tensor, bits: int, out: Tensor) -> None:
    """Dequantise the parts of an `AffineLinear` to its dense matrix (O, I), into `out` of any floating-point type."""
    rows, columns = out.shape
    groups = scale.shape[1]
    assert packed.is_contiguous() and scale.is_contiguous() and zero.is_contiguous() and out.stride(1) == 1
    _affine[(rows, -(-groups // BLOCKS))](
        packed, scale, zero, out, columns, groups, packed.stride(0), out.stride(0),
        BITS=bits, GROUP=BLOCK, GROUPS=BLOCKS, enable_fp_fusion=False,
    )  # fmt: skip
