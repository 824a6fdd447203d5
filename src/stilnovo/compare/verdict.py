"""Improved, regressed or inconclusive: the verdict on two measurements of the same items.

A verdict needs both of its witnesses: it is `improved` or `regressed` when the test rejects at 5 % *and* the 95 % interval
excludes zero. Otherwise it is `inconclusive`, and says how large a change would have had to be. Where several benchmarks
are compared, the test must reject after Holm's correction (`corrected`): of twenty benchmarks on which nothing changed,
one would otherwise be said to have improved or regressed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from stilnovo.progress import counted
from stilnovo.scoring.boundary import check_finite
from stilnovo.scoring.group_scores import macro_score
from stilnovo.scoring.perplexity import documents_text
from stilnovo.statistics import corpus_level
from stilnovo.statistics.corpus_level import CorpusMeasure
from stilnovo.statistics.estimates import (
    FEWEST_UNITS,
    Estimate,
    Floats,
    cluster_sums,
    holm,
    mcnemar,
    mean,
    mid_p,
    paired_difference,
    ratios,
    sign_flip,
)
from stilnovo.statistics.macro import macro_average
from stilnovo.statistics.power import smallest_visible_difference, smallest_visible_shift

ALPHA = 0.05
BITS = "bits per byte"

Outcome = Literal["improved", "regressed", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """Paired verdict on the change from `before` to `after`, with its test.

    Scores lie in [0, 1]; bits per byte are what they are. `difference` is after minus before with the interval of the
    *paired* difference, which alone decides. `p` comes from `test`, `p_corrected` from Holm's correction over
    `comparisons` of them; `smallest_visible` is the absolute difference that these items show with 80 % power, `limit`
    the same in words. `gained` and `lost` count the items that scored more and less, where there are such; `mid_p` is
    McNemar's mid-p beside the exact `p`, which decides.
    """

    metric: str
    before: Estimate
    after: Estimate
    difference: Estimate
    p: float
    test: str
    smallest_visible: float
    limit: str
    gained: int | None = None
    lost: int | None = None
    p_corrected: float | None = None
    comparisons: int = 1
    mid_p: float | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether less is better: of bits per byte, not of scores."""
        return self.metric == BITS

    @property
    def scale(self) -> float:
        """Factor from the stored values to `unit`."""
        return 1.0 if self.lower_is_better else 100.0

    @property
    def unit(self) -> str:
        """The unit in which values are shown."""
        return BITS if self.lower_is_better else "%"

    @property
    def digits(self) -> int:
        """Decimals of a shown value."""
        return 3 if self.lower_is_better else 1

    @property
    def can_decide(self) -> bool:
        """Whether any difference could have been shown with these units."""
        return self.smallest_visible < (math.inf if self.lower_is_better else 1.0)

    @property
    def decisive_p(self) -> float:
        """The p-value that decides: corrected where several comparisons were made."""
        return self.p if self.p_corrected is None else self.p_corrected

    @property
    def outcome(self) -> Outcome:
        """The verdict in one word; test (corrected where several were made) and interval must agree."""
        return self._outcome(self.decisive_p)

    @property
    def sample(self) -> str:
        """What was measured: "76 items in 6 groups", "36 pieces of 6 documents"."""
        n, units = self.difference.n, self.difference.clusters
        if self.lower_is_better:
            return documents_text(n, units)
        return counted(n, "item") + (f" in {counted(units, 'group')}" if units < n else "")

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with its figures."""
        many, figures, outcome = self.comparisons > 1 and self.p_corrected is not None, self._figures(), self.outcome
        if many:
            figures += f"; {_p(self.decisive_p)} after Holm's correction for {self.comparisons} comparisons"
        if outcome == "inconclusive" and many and self._outcome(self.p) != outcome:
            return f"Inconclusive: {figures}; without the correction it would be called {self._outcome(self.p)}."
        return f"{outcome.capitalize()}: {figures}{f'; {self.limit}' if outcome == 'inconclusive' else ''}."

    def _figures(self) -> str:
        mark, points = ("", "") if self.lower_is_better else (" %", " points")
        before, after = (f"{self.scale * end.value:.{self.digits}f}{mark}" for end in (self.before, self.after))
        change = self.difference.times(self.scale)
        value, low, high = (_signed(end, self.digits) for end in (change.value, change.low, change.high))
        interval = f"95 % interval {low} to {high}" if change.has_interval else "no interval"
        middle = "" if self.mid_p is None else f" (mid-p {_p(self.mid_p).removeprefix('p ').removeprefix('= ')})"
        return f"{self.metric} {before} → {after} ({value}{points}, {interval}, {self.test} {_p(self.p)}{middle}, {self.sample})"

    def _outcome(self, p: float) -> Outcome:
        if p >= ALPHA or self.difference.low <= 0 <= self.difference.high:
            return "inconclusive"
        return "improved" if (self.difference.value < 0) == self.lower_is_better else "regressed"


def corrected(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Correct the verdicts' p-values for multiple comparisons (Holm)."""
    p_values = holm([verdict.p for verdict in verdicts.values()])
    return {
        name: replace(verdict, p_corrected=p, comparisons=len(verdicts))
        for (name, verdict), p in zip(verdicts.items(), p_values, strict=True)
    }


def score_verdict(
    before: ArrayLike,
    after: ArrayLike,
    *,
    metric: str = "accuracy",
    clusters: Sequence[Hashable] | None = None,
) -> Verdict:
    """The paired verdict on what the same N items scored, (N,) in [0, 1], higher being better.

    Right and wrong answers (0 and 1) to independent items get McNemar's exact test; clustered ones, and scores between
    0 and 1 such as F1, the sign-flip test over clusters, because McNemar would count every item of a shared passage as
    new evidence.

    Raises:
        ValueError: the two runs do not have the same number of items, or none.
    """
    first, second = _scores(before, "item"), _scores(after, "item")
    n, clustered = len(first), clusters is not None and len(set(clusters)) < len(first)
    difference = paired_difference(first, second, clusters if clustered else None)
    gained, lost = int(np.sum(second > first)), int(np.sum(second < first))
    binary, middle = bool(np.isin([first, second], (0.0, 1.0)).all()), None
    # no change at all is compatible with up to 3 / n of it (the rule of three)
    effective = difference.clusters if clustered and not gained + lost else n
    visible = smallest_visible_difference(effective, max((gained + lost) / n, min(1.0, 3 / effective)))
    if binary and not clustered:
        p, test, middle = mcnemar(gained, lost), "McNemar", mid_p(gained, lost)
    else:
        p, test = sign_flip(second - first, clusters), "sign-flip"
        shift = smallest_visible_shift(
            difference.standard_error, cluster_sums(np.ones(n), clusters if clustered else None).tolist()
        )
        visible = max(visible, shift) if binary else shift or visible
    visible = min(1.0, visible)
    if difference.clusters < FEWEST_UNITS and test == "sign-flip":
        limit = too_few(difference.clusters, "group" if clustered else "item")
    elif visible >= 1:
        limit = f"{counted(n, 'item')} can show no change at all"
    else:
        limit = f"this test could only have seen changes of {math.ceil(visible * 100 - 1e-9)} points or more"
    start, end = (mean(values, clusters, shares=True) for values in (first, second))
    return Verdict(metric, start, end, difference, p, test, visible, limit, gained, lost, mid_p=middle)


def corpus_verdict(
    measure: CorpusMeasure,
    before: Floats,
    after: Floats,
    *,
    metric: str,
    changed: tuple[int, int],
    clusters: Sequence[Hashable] | None = None,
) -> Verdict:
    """The paired verdict on a measure of all items together, such as Matthews correlation, higher being better.

    Args:
        measure: Of sums of what the items add.
        before: (N, C), what each adds under the first run.
        after: (N, C), the same under the second.
        metric: What it is called.
        changed: How many items are better and worse than before, each by itself.
        clusters: (N,) groups of items that may change together.

    Raises:
        ValueError: the two runs do not have the same number of items, or none.
    """
    change = corpus_level.difference(measure, before, after, clusters)
    visible = min(
        1.0, smallest_visible_shift(change.standard_error, cluster_sums(np.ones(len(before)), clusters).tolist())
    )
    if change.clusters < FEWEST_UNITS:
        limit = too_few(change.clusters, "item" if change.clusters == change.n else "group")
    elif visible >= 1:
        limit = f"{counted(change.n, 'item')} can show no change at all"
    else:
        limit = f"this test could only have seen changes of {math.ceil(visible * 100 - 1e-9)} points or more"
    p = corpus_level.swap_test(measure, before, after, clusters)
    start, end = (corpus_level.estimate(measure, counts, clusters) for counts in (before, after))
    return Verdict(metric, start, end, change, p, "exchange test", visible, limit, *changed)


def bits_per_byte_verdict(
    before_nats: ArrayLike, after_nats: ArrayLike, sizes: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Verdict:
    """The paired verdict on held-out text, lower being better.

    Args:
        before_nats: (D,) negative log-likelihood of each document, in nats, under the first model.
        after_nats: (D,) the same under the second.
        sizes: (D,) UTF-8 bytes of each document.
        clusters: (D,) what each is a piece of, where they are pieces.

    Raises:
        ValueError: the lengths differ, or there are no documents.
    """
    first, second = _scores(before_nats, "document"), _scores(after_nats, "document")
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"a paired comparison needs the same documents on both sides: {first.shape}, {second.shape}")
    bits = np.asarray(sizes, dtype=np.float64) * math.log(2)
    before, after, difference = ratios([first, second, second - first], bits, clusters)
    visible = smallest_visible_shift(difference.standard_error, cluster_sums(bits, clusters).tolist())
    if difference.clusters < FEWEST_UNITS:
        limit = too_few(difference.clusters, "document")
    else:
        # rounded up, so that the claim is never too bold
        limit = f"this text could only have shown changes of {math.ceil(visible * 1000 - 1e-9) / 1000:.3f} or more"
    p = sign_flip(second - first, clusters)
    return Verdict(BITS, before, after, difference, p, "sign-flip", visible, limit)


def macro_verdict(verdicts: Sequence[Verdict], extent: str) -> Verdict:
    """The paired verdict on a macro average, from those on its tasks; `extent` says of how many tasks it is.

    Welch's t-test and the interval of the same error (`statistics/macro.py`) on the mean of the tasks' paired differences.
    """
    before, after = (macro_score([getattr(verdict, side) for verdict in verdicts]) for side in ("before", "after"))
    change = macro_average([verdict.difference for verdict in verdicts])
    visible = min(1.0, change.smallest_visible)
    limit = f"this average could only have seen changes of {visible * 100:.1f} points or more"
    if visible >= 1:
        limit = "no verdict can be reached: one of its tasks has too few groups for an interval"
    return Verdict(f"macro average of {extent}", before, after, change.estimate, change.p, "Welch", visible, limit)


def too_few(units: int, noun: str) -> str:
    """Say that no verdict can be reached with so few independent units."""
    return (
        f"no verdict can be reached: {counted(units, 'independent ' + noun)} {'is' if units == 1 else 'are'} too few, at "
        f"least {FEWEST_UNITS} are needed"
    )


def _scores(values: ArrayLike, what: str) -> Floats:
    """What was measured, (N,); refused where it is not finite, by the number of the item or document."""
    scores = np.asarray(values, dtype=np.float64)
    for index, value in enumerate(scores.tolist()):
        check_finite(f"{what} {index + 1:,}", value)
    return scores


def _signed(value: float, digits: int) -> str:
    """Format with an explicit sign and a true minus; a rounded zero has none; without an interval the sign of infinity."""
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞"
    rounded = round(value, digits)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else '±'}{abs(rounded):.{digits}f}"


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {p:.{3 if p < 0.1 else 2}f}".replace("0.", ".", 1)
