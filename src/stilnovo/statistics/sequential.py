"""A sequential paired test: whether a model has regressed by more than a tolerance, at any of several evaluations.

The same items are evaluated up to K times while a model changes. Testing each time at 5 % would give false alarms far more
often than 5 %. Dividing by K (Bonferroni) is safe but blunt, because the evaluations resemble one another: it is one draw of items,
and a model that moves slowly. Here each evaluation may spend α / K (Lan and DeMets, Biometrika 70, 1983), and its critical
value is found from how the evaluations really are correlated, item by item: jointly normal with the measured correlations (the
Gaussian multiplier bootstrap; Chernozhukov, Chetverikov and Kato, Annals of Statistics 41, 2013). It is never above
Bonferroni's. Textbook group-sequential bounds would be wrong: no items are added from one to the next, the model changes.

Where a few units gain much and the others lose a little, a mean looks too low and its standard error too small: with Student's
quantile alone such trainings would be stopped without a loss 14 to 30 % of the time instead of 5. The bound is therefore moved by
Hall's correction for skewness (`estimates.hall`), whose constants were chosen by simulation (`bench/coverage.py`, lognormal
rooms with σ = 1): 5 to 9 % from 16 units on. Few units then need a larger loss to be sure of it.

What is tested is the *room* left: how much better the model is than the base, plus what is allowed to be lost. Room
that is surely negative is a loss. The bounds of all evaluations hold together with probability 1 − α, whatever was truly lost
at each of them.

Shape letters: K evaluations, U independent units (items, passages, documents).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from stilnovo.statistics.estimates import Floats, hall, normal_quantile, student_quantile

DRAWS = 100_000  # of the joint distribution: a critical value is then known to about 1 %
MOST_NUMBERS = 2**24  # held for them, 128 MiB: more than 160 evaluations get fewer draws
SEED = 42
MORE, FARTHEST = 24.0, 5.0  # as in `estimates`, larger because the share of α is small


@dataclass(frozen=True)
class Bound:
    """One evaluation: the mean room over the units, its standard error, and the critical value in standard errors."""

    room: float
    standard_error: float
    quantile: float

    @property
    def most(self) -> float:
        """Upper bound of the true room, valid at all evaluations together with probability 1 − α."""
        return self.room + self.quantile * self.standard_error


def bound(rooms: ArrayLike, evaluations: int, alpha: float, strata: ArrayLike | None = None) -> Bound:
    """The bound of the newest evaluation.

    Args:
        rooms: (K, U) of the evaluations made so far, the newest last.
        evaluations: How many are planned in all.
        alpha: Of all of them together, one-sided.
        strata: (U,) numbers of groups drawn separately (benchmarks): what differs between them is no chance.
    """
    rows = np.asarray(rooms, dtype=np.float64)
    units = rows.shape[1]
    groups = np.zeros(units, dtype=np.intp) if strata is None else np.asarray(strata, dtype=np.intp)
    freedom = units - len(np.unique(groups))
    if freedom < 1:
        return Bound(float(rows[-1].mean()), math.inf, 1.0)
    residuals = rows.copy()
    for group in np.unique(groups):
        residuals[:, groups == group] -= rows[:, groups == group].mean(axis=1, keepdims=True)
    error = math.sqrt(float(residuals[-1] @ residuals[-1]) / freedom / units)
    normal = quantiles(residuals, evaluations, alpha)[-1]
    quantile = student_quantile(NormalDist().cdf(normal), freedom)
    if freedom > 2 and residuals[-1].any():
        quantile = max(quantile, hall(residuals[-1], quantile, freedom + 1, MORE, FARTHEST)[1])
    return Bound(float(rows[-1].mean()), error, quantile)


def quantiles(
    residuals: ArrayLike, evaluations: int, alpha: float, *, draws: int = DRAWS, seed: int = SEED
) -> list[float]:
    """Critical values of the evaluations made so far, as quantiles of the standard normal distribution.

    Args:
        residuals: (K, U) what is left of each unit's difference when the mean is taken away.
        evaluations: How many are planned in all.
        alpha: Of all of them together.
        draws: Of the joint distribution.
        seed: Of them; the same evaluations always give the same values.
    """
    rows = np.asarray(residuals, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    moved = lengths > 1e-12
    rows = np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=moved[:, None])
    factor: Floats = np.asarray(
        np.linalg.qr(rows.T, mode="r")
    )  # (min(U, K), K): evaluation k is jointly normal with those before it
    draws = max(1, min(draws, MOST_NUMBERS // evaluations))
    noise = _noise(evaluations, draws, seed)
    alone, share = normal_quantile(1 - alpha / evaluations), alpha / evaluations
    silent, spent = np.ones(draws, dtype=bool), 0  # draws that no evaluation so far has called a loss
    critical = []
    for step in range(1, len(rows) + 1):
        value = alone
        if moved[step - 1]:
            values = factor[:step, step - 1] @ noise[: min(step, len(factor))]
            free = round(step * share * draws) - spent  # so many more may be called by now
            remaining = values[silent]
            if 0 < free <= len(remaining):
                value = min(alone, float(np.partition(remaining, -free)[-free]))
            called = silent & (values >= value)
            spent += int(called.sum())
            silent &= ~called
        critical.append(value)
    return critical


@lru_cache(maxsize=1)
def _noise(evaluations: int, draws: int, seed: int) -> Floats:
    """Draw (evaluations, draws) standard normal numbers; the first rows do not depend on how many follow."""
    return np.random.default_rng(seed).standard_normal((evaluations, draws))


def visible_loss(
    deviation: float, units: int, evaluations: int, alpha: float, allowed: float = 0.0, *, power: float = 0.8
) -> float:
    """Smallest loss that one evaluation detects with probability `power`, whatever the others say (Bonferroni).

    `deviation` is the standard deviation of the differences between units, in the unit of `allowed` and of the result.
    """
    if units < 2:
        return math.inf
    certain = student_quantile(1 - alpha / evaluations, units - 1) * (1 + 50 / units**2)  # for skewness, as simulated
    return allowed + (certain + normal_quantile(power)) * deviation / math.sqrt(units)
