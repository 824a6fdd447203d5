"""Uncertainty of measures that are no means over items: Matthews correlation, macro F1, shares of what all items counted.

Each is a function of sums: every item adds a row of counts (to the table of right by given answers, say), and the measure
is computed from the column sums. Interval and test are the same for all of them:

* The interval is a Bayesian bootstrap (Rubin 1981): units are weighted at random, and the interval holds the middle 95 % of
  the measure under the weights. For a table of answers without groups that is the posterior of its shares. Unusual: with
  the units stand pseudo-units, one of each row that an item could add, which together weigh as much as one item for each
  right answer that there is (for two classes Jeffreys' prior). Without them, a handful of items of a rare class, all wrong, would
  look like certainty: the delete-one jackknife with Fisher's transformation holds .83 where five of 50 items are rare and
  mostly wrong (`bench/coverage.py`).
* Few units are taken to vary more than they look, as Student's t does: their weights vary more.
* The test exchanges the two runs' answers unit by unit at random, which is exact if the runs are interchangeable.

Shape letters: N items, G units, C counts an item adds, P rows that it could add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stilnovo.statistics.estimates import (
    FEWEST_UNITS,
    RESAMPLES,
    SEED,
    UPPER,
    Estimate,
    Floats,
    cluster_sums,
    normal_quantile,
    student_quantile,
)
from stilnovo.statistics.power import smallest_visible_shift

DRAWS = 4000  # of weights; the ends of an interval are known to a fortieth of its width
_CHUNK = 2_000_000  # random numbers held at once


@dataclass(frozen=True)
class CorpusMeasure:
    """A measure of sums of counts.

    Attributes:
        of: (..., C) sums → (...) values.
        possible: (P, C), the rows that one item could add; each is a pseudo-unit.
        weight: Of each pseudo-unit.
        low: Lowest value; the highest is 1.
        answers: So many rows of `possible`, one after the other, are the answers to one item; 0 if that is not known.
    """

    of: Callable[[Floats], Floats]
    possible: Floats
    weight: float
    low: float = 0.0
    answers: int = 0

    def averaged(self, rounds: int) -> CorpusMeasure:
        """Mean of the measure over several rounds of the same items, whose rows stand one after the other."""
        if rounds == 1:
            return self

        def of(sums: Floats) -> Floats:
            found: Floats = np.mean(self.of(sums.reshape(*sums.shape[:-1], rounds, -1)), axis=-1)
            return found

        return replace(self, of=of, possible=np.tile(self.possible, rounds))


def estimate(measure: CorpusMeasure, counts: Floats, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """The measure of `counts` (N, C) with its interval over the clusters; of too few units the whole range.

    Raises:
        ValueError: there are no items.
    """
    return _interval(measure.of, counts, measure.possible, measure.weight, (measure.low, 1.0), clusters)


def difference(
    measure: CorpusMeasure, before: Floats, after: Floats, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The measure of `after` minus that of `before`, (N, C) both and of the same items, with its paired interval.

    Raises:
        ValueError: the shapes differ, or there are no items.
    """
    if before.shape != after.shape:
        raise ValueError(f"a paired difference needs the same items on both sides: {before.shape}, {after.shape}")
    columns, rows = before.shape[1], len(measure.possible)
    both = np.concatenate([np.repeat(measure.possible, rows, axis=0), np.tile(measure.possible, (rows, 1))], axis=1)

    def change(sums: Floats) -> Floats:
        return measure.of(sums[..., columns:]) - measure.of(sums[..., :columns])

    reach = 1.0 - measure.low
    pairs = np.concatenate([before, after], axis=1)
    return _interval(change, pairs, both, measure.weight / rows, (-reach, reach), clusters)


def swap_test(
    measure: CorpusMeasure,
    before: Floats,
    after: Floats,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> float:
    """Two-sided p-value that the runs behind `before` and `after`, (N, C) both, are interchangeable (Fisher 1935).

    The answers to each unit are exchanged or not, at random; the observed difference counts among those, so that p is never
    zero. For a mean over items it is the sign-flip test.
    """
    moved, counts = _distinct(_unit_sums(after - before, clusters))
    some = moved.any(axis=1)
    moved, counts = moved[some], counts[some]
    start, end = before.sum(axis=0), after.sum(axis=0)
    observed = abs(float(measure.of(end) - measure.of(start))) - 1e-12
    if not counts.sum():
        return 1.0
    rng, extreme = np.random.default_rng(seed), 0
    step = max(1, _CHUNK // len(counts))
    for first in range(0, resamples, step):
        swapped = rng.binomial(counts, 0.5, size=(min(step, resamples - first), len(counts))) @ moved
        extreme += int(np.count_nonzero(np.abs(measure.of(end - swapped) - measure.of(start + swapped)) >= observed))
    return (extreme + 1) / (resamples + 1)


def smallest_visible(
    measure: CorpusMeasure, counts: Floats, discordance: float, clusters: Sequence[Hashable] | None = None
) -> float:
    """The smallest difference to a run that changes a share `discordance` of the answers, shown with 80 % power; 1 for none."""
    sizes = cluster_sums(np.ones(len(counts)), clusters).tolist()
    return min(1.0, smallest_visible_shift(change_error(measure, counts, discordance), sizes))


def change_error(measure: CorpusMeasure, counts: Floats, discordance: float) -> float:
    """Standard error of the measure's difference from another run that changes a share `discordance` of the answers.

    Linearised: what an item adds moves the measure by the gradient times that row. A changed answer is one of the other
    `answers` that the item could have had; where these are not known, that of another item whose row is another. Of the
    errors here and where most of the changes have made it better, the larger: a better run's measure may vary more.
    """
    n, sums = len(counts), counts.sum(axis=0) + measure.weight * measure.possible.sum(axis=0)
    gradient = _gradient(measure, sums)
    if not measure.answers:
        shares = _distinct(counts)[1] / n
        differing = 1 - float(shares @ shares)
        return math.sqrt(discordance * 2 * float((counts @ gradient).var()) * n / differing) if differing else 0.0
    own, errors = np.argmax(counts @ measure.possible.T, axis=1), []
    asked, blocks = own // measure.answers, measure.possible.reshape(-1, measure.answers, counts.shape[1])
    best = blocks[asked, np.argmax(blocks @ gradient, axis=1)[asked]]
    gained = (best - counts) * min(1.0, discordance / 3 / max(1e-9, float((best != counts).any(axis=1).mean())))
    for slope in (gradient, _gradient(measure, sums + gained.sum(axis=0))):
        squares = (((blocks @ slope)[asked] - (counts @ slope)[:, None]) ** 2).sum(axis=1) / (measure.answers - 1)
        errors.append(math.sqrt(discordance * float(squares.sum())))
    return max(errors)


def _gradient(measure: CorpusMeasure, sums: Floats) -> Floats:
    """(C,), how much one more of each count adds to the measure."""
    steps = np.eye(len(sums)) * 0.5
    return measure.of(sums + steps) - measure.of(sums - steps)


def _interval(
    of: Callable[[Floats], Floats],
    counts: Floats,
    possible: Floats,
    weight: float,
    bounds: tuple[float, float],
    clusters: Sequence[Hashable] | None,
) -> Estimate:
    if len(counts) == 0:
        raise ValueError("a measure of no items")
    units, sizes = _unit_sums(counts, clusters), cluster_sums(np.ones(len(counts)), clusters)
    value = float(of(counts.sum(axis=0)))
    if len(units) < FEWEST_UNITS:
        return Estimate(value, *bounds, math.inf, len(counts), len(units))
    squares = sizes**2 / (sizes**2).sum()
    effective = 1 / float(squares @ squares)
    shape = (normal_quantile(UPPER) / student_quantile(UPPER, max(1.0, effective - 1))) ** 2
    rows, repeats = _distinct(units)
    rows = np.concatenate([rows, possible])
    shapes = np.concatenate([shape * repeats, np.full(len(possible), weight)])
    rng, drawn = np.random.default_rng(SEED), []
    step = max(1, _CHUNK // len(rows))
    for first in range(0, DRAWS, step):
        size = (min(step, DRAWS - first), len(rows))
        drawn.append(of(rng.standard_gamma(np.broadcast_to(shapes, size)) @ rows))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [1 - UPPER, UPPER]).tolist()
    return Estimate(value, min(low, value), max(high, value), float(values.std()), len(counts), len(units))


def _unit_sums(counts: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Column sums over clusters, (G, C)."""
    return np.stack([cluster_sums(column, clusters) for column in counts.T], axis=1)


def _distinct(rows: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Distinct rows and how often each occurs."""
    distinct, repeats = np.unique(rows, axis=0, return_counts=True)
    return distinct, repeats.astype(np.intp)
