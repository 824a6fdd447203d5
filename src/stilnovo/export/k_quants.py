"""Values into GGUF's K-quants: Q4_K, Q5_K and Q6_K, blocks of 256 whose groups' scales are themselves kept as whole numbers.

Q4_K and Q5_K: 8 groups of 32, x ≈ (d · a) q − (dmin · b) with a and b of 6 bits for each group, d and dmin in fp16 for the block.
Q6_K: 16 groups of 16, x ≈ (d · a) q with a of 8 bits.

The groups' own scales come from `Groups`; they are then rounded to whole multiples of d. Several steps d are tried: a finer one
may fit the other groups better than the one at which the largest scale is exact. Then d, the whole numbers and the codes are each
chosen by least squares with the others held, by turns, and the best is kept. So the errors are below those of llama.cpp's
quantiser (tests/test_k_quants.py), which rounds once. The layout of the bytes is ggml's (ggml-org/ggml, src/ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stilnovo.export.block_search import Groups, divisor, half

_MOST = 63  # of 6 bits
# Found by trial on normal and heavy-tailed weights: more of them gain less than a thousandth.
_PAIR_SHIFTS = [-3 + 0.3 * step for step in range(19)]
_PAIR_COUNTS = tuple(range(47, 64, 2))
_SCALE_SHIFTS = [-4.8 + 0.3 * step for step in range(21)]
_SCALE_COUNTS = (*range(96, 129, 4), -127)
_TURNS = 4


def q4_k(rows: Tensor, importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q4_K: bytes (R, n)."""
    codes, head = _pairs(rows, 15, importance)
    halves = codes.view(-1, 4, 2, 32)
    packed = halves[:, :, 0] | halves[:, :, 1] << 4
    return torch.cat([head, packed.flatten(1)], dim=1).view(len(rows), -1)


def q5_k(rows: Tensor, importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q5_K: bytes (R, n)."""
    codes, head = _pairs(rows, 31, importance)
    low, high = (codes & 15).view(-1, 4, 2, 32), codes >> 4
    fifth = _joined(high, range(8))
    packed = low[:, :, 0] | low[:, :, 1] << 4
    return torch.cat([head, fifth, packed.flatten(1)], dim=1).view(len(rows), -1)


def q6_k(rows: Tensor, importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q6_K: bytes (R, n)."""
    groups = Groups(rows, 16, -32, 31, importance)
    d, scales = _rounded_scales(groups)
    groups.encode((d[:, None] * scales).view(-1))
    codes = (groups.codes + 32).to(torch.uint8).t().reshape(-1, 2, 4, 32)  # half of the block, quarter of that, place
    low, high = codes & 15, codes >> 4
    lower = torch.cat([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], dim=2)
    upper = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    parts = [lower.flatten(1), upper.flatten(1), scales.to(torch.int8).view(torch.uint8), _fp16(d)]
    return torch.cat(parts, dim=1).view(len(rows), -1)


def _joined(bits: Tensor, shifts: range) -> Tensor:
    """Bits (blocks, 8, 32), one of each group beside another in a byte: (blocks, 32)."""
    joined = torch.zeros_like(bits[:, 0])
    for group in shifts:
        joined |= bits[:, group] << group
    return joined


def _fp16(values: Tensor) -> Tensor:
    """Values (blocks,) in fp16 as bytes (blocks, 2)."""
    return values.to(torch.float16)[:, None].view(torch.uint8)


def _pairs(rows: Tensor, highest: int, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes (blocks, 8, 32) and the blocks' first 16 bytes: d, dmin, and 6 bits of each group's scale and minimum."""
    groups = Groups(rows, 32, 0, highest, importance)
    d, dmin, scales, minima = _rounded_pairs(groups)
    groups.encode((d[:, None] * scales).view(-1), (dmin[:, None] * minima).view(-1))
    codes = groups.codes.to(torch.uint8).t().reshape(-1, 8, 32)
    a, b = scales.to(torch.uint8), minima.to(torch.uint8)
    packed = [
        a[:, :4] | (a[:, 4:] >> 4) << 6, b[:, :4] | (b[:, 4:] >> 4) << 6, a[:, 4:] & 15 | (b[:, 4:] & 15) << 4,
    ]  # fmt: skip
    return codes, torch.cat([_fp16(d), _fp16(dmin), *packed], dim=1)


def _rounded_pairs(groups: Groups) -> tuple[Tensor, ...]:
    """d and dmin (blocks,), and the whole numbers of scales and minima (blocks, 8)."""
    scale, minimum = (found.view(-1, 8) for found in groups.best_pairs(_PAIR_SHIFTS, 2))
    groups.encode(scale.view(-1), minimum.view(-1))
    sums, held = groups.sums(), minimum.view(-1)
    d, a = _best_step(scale, scale.amax(1), _PAIR_COUNTS, 0, lambda flat: groups.pair_gain(sums, flat, held))
    exact = (d[:, None] * a).view(-1)
    dmin, b = _best_step(minimum, minimum.amax(1), _PAIR_COUNTS, 0, lambda flat: groups.pair_gain(sums, exact, flat))
    count, total = groups.count.view(-1, 8), groups.total.view(-1, 8)
    best = torch.full_like(d, -1)
    kept: tuple[Tensor, ...] = (d, dmin, a, b)
    for turn in range(_TURNS + 1):
        flat = (d[:, None] * a).view(-1), (dmin[:, None] * b).view(-1)
        groups.encode(*flat)
        sums = groups.sums()
        gain = groups.pair_gain(sums, *flat).view(-1, 8).sum(1)
        better = gain > best
        best = torch.where(better, gain, best)
        kept = _chosen(better, (d, dmin, a, b), kept)
        q, qq, xq = sums.q.view(-1, 8), sums.qq.view(-1, 8), sums.xq.view(-1, 8)
        if turn % 2 == 0:
            a = _whole((xq + dmin[:, None] * b * q) / divisor(qq), d, 0, _MOST)
            b = _whole((d[:, None] * a * q - total) / divisor(count), dmin, 0, _MOST)
        else:
            aa, ab, bb = (a * a * qq).sum(1), (a * b * q).sum(1), (b * b * count).sum(1)
            ax, bx = (a * xq).sum(1), (b * total).sum(1)
            determinant = aa * bb - ab * ab
            new, new_min = (ax * bb - ab * bx) / determinant, (ab * ax - aa * bx) / determinant
            sound = (determinant > 0) & (new > 0) & (new_min >= 0)
            d, dmin = half(torch.where(sound, new, d)), half(torch.where(sound, new_min, dmin))
    return kept


def _rounded_scales(groups: Groups) -> tuple[Tensor, ...]:
    """d (blocks,) and the whole numbers of scales (blocks, 16)."""
    scale = groups.best_scales(_SCALE_SHIFTS, 1).view(-1, 16)
    groups.encode(scale.view(-1))
    sums = groups.sums()
    largest = scale.gather(1, scale.abs().argmax(1, keepdim=True))[:, 0]
    d, a = _best_step(scale, largest, _SCALE_COUNTS, -128, lambda flat: groups.scale_gain(sums, flat))
    best = torch.full_like(d, -1)
    kept: tuple[Tensor, ...] = (d, a)
    for turn in range(_TURNS + 1):
        flat = (d[:, None] * a).view(-1)
        groups.encode(flat)
        sums = groups.sums()
        gain = groups.scale_gain(sums, flat).view(-1, 16).sum(1)
        better = gain > best
        best = torch.where(better, gain, best)
        kept = _chosen(better, (d, a), kept)
        qq, xq = sums.qq.view(-1, 16), sums.xq.view(-1, 16)
        if turn % 2 == 0:
            a = _whole(xq / divisor(qq), d, -128, 127)
        else:
            d = half((a * xq).sum(1) / divisor((a * a * qq).sum(1)))
    return kept


def _best_step(
    values: Tensor, largest: Tensor, counts: tuple[int, ...], low: int, gain: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Choose each block's step, of whose whole multiples its groups' values are kept: steps (blocks,), whole numbers (blocks, g).

    Args:
        values: What is kept so (blocks, g).
        largest: The largest of each block (blocks,).
        counts: How many steps it may be.
        low: The lowest whole number, below zero for 8 bits, else 0.
        gain: How good given values (blocks · g,) are, group by group.
    """
    high = 127 if low else _MOST
    found: tuple[Tensor, ...] = ()
    for count in counts:
        step = half(largest / count)
        whole = _whole(values, step, low, high)
        good = gain((step[:, None] * whole).view(-1)).view(values.shape).sum(1)
        found = (good, step, whole) if not found else _chosen(good > found[0], (good, step, whole), found)
    return found[1], found[2]


def _whole(values: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Whole multiples of each block's step (blocks,) nearest to the values of its groups (blocks, g)."""
    return (values / divisor(step)[:, None]).round_().clamp_(low, high)


def _chosen(better: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of each block the new values where they are better, else the old ones."""
    return tuple(
        torch.where(better if now.dim() == 1 else better[:, None], now, before)
        for now, before in zip(new, old, strict=True)
    )
