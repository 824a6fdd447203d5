"""How small a difference can be and still be shown: the power of the very rules that give the verdicts.

For rights and wrongs on independent items the power of McNemar's exact test is summed over all outcomes: the usual formula
(Connor 1987) is that of a z-test and promises too much for few items. For everything else, the interval of
`estimates.ratios` must leave out zero; how many standard errors that takes is drawn for the units that there are, because
for few and unequal ones it is far more than the 2.8 of the textbook.

Shapes: (G,) items or bytes of G units.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from stilnovo.statistics.correlated import residual_scale
from stilnovo.statistics.estimates import (
    FEWEST_UNITS,
    UPPER,
    Floats,
    cluster_sums,
    effective_units,
    normal_quantile,
    ratio,
    reaches,
    root,
    sign_flip,
    student_quantile,
    wilson,
)

POWER, ALPHA = 0.80, 0.05
ASSUMED_DISCORDANCE = 0.20  # share of items on which two related models differ; 10 to 30 % is typical

_MANY = 400  # items that change sides; with more the z-test's formula is as good
_MANY_UNITS = 200  # with more, Student's t and the normal quantile are as good as draws
_MANY_GROUPS = 60  # as much, of items
_DRAWS, _SEED = 2000, 42
_TRIALS, _FLIPS, _HALVINGS = 600, 300, 10  # of each difference, which is then known to a tenth of a point


def smallest_visible_difference(
    n: int, discordance: float = ASSUMED_DISCORDANCE, clusters: Sequence[Hashable] | None = None
) -> float:
    """The smallest paired difference of two accuracies that `n` items show with 80 % power.

    `discordance` is the share of items on which the two runs differ. A difference cannot exceed it: where it would, the
    share grows with it. With `clusters`, the names of the items' groups, it is what they show at best, the items of a
    group changing independently. Returned as a share (0.12 is 12 points), 1 where nothing could be seen.
    """
    sizes = None if clusters is None else cluster_sums(np.ones(n), clusters)
    if sizes is not None and len(sizes) < n:
        return _visible_in_groups(tuple(sorted(sizes.tolist())), discordance)
    return _visible_alone(n, discordance)


def expected_reach(n: int, clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """How far the interval of an accuracy of one half reaches on either side, with `n` items.

    Where the items of a cluster are answered independently, and where they are answered alike: then the clusters count, as
    many of one size as weigh as much. Both are the same for items on their own.
    """
    sizes = np.ones(n) if clusters is None else cluster_sums(np.ones(n), clusters)
    if len(sizes) == n:
        low, high = wilson(0.5, n, normal_quantile(UPPER))
        return (high - low) / 2, (high - low) / 2
    if len(sizes) < 2:
        return 0.5, 0.5
    alike, degrees = effective_units(sizes), max(1.0, effective_units(sizes, 2) - 1)
    quantile = student_quantile(UPPER, max(1.0, alike - 1)) * (1 + 0.5 / len(sizes))
    reaches = []
    for count in (n * (len(sizes) - 1) / len(sizes), max(1.0, alike - 1)):
        # as `estimates.mean` has it: Wilson's, or Student's where that is farther
        low, high = wilson(0.5, count, quantile)
        reaches.append(min(0.5, max((high - low) / 2, student_quantile(UPPER, degrees) * 0.5 / math.sqrt(count))))
    return reaches[0], reaches[1]


@lru_cache(maxsize=256)
def _visible_alone(n: int, discordance: float) -> float:
    if n < 1 or mcnemar_power(n, 1.0, 1.0) < POWER:
        return 1.0
    return root(lambda difference: POWER - mcnemar_power(n, max(discordance, difference), difference), 0.0, 1.0)


@lru_cache(maxsize=64)
def _visible_in_groups(sizes: tuple[float, ...], discordance: float) -> float:
    if len(sizes) < FEWEST_UNITS:
        return 1.0
    weights, n = np.asarray(sizes, dtype=np.float64), sum(sizes)

    def power(difference: float) -> float:
        changing = max(discordance, difference)
        if len(sizes) > _MANY_GROUPS:
            spread = math.sqrt(max(1e-12, changing - difference**2) / n)
            return NormalDist().cdf(difference / spread - student_quantile(UPPER, len(sizes) - 1))
        cells = [(changing + difference) / 2, (changing - difference) / 2, max(0.0, 1 - changing)]
        counts = np.random.default_rng(_SEED).multinomial(weights.astype(int), cells, size=(_TRIALS, len(sizes)))
        return float(np.mean([_shown(row, weights) for row in counts.astype(np.float64)]))

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _shown(counts: Floats, sizes: Floats) -> bool:
    """Whether a difference is, with so many items of each unit gained, lost and as they were, (G, 3)."""
    changes = counts[:, 0] - counts[:, 1]
    value = float(changes.sum() / sizes.sum())
    residuals = changes - value * sizes
    items = float(counts.sum(axis=0) @ np.array([1 - value, -1 - value, -value]) ** 2) / (1 - 1 / float(sizes.sum()))
    below, _ = reaches(residuals, sizes, residual_scale(items, sizes, residuals, sizes))
    return value - below > 0 and sign_flip(changes, resamples=_FLIPS) < ALPHA


def mcnemar_power(n: int, discordance: float, difference: float) -> float:
    """Probability that McNemar's exact test at 5 % finds `difference` among `n` items of which a share `discordance` change.

    Where more than four hundred are to change, of the z-test with its correction for continuity instead.
    """
    expected = n * discordance
    if expected > _MANY:
        reach = normal_quantile(1 - ALPHA / 2) * math.sqrt(expected) + 1 - n * difference
        spread = math.sqrt(max(1e-12, expected - n * difference**2))
        return 0.5 * math.erfc(reach / spread / math.sqrt(2))
    width = 6 * math.sqrt(expected * (1 - discordance)) + 1
    first, last = max(0, math.floor(expected - width)), min(n, math.ceil(expected + width))
    changed, fewer = np.arange(first, last + 1)[:, None], np.arange(last // 2 + 1)[None, :]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    possible = fewer <= changed
    ways = factorials[changed] - factorials[fewer] - factorials[np.where(possible, changed - fewer, 0)]

    def terms(share: float) -> Floats:
        """Probability of `fewer` of `changed` successes, (changed, fewer)."""
        logs = ways + _log_power(share, fewer) + _log_power(1 - share, np.where(possible, changed - fewer, 0))
        found: Floats = np.where(possible, np.exp(logs), 0.0)
        return found

    rejected = 2 * np.cumsum(terms(0.5), axis=1) < ALPHA
    lost = (discordance - difference) / (2 * discordance)
    # either tail; twice the same cell cannot be rejected
    found = ((terms(lost) + terms(1 - lost)) * rejected).sum(axis=1)
    logs = factorials[n] - factorials[changed] - factorials[n - changed]
    weights = np.exp(logs + _log_power(discordance, changed) + _log_power(1 - discordance, n - changed))[:, 0]
    return float(weights @ found)


def _log_power(share: float, count: np.ndarray) -> Floats:
    """Logarithm of `share` to the power of `count`; of a zero share to the power of zero it is zero."""
    if share > 0:
        return np.asarray(count * math.log(share), dtype=np.float64)
    return np.where(count == 0, 0.0, -math.inf)


def smallest_visible_shift(standard_error: float, sizes: Sequence[float]) -> float:
    """The smallest shift of a ratio with this standard error that its units, (G,), show with 80 % power.

    Infinite where there are too few of them.
    """
    return visible_errors(tuple(sorted(sizes))) * standard_error if len(sizes) >= FEWEST_UNITS else math.inf


@lru_cache(maxsize=64)
def visible_errors(sizes: tuple[float, ...]) -> float:
    """How many standard errors a shift must have for its interval to leave out zero with 80 % power.

    Drawn: units of these sizes whose means are normal, more precise the larger the unit.
    """
    weights = np.asarray(sizes, dtype=np.float64)
    groups = len(weights)
    if groups > _MANY_UNITS:
        return student_quantile(UPPER, groups - 1) + normal_quantile(POWER)
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, groups)) * np.sqrt(weights)
    lows = [-ratio(row, weights).low for row in noise]
    return float(np.quantile(lows, POWER)) * math.sqrt(float(weights.sum()))
