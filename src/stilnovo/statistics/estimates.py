"""Uncertainty of a score, and of the difference between two scores on the same items.

Everything a verdict rests on, in plain numpy: no model, no torch, no scipy (the tests compare with scipy and
statsmodels). Five choices are unusual and deliberate:

* Items are treated as a sample from a larger population of such questions (Miller, arXiv:2411.00640), so that even the
  full test set has an interval.
* Items that share a passage or a subject are not independent, nor are the pieces of one book. Where clusters are given,
  they are the units: residuals are summed over each before they are squared (Miller's clustered standard error).
* Few units and skewed ones are normal here. The interval of a measure (`ratios`) lies between Student's t and Hall's
  correction for skewness (Journal of the Royal Statistical Society B 54, 1992), the latter with a larger skewness than
  the sample shows, because few units show too little of it: all of the correction on the long side, a part of it on the
  short one, because a sample may look skewed by chance. Its constants were chosen by simulation
  (`bench/coverage.py`): it holds .93 to .97 for normal and lognormal measures from eight units on, where Student's t alone
  holds .83. Below eight nothing simple holds for both, and no interval is given.
* Shares of clustered items get Wilson's interval and the same correction.
* Two models that answered alike on every item have not been shown to be equal: the interval of a paired difference of
  rights and wrongs is Tango's, which is never empty.

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

from stilnovo.statistics.correlated import corrected_square, residual_scale

UPPER = 0.975  # the quantile at the upper end of a 95 % interval
RESAMPLES = 10_000
SEED = 42
FEWEST_UNITS = 8  # of a measure; with fewer no interval is given
MORE = 6.0  # over the number of units: by how much few of them are taken to be more skewed than they look
UNEVEN = 10.0  # by how much units of unequal weight are taken to tell less than Student's t has it
FARTHEST = 3.0  # the correction for skewness moves an end no farther than so many times Student's quantile
SHARES_ALONE, SHARES_GROUPED = 1.0, 0.5  # so many more units of shares are taken to vary as zeros and ones do
NEARER = 0.3  # how much of the correction is believed where it brings an end nearer

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

    @property
    def has_interval(self) -> bool:
        """Whether the units were enough for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def between(self, places: int) -> str:
        """Format the interval with so many decimals, or say why there is none."""
        if not self.has_interval:
            return f"(no interval: units {self.clusters}, at least {FEWEST_UNITS} needed)"
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

    Independent zeros and ones get Wilson's interval. `shares`, in [0, 1] by their nature (mc2, F1), get it with Student's
    quantile on the effective sample size, value * (1 - value) / standard error^2: n over the design effect (Kish 1965),
    which for shares is below one because they vary less than zeros and ones. So do zeros and ones in clusters, where it
    is moved by the correction for skewness: few of them may be unlike the others. Either quantile is a little larger for
    few, by simulation: as they are, .89 of the intervals hold for some accuracies. Few shares may not show how far they
    can lie apart, most of all where they crowd at an end (.84 of the intervals held then): one more unit is taken to vary
    as zeros and ones do, half a one of clusters. Other values get that of `ratio`.

    Raises:
        ValueError: there are no values, or shares outside [0, 1].
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("the mean of no values")
    if shares and not (float(data.min()) >= 0 and float(data.max()) <= 1):
        raise ValueError(f"shares lie in [0, 1], found {data.min()} to {data.max()}")
    n, centre = len(data), float(data.mean())
    sums, sizes = cluster_sums(data - centre, clusters), cluster_sums(np.ones(n), clusters)
    groups, error = len(sums), clustered_standard_error(data - centre, clusters)
    binary = bool(np.isin(data, (0.0, 1.0)).all())
    if not (binary or shares):
        return ratio(data, np.ones(n), clusters)
    if binary and groups == n:
        low, high = wilson(centre, n, normal_quantile(UPPER) * (1 + 2 / n))
    elif groups < 2:
        low, high = 0.0, 1.0
    else:
        # all alike shows no variance: then only the clusters count as evidence
        exact, alike = _leveraged_error(sums, sizes), effective_units(sizes)
        square, more = exact**2, 0.0 if binary else SHARES_ALONE if groups == n else SHARES_GROUPED
        square = ((alike - 1) * square + more * centre * (1 - centre) / alike) / (alike - 1 + more)
        effective = centre * (1 - centre) / square if exact > 0 else alike
        low, high = wilson(centre, effective, student_quantile(UPPER, max(1.0, alike - 1)) * (1 + 0.5 / groups))
        if groups < n:
            below, above = _moved((centre - low, high - centre), sums, sizes, sizes)
            low, high = max(0.0, centre - below), min(1.0, centre + above)
    return Estimate(centre, low, high, error, n, groups)


def ratio(numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Ratio sum(numerators) / sum(denominators) with its interval over clusters.

    Bits per byte is such a ratio (nats over bytes); with denominators of one it is a mean. See `ratios`.
    """
    return ratios([numerators], denominators, clusters)[0]


def ratios(
    rows: Sequence[ArrayLike], denominators: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> list[Estimate]:
    """`ratio` of several rows of numerators over the same denominators.

    Linearised: what each unit's numerator is above the ratio times its denominator, (G,), is its residual, and the ratio
    has the standard error of their sum. On each side the interval reaches as far as Student's t on G - 1 degrees, moved by
    the correction for skewness (`reaches`). With fewer than `FEWEST_UNITS` units both ends are infinite.

    Raises:
        ValueError: the lengths differ, or there are no numbers.
    """
    tops, bottom = [np.asarray(row, dtype=np.float64) for row in rows], np.asarray(denominators, dtype=np.float64)
    if any(top.shape != bottom.shape for top in tops) or bottom.size == 0:
        shapes = ", ".join(str(part.shape) for part in (*tops, bottom))
        raise ValueError(f"need equally many numerators and denominators, at least one: {shapes}")
    sizes, found = cluster_sums(bottom, clusters), []
    for top in tops:
        value = float(top.sum() / bottom.sum())
        apart = top - value * bottom
        residuals = cluster_sums(apart, clusters)
        error, (below, above) = math.inf, (math.inf, math.inf)
        if len(sizes) >= 2:
            error = math.sqrt(len(sizes) / (len(sizes) - 1) * float(residuals @ residuals)) / float(bottom.sum())
        if len(sizes) >= FEWEST_UNITS:
            scale = residual_scale(corrected_square(apart, bottom), cluster_sums(bottom**2, clusters), residuals, sizes)
            below, above = reaches(residuals, sizes, scale)
        found.append(Estimate(value, value - below, value + above, error, len(bottom), len(sizes)))
    return found


def reaches(residuals: Floats, sizes: Floats, scale: Floats) -> tuple[float, float]:
    """How far below and above a ratio its interval reaches, given its units' residuals, sizes and `residual_scale`, (G,)."""
    plain = student_quantile(UPPER, len(sizes) - 1) * _leveraged_error(residuals, sizes)
    return _moved((plain, plain), residuals, sizes, scale)


def effective_units(sizes: Floats, power: int = 1) -> float:
    """Number of units of one size that weigh as much as those of `sizes` (G,) (Kish 1965); with 2 for their squares."""
    weights = np.abs(sizes) ** power
    return float(weights.sum() ** 2 / (weights @ weights))


def _leveraged_error(residuals: Floats, sizes: Floats) -> float:
    """Standard error of a ratio; a large unit draws the ratio to itself, which its residual (G,) is corrected for."""
    return math.sqrt(corrected_square(residuals, sizes)) / float(sizes.sum())


def _moved(plain: tuple[float, float], residuals: Floats, sizes: Floats, scale: Floats) -> tuple[float, float]:
    """How far below and above a ratio its interval reaches, without and with the correction for skewness.

    Hall's, given the units' residuals and sizes, (G,) both: all of it outwards, `NEARER` of it inwards.
    T + a T^2 / 3 + a^2 T^3 / 27 + a / 6 with a = skewness / sqrt(G) is far less skewed than T, the distance in standard
    errors; solved for T at plus and minus Student's quantile. Units whose residuals are of unequal `scale`, (G,), count as fewer
    (`effective_units`) and leave the quantile fewer degrees (Satterthwaite).
    """
    units = effective_units(scale)
    if units <= 2.5 or not residuals.any():
        return plain
    quantile = student_quantile(UPPER, max(1.0, effective_units(scale, 2) - 1))
    quantile *= 1 + UNEVEN * (1 - units / len(sizes)) / len(sizes)
    error = _leveraged_error(residuals, sizes)
    ends = (error * end for end in hall(residuals, quantile, units))
    below, above = (end if end > own else own - NEARER * (own - end) for own, end in zip(plain, ends, strict=True))
    return below, above


def hall(
    residuals: Floats, quantile: float, units: float, more: float = MORE, farthest: float = FARTHEST
) -> tuple[float, float]:
    """How many standard errors below and above a mean Hall's interval reaches, for `quantile` of them without skewness.

    `residuals` (G,) are not all zero; `units` is how many of one size they are worth; `more` and `farthest` as the
    constants that they are by default.
    """
    skewness = float((residuals**3).mean()) / float((residuals**2).mean()) ** 1.5
    a = (1 + more / units) * skewness * math.sqrt(units * (units - 1)) / (units - 2) / math.sqrt(units)
    # T at its upper quantile puts the truth below the mean, at its lower one above
    upper, lower = (t if abs(a) < 1e-9 else 3 / a * (math.cbrt(1 + a * (t - a / 6)) - 1) for t in (quantile, -quantile))
    limit = farthest * quantile
    return min(limit, max(0.0, upper)), min(limit, max(0.0, -lower))


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
    return root(lambda d: statistic(d) - quantile, -1.0, 1.0), root(lambda d: statistic(d) + quantile, -1.0, 1.0)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the root of a function that falls from above zero at `low` to zero or below at `high`, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return high


def paired_difference(before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean of `after` minus `before` (N,), item by item, with its interval.

    Pairing removes what both runs share, the difficulty of the items, and so needs far fewer of them (Miller 2024).
    Rights and wrongs on independent items get Tango's interval, everything else that of `ratio`.
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
    return ratio(differences, np.ones_like(differences), clusters)


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


def mid_p(gained: int, lost: int) -> float:
    """McNemar's test with mid-p: half of what was observed counts as extreme (Fagerland and others 2013).

    The exact test is cautious, because counts jump: at 5 % it rejects 0 to 5 % of the time; mid-p comes nearer, and may
    exceed it a little.
    """
    changed = gained + lost
    return (
        max(0.0, mcnemar(gained, lost) - float(Fraction(math.comb(changed, gained), 2**changed)))
        if gained != lost
        else 1.0
    )


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


def cluster_sums(values: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Sums of `values` (N,) over clusters, (G,), in order of first appearance; without clusters `values` itself."""
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(name, len(numbers)) for name in clusters), dtype=np.intp, count=len(values))
    return np.bincount(index, weights=values, minlength=len(numbers)).astype(np.float64)
