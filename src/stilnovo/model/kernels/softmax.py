"""Cross-entropy over logits as the product left them: statistics and gradient in two passes, the gradient over the logits.

Torch takes eight passes, most of them in fp32. The second pass reads what the first has just read, mostly from the cache.
Statistics are running ones (Milakov & Gimelshein 2018), so that a tile of the vocabulary can follow another.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

SPAN = 4096  # logits that a program reads at once
WARPS = 8


@triton.jit
def _statistics(logits, COLUMNS: tl.constexpr, SPAN: tl.constexpr):
    """Largest of a row's logits, and the sum of exp(logit − largest)."""
    largest, mass = float("-inf"), 0.0
    for start in range(0, COLUMNS, SPAN):
        column = start + tl.arange(0, SPAN)
        value = tl.load(logits + column, mask=column < COLUMNS, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(largest, tl.max(value, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing but −∞ so far: no sum, and no NaN
        mass = mass * tl.exp(largest - base) + tl.sum(tl.exp(value - base), 0)
        largest = higher
    return largest, mass


@triton.jit
def _tile(
    logits,
    targets,
    start,
    peak,
    mass,
    picked,
    shrink,
    logits_row,
    COLUMNS: tl.constexpr,
    GRADIENT: tl.constexpr,
    SPAN: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * logits_row
    target = tl.load(targets + row) - start
    here = (target >= 0) & (target < COLUMNS)
    own = tl.load(logits + target, mask=here, other=0.0).to(tl.float32)
    tl.store(picked + row, own, mask=here)
    highest, part = _statistics(logits, COLUMNS, SPAN)
    before = tl.load(peak + row)
    higher = tl.maximum(before, highest)
    base = tl.where(higher == float("-inf"), 0.0, higher)
    factor = tl.exp(before - base)
    tl.store(peak + row, higher)
    tl.store(shrink + row, factor)
    tl.store(mass + row, tl.load(mass + row) * factor + part * tl.exp(highest - base))
    if GRADIENT:
        for first in range(0, COLUMNS, SPAN):
            column = first + tl.arange(0, SPAN)
            value = tl.load(logits + column, mask=column < COLUMNS, other=0.0).to(tl.float32)
            tl.store(logits + column, tl.exp(value - base).to(logits.dtype.element_ty), mask=column < COLUMNS)


@triton.jit
def _whole(logits, targets, losses, logits_row, COLUMNS: tl.constexpr, GRADIENT: tl.constexpr, SPAN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits += row * logits_row
    target = tl.load(targets + row)
    own = tl.load(logits + target).to(tl.float32)
    highest, mass = _statistics(logits, COLUMNS, SPAN)
    tl.store(losses + row, tl.log(mass) + highest - own)
    if GRADIENT:
        for first in range(0, COLUMNS, SPAN):
            column = first + tl.arange(0, SPAN)
            value = tl.load(logits + column, mask=column < COLUMNS, other=0.0).to(tl.float32)
            share = tl.exp(value - highest) / mass - (column == target).to(tl.float32)
            tl.store(logits + column, share.to(logits.dtype.element_ty), mask=column < COLUMNS)


def softmax_tile(
    logits: Tensor, targets: Tensor, start: int, peak: Tensor, mass: Tensor, picked: Tensor, out: Tensor, gradient: bool
) -> None:  # fmt: skip
    """Let a tile of logits (R, W) enter the running softmax of its rows; see `operators.softmax_tile`."""
    rows, columns = logits.shape
    assert logits.stride(1) == 1 and all(t.is_contiguous() for t in (targets, peak, mass, picked, out))
    _tile[(rows,)](
        logits, targets, start, peak, mass, picked, out, logits.stride(0),
        COLUMNS=columns, GRADIENT=gradient, SPAN=SPAN, num_warps=WARPS,
    )  # fmt: skip


def softmax_whole(logits: Tensor, targets: Tensor, gradient: bool, out: Tensor) -> None:
    """Cross-entropy (R,) of all logits (R, V) into `out`; with `gradient`, softmax − one-hot over the logits."""
    rows, columns = logits.shape
    assert logits.stride(1) == 1 and targets.is_contiguous() and out.is_contiguous()
    _whole[(rows,)](
        logits, targets, out, logits.stride(0), COLUMNS=columns, GRADIENT=gradient, SPAN=SPAN, num_warps=WARPS,
    )  # fmt: skip
