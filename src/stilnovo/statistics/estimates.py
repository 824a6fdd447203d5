"""Uncertainty of a score, and of the difference between two scores on the same items.

Everything a verdict rests on, in plain numpy: no model, no torch, no scipy (the tests compare with scipy and
statsmodels). Four choices are unusual and deliberate:

* Items are treated as a sample from a larger population of such questions (Miller, arXiv:2411.00640), so that even the
  full test set has an interval.
* Items that share a passage or a subject are not independent. Where clusters are given, the clustered standard error
  (Miller) takes the place of the naive one, and resampling draws whole clusters.
* Small numbers of clusters or documents are normal here, so normal quantiles give way to Student's t, and bootstrap
  percentiles are widened accordingly (Hesterberg, The American Statistician 69, 2015).
* Two models that answered alike on every item have not been shown to be equal: the interval of a paired difference of
  rights and wrongs is Tango's, which is never empty, and not the bootstrap's, which then would be.

Shapes: (N,) values of N items, (G,) sums over G clusters; an item without a cluster is a cluster of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

UPPER = 0.975  # the quantile at the upper end of a 95 % interval
RESAMPLES = 10_000
SEED = 42
FEWEST_CLUSTERS = 6  # below, no arrangement of signs reaches p < .05: 2 / 2^5 = .0625
ASSUMED_DISCORDANCE = 0.20  # share of items on which two related models differ; 10 to 30 % is typical

_CHUNK_DRAWS = 2_000_000  # random draws held at once, so that memory stays flat in the number of items
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: `value` in [`low`, `high`], from `n` items in `clusters` independent groups."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int
    clusters: int

    def times(self, factor: float) -> Estimate:
        """Convert to another unit, such as 100 for percent; a negative factor exchanges the ends."""
        low, high = sorted((factor * self.low, factor * self.high))
        return replace(
            self, value=factor * self.value, low=low, high=high, standard_error=abs(factor) * self.standard_error
        )

    def between(self, places: int) -> str:
        """Format the interval with so many decimals."""
        if self.clusters < 2:
            return "(one document: no interval)"
        return f"({self.low:.{places}f}–{self.high:.{places}f})"


def normal_quantile(probability: float) -> float:
    """Standard normal quantile: the z with P(Z <= z) = `probability`."""
    return NormalDist().inv_cdf(probability)


def student_quantile(probability: float, degrees: float) -> float:
    """Student's t quantile: exact at 1 and 2 degrees of freedom, else expanded around the normal one.

    The expansion is Abramowitz and Stegun 26.7.5; at 0.975 it is within 0.004 of the exact value from 3 degrees on.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        centred = 2 * probability - 1
        return centred * math.sqrt(2 / (1 - centred**2))
    z = normal_quantile(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927): never outside [0, 1], and not empty at 0 or 1.

    `n` may be an effective sample size; `quantile` is the two-sided critical value, 1.96 for 95 %.
    """
    q2 = quantile**2
    centre = (share + q2 / (2 * n)) / (1 + q2 / n)
    half = quantile / (1 + q2 / n) * math.sqrt(share * (1 - share) / n + q2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_standard_error(residuals: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """Standard error of a mean whose deviations are `residuals` (N,), correlated inside clusters.

    sqrt(G / (G - 1) * sum_g (sum_{i in g} r_i)^2) / N, the clustered error of Miller (2024) with the usual factor for
    few clusters. With every item its own cluster it is the familiar s / sqrt(N). Infinite for a single cluster: nothing
    can be said.
    """
    values = np.asarray(residuals, dtype=np.float64)
    sums = cluster_sums(values, clusters)
    if len(sums) < 2:
        return math.inf
    return float(math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / len(values))


def mean(values: ArrayLike, clusters: Sequence[Hashable] | None = None, *, shares: bool = False) -> Estimate:
    """Mean of `values` (N,) with its interval.

    Zeros and ones get Wilson's interval. Other values get value ± t * clustered standard error, unless they are
    `shares`, in [0, 1] by their nature (mc2, F1): a few of them near an end would get an interval that leaves [0, 1] and
    covers too seldom. Shares, and whatever is clustered, get Wilson's interval with Student's quantile on the effective
    sample size, value * (1 - value) / standard error^2: n over the design effect (Kish 1965), which for shares is below
    one because they vary less than zeros and ones. Half its width tends to t * standard error.

    Raises:
        ValueError: there are no values, or shares outside [0, 1].
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("the mean of no values")
    if shares and not (float(data.min()) >= 0 and float(data.max()) <= 1):
        raise ValueError(f"shares lie in [0, 1], found {data.min()} to {data.max()}")
    n, centre = len(data), float(data.mean())
    groups = len(cluster_sums(data, clusters))
    error = clustered_standard_error(data - centre, clusters)
    binary = bool(np.isin(data, (0.0, 1.0)).all())
    if binary and groups == n:
        low, high = wilson(centre, n, normal_quantile(UPPER))
    elif (binary or shares) and groups < 2:
        low, high = 0.0, 1.0
    elif binary or shares:
        # all alike shows no variance: then only the clusters count as evidence
        effective = centre * (1 - centre) / error**2 if error > 0 else float(groups)
        low, high = wilson(centre, effective, student_quantile(UPPER, groups - 1))
    else:
        half = student_quantile(UPPER, groups - 1) * error if groups > 1 else math.inf
        low, high = centre - half, centre + half
    return Estimate(centre, low, high, error, n, groups)


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Ratio sum(numerators) / sum(denominators) with a bootstrap interval over clusters (Efron 1979).

    Bits per byte is such a ratio (nats over bytes); with denominators of one it is a mean. Whole clusters are drawn
    with replacement and the ratio is taken anew each time. The percentiles are widened to what Student's t and the
    factor sqrt(G / (G - 1)) ask for ("expanded percentile", Hesterberg 2015), without which few documents look too
    certain.
    """
    return bootstrap_ratios([numerators], denominators, clusters, resamples=resamples, seed=seed)[0]


def bootstrap_ratios(
    rows: Sequence[ArrayLike],
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Estimate]:
    """`bootstrap_ratio` of several rows of numerators over the same denominators, drawn once for all of them."""
    tops, bottom = [np.asarray(row, dtype=np.float64) for row in rows], np.asarray(denominators, dtype=np.float64)
    if any(top.shape != bottom.shape for top in tops) or bottom.size == 0:
        shapes = ", ".join(str(part.shape) for part in (*tops, bottom))
        raise ValueError(f"need equally many numerators and denominators, at least one: {shapes}")
    n, values = len(bottom), [float(top.sum() / bottom.sum()) for top in tops]
    bottoms, sums = cluster_sums(bottom, clusters), [cluster_sums(top, clusters) for top in tops]
    groups = len(bottoms)
    if groups < 2:
        return [Estimate(value, -math.inf, math.inf, math.inf, n, groups) for value in values]
    rng, step = np.random.default_rng(seed), max(1, _CHUNK_DRAWS // groups)
    ratios = np.empty((len(tops), resamples))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, groups, size=(min(step, resamples - start), groups))
        ratios[:, start : start + step] = [part[drawn].sum(axis=1) for part in sums] / bottoms[drawn].sum(axis=1)
    tail = NormalDist().cdf(-math.sqrt(groups / (groups - 1)) * student_quantile(UPPER, groups - 1))
    lows, highs = np.quantile(ratios, (tail, 1 - tail), axis=1).tolist()
    parts = zip(values, lows, highs, ratios.std(axis=1, ddof=1).tolist(), strict=True)
    return [Estimate(value, low, high, error, n, groups) for value, low, high, error in parts]


def tango(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Score interval of the difference of two proportions on the same `n` items (Tango, Statistics in Medicine 17, 1998).

    With d the difference asked about and q(d) the likeliest share of lost items if d were true, the ends solve
    (gained - lost - n d)^2 = z^2 n (2 q(d) + d (1 - d)). At d = 0 that is McNemar's statistic, so interval and test
    speak alike. Nothing gained and nothing lost leaves ± z^2 / (n + z^2), not an empty interval.
    """
    quantile = normal_quantile(UPPER)

    def statistic(d: float) -> float:
        linear = (2 * n - gained + lost) * d - gained - lost
        root = math.sqrt(max(0.0, linear**2 + 8 * n * lost * d * (1 - d)))
        # the positive root of 2 n q^2 + linear q - lost d (1 - d), without cancellation
        q = (
            (root - linear) / (4 * n)
            if linear < 0
            else 2 * lost * d * (1 - d) / (root + linear)
            if root + linear
            else 0.0
        )
        variance = n * (2 * q + d * (1 - d))
        distance = gained - lost - n * d
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )

    # the statistic falls as d grows
    return _root(lambda d: statistic(d) - quantile, -1.0, 1.0), _root(lambda d: statistic(d) + quantile, -1.0, 1.0)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the root of a function that falls from above zero at `low` to zero or below at `high`, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return high


def paired_difference(
    before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable] | None = None, *, seed: int = SEED
) -> Estimate:
    """Mean of `after` minus `before` (N,), item by item, with its interval.

    Pairing removes what both runs share, the difficulty of the items, and so needs far fewer of them (Miller 2024).
    Rights and wrongs on independent items get Tango's interval, everything else the (clustered) bootstrap's.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"a paired difference needs the same items on both sides: {first.shape}, {second.shape}")
    differences = second - first
    n, groups = len(differences), len(cluster_sums(differences, clusters))
    binary = bool(np.isin([first, second], (0.0, 1.0)).all())
    if binary and (groups == n or (groups > 1 and not differences.any())):
        # where clustered runs agree on everything, each cluster counts once
        low, high = tango(int(np.sum(differences > 0)), int(np.sum(differences < 0)), groups)
        centre = float(differences.mean())
        return Estimate(centre, low, high, clustered_standard_error(differences - centre, clusters), n, groups)
    return bootstrap_ratio(differences, np.ones_like(differences), clusters, seed=seed)


def mcnemar(gained: int, lost: int) -> float:
    """Exact McNemar test: two-sided p-value that `gained` and `lost` items differ only by chance (McNemar 1947).

    Under the null each item that changed sides was a fair coin: twice the smaller binomial tail, in exact integers.
    """
    changed = gained + lost
    term = total = 1
    for k in range(1, min(gained, lost) + 1):
        term = term * (changed - k + 1) // k
        total += term
    return min(1.0, float(Fraction(2 * total, 2**changed)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm correction of p-values for multiple comparisons (Holm, Scandinavian Journal of Statistics 6, 1979).

    The smallest is multiplied by their number, the next by one less, and so on, none below the one before. If all
    differences were zero, the chance that any corrected p falls under 5 % is at most 5 %, whatever their dependence.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def sign_flip(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> float:
    """Sign-flip test: two-sided p-value that paired `differences` (N,) are symmetric around zero (Fisher 1935).

    If the two runs were interchangeable, the sign of every cluster's summed difference would be a fair coin. McNemar's
    test is this one for zeros and ones without clusters. All 2^G signs are tried where they are few, otherwise
    `resamples` random ones; the observed one counts among them, so that p is never zero.
    """
    sums = cluster_sums(np.asarray(differences, dtype=np.float64), clusters)
    sums = sums[sums != 0]
    if len(sums) == 0:
        return 1.0
    observed = abs(float(sums.sum())) * (1 - 1e-12)
    if 2 ** len(sums) <= resamples:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= observed))
    rng, extreme = np.random.default_rng(seed), 0
    step = max(1, _CHUNK_DRAWS // len(sums))
    for start in range(0, resamples, step):
        signs = 2 * rng.integers(0, 2, size=(min(step, resamples - start), len(sums)), dtype=np.int8) - 1
        extreme += int(np.count_nonzero(np.abs(signs @ sums) >= observed))
    return (extreme + 1) / (resamples + 1)


def smallest_visible_difference(
    n: int, discordance: float = ASSUMED_DISCORDANCE, *, power: float = 0.80, alpha: float = 0.05
) -> float:
    """The smallest paired difference of two accuracies that `n` items show with probability `power`.

    Solves d * sqrt(n) = z_{1 - alpha/2} * sqrt(psi) + z_power * sqrt(psi - d^2) for d (Connor 1987), where psi is the
    share of items on which the two runs differ. A difference cannot exceed psi: where d would, psi grows with it.
    Returned as a share (0.12 is 12 points), 1 where nothing could be seen.
    """
    reject, detect = normal_quantile(1 - alpha / 2), normal_quantile(power)

    def missing(difference: float) -> float:
        psi = max(discordance, difference)
        return reject * math.sqrt(psi) + detect * math.sqrt(psi - difference**2) - difference * math.sqrt(n)

    return 1.0 if n < 1 or missing(1.0) > 0 else _root(missing, 0.0, 1.0)


def smallest_visible_shift(standard_error: float, *, power: float = 0.80, alpha: float = 0.05) -> float:
    """The smallest shift that a paired measurement with this standard error shows with probability `power`."""
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * standard_error


def cluster_sums(values: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Sums of `values` (N,) over clusters, (G,), in order of first appearance; without clusters `values` itself."""
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(name, len(numbers)) for name in clusters), dtype=np.intp, count=len(values))
    return np.bincount(index, weights=values, minlength=len(numbers)).astype(np.float64)
