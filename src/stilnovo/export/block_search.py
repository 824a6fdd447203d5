"""Scales of quantised blocks: the search for those that leave the least squared error.

A group of n values is kept as codes of few bits with one scale, x ≈ s · q, or with a scale and a minimum, x ≈ s · q − m. For given
codes the best s and m are those of (weighted) least squares; for given s and m the best codes are the nearest. Several first
guesses are tried for each group, from a step that cuts off its largest value to one that leaves room beyond it, the best is refined
by turns, and what is kept of scales is rounded with the same aim.

Unusual: the values of a group lie under each other, (n, G) for G groups, so that every sum over a group is one over rows, which a
processor does for many groups at once. Errors are never computed: with the sums Σwq, Σwq², Σwxq the error of any s and m is
Σwx² less what is called gain here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

TINY = 1e-30  # below, a divisor counts as nothing


def divisor(values: Tensor) -> Tensor:
    """The same values, where they are almost zero by a tiny number."""
    return torch.where(values.abs() < TINY, TINY, values)


def inverse(values: Tensor) -> Tensor:
    """1 / values; 0 where they are almost zero."""
    return torch.where(values.abs() < TINY, 0.0, 1.0 / values)


def _as_it_is(values: Tensor) -> Tensor:
    return values


def half(values: Tensor) -> Tensor:
    """Round to fp16, kept in fp32."""
    return values.to(torch.float16).float()


@dataclass(frozen=True)
class GroupSums:
    """GroupSums over each group for its present codes q: Σwq, Σwq², Σwxq, each (G,)."""

    q: Tensor
    qq: Tensor
    xq: Tensor


class Groups:
    """Values in groups of `size`, with the lowest and highest code that they may have.

    Args:
        rows: Values (R, C) in fp32.
        size: Values of a group, a divisor of C.
        low: The lowest code.
        high: The highest one.
        importance: How much the squared error of each column counts (C,); None: all alike.
    """

    def __init__(self, rows: Tensor, size: int, low: int, high: int, importance: Tensor | None) -> None:
        self.size, self.low, self.high = size, low, high
        self.x = rows.reshape(-1, size).t().contiguous()
        self.weights: Tensor | None = None
        self.weighted = self.x
        if importance is not None:
            self.weights = importance.view(-1, size).t().repeat(1, len(rows))
            self.weighted = self.x * self.weights
        self.codes, self._product = torch.empty_like(self.x), torch.empty_like(self.x)

    @cached_property
    def total(self) -> Tensor:
        """Σwx of each group (G,)."""
        return self.weighted.sum(0)

    @cached_property
    def count(self) -> Tensor:
        """Σw of each group (G,)."""
        if self.weights is not None:
            return self.weights.sum(0)
        return torch.full_like(self.total, self.size)

    def encode(self, scale: Tensor, minimum: Tensor | None = None) -> None:
        """Take the nearest codes for a scale and a minimum of each group (G,)."""
        steps = inverse(scale)
        if minimum is None:
            torch.mul(self.x, steps, out=self.codes)
        else:
            torch.addcmul(minimum * steps, self.x, steps, out=self.codes)
        self.codes.round_().clamp_(self.low, self.high)

    def sums(self) -> GroupSums:
        """The sums for the present codes."""
        product, codes = self._product, self.codes
        xq = torch.mul(codes, self.weighted, out=product).sum(0)
        if self.weights is None:
            return GroupSums(codes.sum(0), torch.mul(codes, codes, out=product).sum(0), xq)
        q = torch.mul(codes, self.weights, out=product).sum(0)
        return GroupSums(q, product.mul_(codes).sum(0), xq)

    def scale_gain(self, sums: GroupSums, scale: Tensor) -> Tensor:
        """Σwx² less the squared error of x ≈ s · q (G,)."""
        return 2 * scale * sums.xq - scale * scale * sums.qq

    def pair_gain(self, sums: GroupSums, scale: Tensor, minimum: Tensor) -> Tensor:
        """Σwx² less the squared error of x ≈ s · q − m (G,)."""
        square = minimum * (2 * self.total + minimum * self.count)
        return self.scale_gain(sums, scale) + 2 * scale * minimum * sums.q - square

    def best_scales(self, shifts: list[float], turns: int, kept: Callable[[Tensor], Tensor] = _as_it_is) -> Tensor:
        """Search the scale of each group (G,) for x ≈ s · q; it is negative where the largest value is better kept by the lowest code.

        Args:
            shifts: First guesses: the lowest code less each of these is where the largest value falls.
            turns: How often codes and scale of the best one are refined.
            kept: What a scale becomes where it is kept.
        """
        top, bottom = self.x.amax(0), self.x.amin(0)
        largest = divisor(torch.where(top > -bottom, top, bottom))
        best, found = torch.zeros_like(top), torch.zeros_like(top)
        for turn in range(len(shifts) + turns):
            self.encode(largest / (self.low - shifts[turn]) if turn < len(shifts) else found)
            sums = self.sums()
            scale = kept(sums.xq / divisor(sums.qq))
            gain = self.scale_gain(sums, scale)
            better = gain > best
            best, found = torch.where(better, gain, best), torch.where(better, scale, found)
        return found

    def best_pairs(
        self, shifts: list[float], turns: int, kept: Callable[[Tensor], Tensor] = _as_it_is, *, signed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Search scale and minimum of each group (G,) for x ≈ s · q − m; neither is negative.

        Args:
            shifts: First guesses: the highest code and each of these is where the largest value falls, the smallest one, or
                zero where all are positive, at zero.
            turns: How often codes, scale and minimum of the best one are refined.
            kept: What scale and minimum become where they are kept.
            signed: The minimum m may be negative: zero is no bound where all values are positive.
        """
        smallest = self.x.amin(0)
        if not signed:
            smallest.clamp_(max=0)
        span = divisor(self.x.amax(0) - smallest)
        best = torch.zeros_like(span)
        scale, minimum = torch.zeros_like(span), kept(-smallest)
        for turn in range(len(shifts) + turns):
            if turn < len(shifts):
                self.encode(span / (self.high + shifts[turn]), -smallest)
            else:
                self.encode(scale, minimum)
            sums = self.sums()
            new_scale, new_minimum = (kept(found) for found in self._fitted(sums, signed))
            gain = self.pair_gain(sums, new_scale, new_minimum)
            better = gain > best
            best = torch.where(better, gain, best)
            scale, minimum = torch.where(better, new_scale, scale), torch.where(better, new_minimum, minimum)
        return scale, minimum

    def _fitted(self, sums: GroupSums, signed: bool) -> tuple[Tensor, Tensor]:
        """Scale and minimum of least squares for the present codes, the minimum not below zero unless `signed`."""
        determinant = self.count * sums.qq - sums.q * sums.q
        scale = (self.count * sums.xq - self.total * sums.q) / determinant
        minimum = (sums.q * sums.xq - sums.qq * self.total) / determinant
        plain = ~(determinant > 0) if signed else (minimum < 0) | ~(determinant > 0)
        scale = torch.where(plain, sums.xq / divisor(sums.qq), scale).clamp_(min=0)
        return scale, torch.where(plain, 0.0, minimum)
