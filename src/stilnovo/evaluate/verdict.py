"""Better, worse, or not to be told: two measurements of the same items, in one plain sentence.

A verdict is only as strong as both of its witnesses: it says "Better" or "Worse" when the test rejects at 5 % *and* the
95 % interval leaves out zero. Otherwise it says that no difference can be seen, and how large one would have had to be.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from stilnovo.evaluate.statistics import (
    Estimate,
    bootstrap_ratio,
    mcnemar,
    paired_difference,
    sign_flip,
    smallest_visible_difference,
    smallest_visible_shift,
)

ALPHA = 0.05
FEWEST_CLUSTERS = 6  # below, no arrangement of signs reaches p < .05: 2 / 2^5 = .0625

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What changed from `before` to `after`, and whether chance would do the same.

    Shares (accuracy) lie in [0, 1]; bits per byte are what they are. `interval` is the 95 % interval of `difference`;
    `p` comes from `test`; `smallest_visible` is the absolute difference that these items show with 80 % power.
    """

    metric: str
    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    p: float
    sentence: str
    outcome: Outcome
    test: str
    n: int
    smallest_visible: float


def accuracy_verdict(
    before: Sequence[bool],
    after: Sequence[bool],
    *,
    metric: str = "accuracy",
    clusters: Sequence[Hashable] | None = None,
) -> Verdict:
    """The paired verdict on right and wrong answers (N,) to the same N items, higher being better.

    Independent items get McNemar's exact test; clustered ones the sign-flip test over clusters, because McNemar would
    count every item of a shared passage as new evidence.

    Raises:
        ValueError: the two runs do not have the same number of items, or none.
    """
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    _same_length(len(first), len(second))
    n, gained, lost = len(first), int(np.sum(second & ~first)), int(np.sum(first & ~second))
    clustered = clusters is not None and len(set(clusters)) < n
    difference = paired_difference(first, second, clusters if clustered else None)
    if clustered:
        p, test = sign_flip(second.astype(float) - first, clusters), "sign-flip"
        visible = smallest_visible_shift(difference.standard_error)
    else:
        p, test = mcnemar(gained, lost), "McNemar"
        # no change at all is compatible with up to 3 / n of it (the rule of three)
        visible = smallest_visible_difference(n, max((gained + lost) / n, min(1.0, 3 / n)))
    outcome = _outcome(difference, p, lower_is_better=False)
    figures = (
        f"{metric} {_percent(first.mean())} → {_percent(second.mean())} ({_points(difference.value)} points, "
        f"95 % interval {_points(difference.low)} to {_points(difference.high)}, {test} {_p(p)}, {_items(difference)})"
    )
    limit = f"this test could only have seen changes of {math.ceil(visible * 100 - 1e-9)} points or more"
    return Verdict(
        metric, float(first.mean()), float(second.mean()), difference.value, (difference.low, difference.high), p,
        _sentence(outcome, figures, limit), outcome, test, n, visible,
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
    outcome = _outcome(difference, p, lower_is_better=True)
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
        "bits per byte", before, after, difference.value, (difference.low, difference.high), p,
        _sentence(outcome, figures, limit), outcome, "sign-flip", len(first), visible,
    )  # fmt: skip


def _same_length(first: int, second: int) -> None:
    if first != second or first == 0:
        raise ValueError(f"a paired comparison needs the same items on both sides: {first} and {second}")


def _outcome(difference: Estimate, p: float, *, lower_is_better: bool) -> Outcome:
    if p >= ALPHA or difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if (difference.value < 0) == lower_is_better else "worse"


def _sentence(outcome: Outcome, figures: str, limit: str) -> str:
    if outcome == "undecided":
        return f"No difference can be seen: {figures}; {limit}."
    return f"{outcome.capitalize()}: {figures}."


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
