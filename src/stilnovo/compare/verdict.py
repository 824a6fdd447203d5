"""Better, worse, or not to be told: two measurements of the same items, in one plain sentence.

A verdict is only as strong as both of its witnesses: it says "Better" or "Worse" when the test rejects at 5 % *and* the
95 % interval leaves out zero. Otherwise it says that no difference can be seen, and how large one would have had to be.
Where several benchmarks are compared, the test must reject after Holm's correction (`corrected`): of twenty benchmarks
on which nothing changed, one would otherwise be called better or worse.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from stilnovo.statistics.estimates import (
    FEWEST_CLUSTERS,
    Estimate,
    bootstrap_ratio,
    holm,
    mcnemar,
    paired_difference,
    sign_flip,
    smallest_visible_difference,
    smallest_visible_shift,
)

ALPHA = 0.05

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What changed from `before` to `after`, and whether chance would do the same.

    Shares (accuracy) lie in [0, 1]; bits per byte are what they are. `interval` is the 95 % interval of `difference`;
    `p` comes from `test`, `p_corrected` from Holm's correction over `comparisons` of them; `smallest_visible` is the
    absolute difference that these items show with 80 % power. `gained` and `lost` count the items that became right
    and wrong, where there are such. `figures` and `limit` are the sentence's parts.
    """

    metric: str
    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    p: float
    test: str
    n: int
    clusters: int
    smallest_visible: float
    figures: str
    limit: str
    lower_is_better: bool = False
    gained: int | None = None
    lost: int | None = None
    p_corrected: float | None = None
    comparisons: int = 1

    @property
    def outcome(self) -> Outcome:
        """The word: both witnesses, the test (corrected where several were made) and the interval, must agree."""
        return self._outcome(self.p if self.p_corrected is None else self.p_corrected)

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with its figures."""
        many = self.comparisons > 1 and self.p_corrected is not None
        figures = self.figures
        if many:
            assert self.p_corrected is not None
            figures += f"; {_p(self.p_corrected)} after Holm's correction for {self.comparisons} comparisons"
        if self.outcome != "undecided":
            return f"{self.outcome.capitalize()}: {figures}."
        if many and self._outcome(self.p) != "undecided":
            return f"No difference is sure: {figures}; alone it would be called {self._outcome(self.p)}."
        return f"No difference can be seen: {figures}; {self.limit}."

    def _outcome(self, p: float) -> Outcome:
        low, high = self.interval
        if p >= ALPHA or low <= 0 <= high:
            return "undecided"
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"


def corrected(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The same verdicts, each decided by its p-value after Holm's correction for all of them."""
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
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    _same_length(len(first), len(second))
    n, gained, lost = len(first), int(np.sum(second > first)), int(np.sum(second < first))
    binary = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    clustered = clusters is not None and len(set(clusters)) < n
    difference = paired_difference(first, second, clusters if clustered else None)
    # no change at all is compatible with up to 3 / n of it (the rule of three)
    effective = difference.clusters if clustered and not gained + lost else n
    visible = smallest_visible_difference(effective, max((gained + lost) / n, min(1.0, 3 / effective)))
    if binary and not clustered:
        p, test = mcnemar(gained, lost), "McNemar"
    else:
        p, test = sign_flip(second - first, clusters), "sign-flip"
        shift = smallest_visible_shift(difference.standard_error)
        visible = max(visible, shift) if binary else shift or visible
    figures = (
        f"{metric} {_percent(first.mean())} → {_percent(second.mean())} ({_points(difference.value)} points, "
        f"95 % interval {_points(difference.low)} to {_points(difference.high)}, {test} {_p(p)}, {_items(difference)})"
    )
    if difference.clusters < FEWEST_CLUSTERS and test == "sign-flip":
        groups = f"{difference.clusters} group{'' if difference.clusters == 1 else 's'} of items"
        limit = f"{groups} are too few to tell, at least {FEWEST_CLUSTERS} are needed"
    else:
        limit = f"this test could only have seen changes of {math.ceil(min(1.0, visible) * 100 - 1e-9)} points or more"
    return Verdict(
        metric, float(first.mean()), float(second.mean()), difference.value, (difference.low, difference.high), p, test,
        n, difference.clusters, visible, figures, limit, gained=gained, lost=lost,
    )  # fmt: skip


def bits_per_byte_verdict(
    before_nats: ArrayLike, after_nats: ArrayLike, sizes: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Verdict:
    """The paired verdict on held-out text, lower being better.

    Args:
        before_nats: (D,) negative log-likelihood of each document, in nats, under the first model.
        after_nats: (D,) the same under the second.
        sizes: (D,) UTF-8 bytes of each document.
        clusters: (D,) names, where several texts come from one source.

    Raises:
        ValueError: the lengths differ, or there are no documents.
    """
    first, second = np.asarray(before_nats, dtype=np.float64), np.asarray(after_nats, dtype=np.float64)
    bits = np.asarray(sizes, dtype=np.float64) * math.log(2)
    _same_length(len(first), len(second))
    difference = bootstrap_ratio(second - first, bits, clusters)
    p = sign_flip(second - first, clusters)
    visible = smallest_visible_shift(difference.standard_error)
    before, after = float(first.sum() / bits.sum()), float(second.sum() / bits.sum())
    figures = (
        f"bits per byte {before:.3f} → {after:.3f} ({_signed(difference.value, 3)}, 95 % interval "
        f"{_signed(difference.low, 3)} to {_signed(difference.high, 3)}, sign-flip {_p(p)}, "
        f"{_items(difference, 'document')})"
    )
    if difference.clusters < FEWEST_CLUSTERS:
        limit = f"{difference.clusters} documents are too few to tell, at least {FEWEST_CLUSTERS} are needed"
    else:
        limit = f"this text could only have shown changes of {_round_up(visible)} or more"
    return Verdict(
        "bits per byte", before, after, difference.value, (difference.low, difference.high), p, "sign-flip", len(first),
        difference.clusters, visible, figures, limit, lower_is_better=True,
    )  # fmt: skip


def _same_length(first: int, second: int) -> None:
    if first != second or first == 0:
        raise ValueError(f"a paired comparison needs the same items on both sides: {first} and {second}")


def _items(estimate: Estimate, noun: str = "item") -> str:
    text = f"{estimate.n:,} {noun}{'' if estimate.n == 1 else 's'}"
    return text if estimate.clusters == estimate.n else f"{text} in {estimate.clusters:,} groups"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return _signed(100 * share, 1)


def _signed(value: float, digits: int) -> str:
    """A sign, always, and a true minus; a rounded zero has none; without an interval the sign of infinity."""
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞"
    rounded = round(value, digits)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else '±'}{abs(rounded):.{digits}f}"


def _round_up(value: float) -> str:
    """Three significant decimals, rounded up, so that the claim is never too bold."""
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}"


def _p(p: float) -> str:
    return (
        "p < .001"
        if p < 0.001
        else f"p = {p:.3f}".replace("0.", ".", 1)
        if p < 0.1
        else f"p = {p:.2f}".replace("0.", ".", 1)
    )
