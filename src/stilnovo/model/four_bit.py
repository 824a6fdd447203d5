"""Encode weights as NF4 or FP4 on a CPU: bitsandbytes' own codes, an order of magnitude sooner.

Blocks of 64 weights share their absolute maximum; each weight divided by it becomes the nearest of 16 levels, and two of
these make a byte. bitsandbytes looks for the level by a binary search for each weight, which takes nearly all of its time.

Unusual: here the scaled weight, in [−1, 1], becomes a whole number of a fine grid, and a table says which level all of that
grid's cell is nearest to. Rounding to the grid never changes the order of two numbers, so that only a cell with a bound
between two levels inside it is undecided; its weights, one of a thousand, are searched as bitsandbytes does. The
arithmetic before is bitsandbytes' to the bit: times 1 / maximum in whole blocks, divided by the maximum in a short last one.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from stilnovo.plan.levers import BLOCK

FourBits = Literal["nf4", "fp4"]
PART = BLOCK * 2**12  # weights encoded at once: what is made on the way stays in the processor's cache
GRID = 8191  # grid cells on each side of zero
SMALLEST = 1e-38  # a block's maximum below this counts as this: its inverse would be infinite
_UNDECIDED = 16  # marks a cell with a bound inside it


@cache
def bitsandbytes_functional() -> Any:
    """Import `bitsandbytes.functional` lazily, without its log message about an optional package."""
    # bitsandbytes logs an error when an optional kernel package is absent; we never use that kernel.
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        import bitsandbytes.functional as functional
    finally:
        logger.setLevel(level)
    return functional


def encode(weights: Tensor, scheme: FourBits) -> tuple[Tensor, Tensor]:
    """Encode weights (n,) of any floating type: two a byte (⌈n/2⌉, 1), and the blocks' absolute maxima (⌈n/64⌉,) in fp32."""
    parts = [_encode_part(part, scheme) for part in torch.split(weights, PART)]
    packed, maxima = zip(*parts, strict=True)
    return torch.cat(packed), torch.cat(maxima)


def _encode_part(part: Tensor, scheme: FourBits) -> tuple[Tensor, Tensor]:
    part = part.float()
    whole = part.numel() // BLOCK * BLOCK
    blocks, rest = part[:whole].view(-1, BLOCK), part[whole:]
    maxima = blocks.abs().amax(1)
    scaled = blocks.mul(maxima.clamp(min=SMALLEST).reciprocal_()[:, None]).view(-1)
    if len(rest):
        last = rest.abs().max().clamp(min=SMALLEST)
        maxima, scaled = torch.cat([maxima, last[None]]), torch.cat([scaled, rest / last])
    if len(scaled) % 2:
        scaled = torch.cat([scaled, scaled.new_zeros(1)])
    if not bool(maxima.isfinite().all()):  # no model's weights; what comes of them is bitsandbytes' affair
        packed, state = bitsandbytes_functional().quantize_4bit(part, blocksize=BLOCK, quant_type=scheme)
        return packed, state.absmax
    levels = _levels(scaled, scheme).view(torch.int16)
    both = (levels << 4) | (levels >> 8) if _little_endian() else (levels >> 4) | (levels & 15)
    return both.to(torch.uint8)[:, None], maxima


def _levels(scaled: Tensor, scheme: FourBits) -> Tensor:
    """The nearest level's number, 0 … 15, of each weight (n,), as bytes."""
    bounds, names, table = _tables(scheme)
    cells = (scaled * GRID).to(torch.int16).to(torch.int32).add_(GRID + 1)
    levels = table.index_select(0, cells)
    undecided = (levels == _UNDECIDED).nonzero()[:, 0]
    levels[undecided] = names[torch.bucketize(scaled[undecided].clamp_(-1, 1), bounds)]
    return levels


@cache
def _tables(scheme: FourBits) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds between levels in ascending order (15,), the levels' numbers in that order (16,), and the level of each cell."""
    code = bitsandbytes_functional().get_4bit_type(scheme, device="cpu")
    order = code.argsort()
    bounds = (code[order[:-1]] + code[order[1:]]) / 2
    names = order.to(torch.uint8)
    inside = (bounds * GRID).to(torch.int16).to(torch.int32).add_(GRID + 1)  # the cells that hold a bound
    cells = torch.arange(2 * GRID + 3, dtype=torch.int32)
    table = names[torch.searchsorted(inside, cells)]
    table[inside.long()] = _UNDECIDED
    return bounds, names, table


@cache
def _little_endian() -> bool:
    return bool(torch.tensor([1, 0], dtype=torch.uint8).view(torch.int16) == 1)
