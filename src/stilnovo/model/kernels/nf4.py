"""NF4 (or FP4) with double quantisation to a dense matrix in one launch, into memory that is used again.

bitsandbytes takes three launches and a round trip of all block maxima in fp32: decode the 8-bit maxima, add their offset,
then decode the weights. Here a program decodes what its own blocks need. Rounding is as in bitsandbytes: the maximum is
nested_code[q] · nested_absmax + offset in fp32, the weight code[nibble] · maximum in fp32, then cast once.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stilnovo.plan.levers import BLOCK, NESTED_BLOCK

BLOCKS = 32  # quantisation blocks a program decodes


@triton.jit
def _dequantize(
    packed, absmax, code, offset, nested_absmax, nested_code, out, blocks,
    BLOCK: tl.constexpr, NESTED: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Triton kernel: each program dequantises BLOCKS blocks of BLOCK weights."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    level = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
    coarse = tl.load(nested_absmax + block // NESTED, mask=inside, other=0.0)
    # bitsandbytes rounds the product before it adds the offset: a fused multiply-add would differ in the last bit.
    product = tl.load(nested_code + level) * coarse
    largest = _rounded(product) + tl.load(offset)
    byte = block[:, None] * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
    pair = tl.load(packed + byte, mask=inside[:, None], other=0).to(tl.int32)
    first = tl.load(code + (pair >> 4)) * largest[:, None]
    second = tl.load(code + (pair & 15)) * largest[:, None]
    both = tl.interleave(first, second)
    place = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(out + place, both.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _rounded(x):
    """Round x through its bits, so that it is not contracted into a multiply-add."""
    return x.to(tl.int32, bitcast=True).to(tl.float32, bitcast=True)


def dequantize(linear: Any, out: Tensor) -> Tensor:
    """Dequantise a `FourBitLinear` to its dense matrix (out, in), written into `out` of any floating-point type."""
    blocks = linear.absmax.numel()
    assert out.is_contiguous() and out.numel() == blocks * BLOCK, "whole blocks only"
    _dequantize[(triton.cdiv(blocks, BLOCKS),)](
        linear.packed, linear.absmax, linear.code, linear.offset.reshape(1), linear.nested_absmax, linear.nested_code,
        out, blocks, BLOCK=BLOCK, NESTED=NESTED_BLOCK, BLOCKS=BLOCKS,
    )  # fmt: skip
    return out


def can(linear: Any) -> bool:
    """Whether the kernel supports this projection: whole blocks, whole bytes."""
    return bool(linear.out_features * linear.in_features % BLOCK == 0) and linear.packed.dtype == torch.uint8
