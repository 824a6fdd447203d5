"""What a sweep's figures mean: gains and losses against the base, the Pareto front, and the point to take.

Every setting is compared with the base item by item. Three choices are deliberate:

* A loss is believed at 5 % for each measure by itself, without Holm's correction: here the cautious mistake is to see a
  loss that is none. Nor is "nothing lost" proof that nothing was: `most_lost` says what these items leave possible.
* Bits per byte are measured so finely that a change of a thousandth may be significant. Whoever does not mind it says how
  much of it to tolerate, in percent: then a text counts as lost when even the near end of the interval is beyond that.
* The point with the largest gain was chosen by looking at the same items. Its gain is likely to be a little smaller, and
  its losses larger, on others; the report says so.

The front is that of the point estimates: a setting is on it when no other, the base included, gained at least as much and
lost no more.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stilnovo.benchmarks.task import METRIC_NAMES, cluster_names
from stilnovo.compare.paired import pair
from stilnovo.compare.verdict import Verdict, bits_per_byte_verdict, score_verdict
from stilnovo.forgetting.form import AnswerForm
from stilnovo.forgetting.scales import BASE, ScaleAnswers, Sweep
from stilnovo.model.scaling import Scaling
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.result import TaskResult
from stilnovo.statistics.estimates import Estimate, bootstrap_ratio, paired_difference

Front = Literal["accuracy", "chat"]
ALL_TASKS, CHAT, FORM, LANGUAGE = "all tasks", "chat", "form", "language"  # measures beside the tasks' own names
_NOTHING = Estimate(0.0, 0.0, 0.0, 0.0, 1, 1)
_SCALE_OF_BASE = Scaling(0.0, 0.0)


@dataclass(frozen=True)
class Point:
    """One setting against the base.

    Attributes:
        name: The adapter's name, or `base`.
        scaling: Its scaling; 0 for the base.
        measured: Its answers.
        gain: Bits per byte of held-out text saved, in percent of the base's; positive is better.
        gained: The verdict on it; None for the base.
        accuracy: Change over the items of all tasks together, as a share; positive is better. None without tasks.
        texts: Change of the bits per byte of chat answers and protected texts, in percent of the base's; positive is worse.
        losses: The verdict on everything that may have been lost, by measure.
        lost: The measures that are worse, each at 5 %, and beyond what is tolerated.
        front: The panels of the picture in which it lies on the front.
    """

    name: str
    scaling: Scaling
    measured: ScaleAnswers
    gain: Estimate
    gained: Verdict | None
    accuracy: Estimate | None
    texts: Mapping[str, Estimate]
    losses: Mapping[str, Verdict]
    lost: tuple[str, ...] = ()
    front: frozenset[Front] = frozenset()

    @property
    def chat(self) -> Estimate | None:
        """Of `texts`, the chat answers; None without them."""
        return self.texts.get(CHAT)

    @property
    def most_lost(self) -> float | None:
        """Points of accuracy that may still have been lost, as a share: the end of the interval. None without tasks."""
        return None if self.accuracy is None else max(0.0, -self.accuracy.low)


@dataclass(frozen=True)
class Tradeoff:
    """The base, every setting in order, and the one to take, None where none gains without a loss beyond `tolerance`."""

    base: Point
    points: tuple[Point, ...]
    recommended: Point | None
    tolerance: float = 0.0


def weigh(sweep: Sweep, tolerance: float = 0.0) -> Tradeoff:
    """Every setting of a sweep against its base; `tolerance` in percent of a text's bits per byte, see the module."""
    texts = [*([CHAT] if sweep.base.chat else []), *sweep.base.protected]
    base = Point(
        BASE, _SCALE_OF_BASE, sweep.base, _NOTHING, None, _NOTHING if sweep.base.tasks else None,
        dict.fromkeys(texts, _NOTHING), {},
    )  # fmt: skip
    points = [_point(base, name, scaling, measured, tolerance) for (name, scaling), measured in sweep.points.items()]
    base, *points = _with_fronts([base, *points])
    sure = [one for one in points if one.gained is not None and one.gained.outcome == "better" and not one.lost]
    best = max(sure, key=lambda one: one.gain.value, default=None)
    return Tradeoff(base, tuple(points), best, tolerance)


def saved_share(before: HeldOutScore, after: HeldOutScore) -> Estimate:
    """Share of the nats that `after` saves, paired by document, in percent: 100 · Σ (before − after) / Σ before."""
    saved = [first - second for first, second in zip(before.nats, after.nats, strict=True)]
    return _times(bootstrap_ratio(saved, before.nats), 100)


def _point(base: Point, name: str, scaling: Scaling, measured: ScaleAnswers, tolerance: float) -> Point:
    before, after = base.measured, measured
    losses = {task: _task_verdict([before.tasks[task]], [after.tasks[task]]) for task in before.tasks}
    accuracy = None
    if losses:
        together = list(before.tasks.values()), list(after.tasks.values())
        first, second, clusters = _pooled(*together)
        accuracy = paired_difference(first, second, clusters)
        if len(losses) > 1:
            losses[ALL_TASKS] = _task_verdict(*together)
    texts = {name: (before.protected[name], after.protected[name]) for name in before.protected}
    if before.chat is not None and after.chat is not None:
        texts = {CHAT: (before.chat, after.chat), **texts}
    losses |= {name: _text_verdict(*pair) for name, pair in texts.items()}
    changes = {name: _times(saved_share(*pair), -1) for name, pair in texts.items()}
    if before.answers:
        losses[FORM] = _form_verdict(before.answers, after.answers, "kept")
        losses[LANGUAGE] = _form_verdict(before.answers, after.answers, "language")
    worse = [measure for measure, verdict in losses.items() if verdict.outcome == "worse"]
    lost = [measure for measure in worse if measure not in changes or changes[measure].low > tolerance]
    gained = _text_verdict(before.held_out, after.held_out)
    gain = saved_share(before.held_out, after.held_out)
    return Point(name, scaling, measured, gain, gained, accuracy, changes, losses, tuple(lost))


def _pooled(
    before: Sequence[TaskResult], after: Sequence[TaskResult]
) -> tuple[list[float], list[float], list[Hashable] | None]:
    """What the items of several tasks scored before and after, each by its task's own metric, and their clusters."""
    first: list[float] = []
    second: list[float] = []
    clusters: list[Hashable] = []
    alone = True
    for one, other in zip(before, after, strict=True):
        items = pair(one, other).items
        first += [item.values[one.metric] for item, _ in items]
        second += [item.values[one.metric] for _, item in items]
        names = cluster_names([item for item, _ in items])
        alone = alone and names is None
        clusters += [(one.name, name) for name in (names or [item.id for item, _ in items])]
    return first, second, None if alone else clusters


def _task_verdict(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> Verdict:
    first, second, clusters = _pooled(before, after)
    metric = METRIC_NAMES[before[0].metric] if len(before) == 1 else "score"
    return score_verdict(first, second, metric=metric, clusters=clusters)


def _text_verdict(before: HeldOutScore, after: HeldOutScore) -> Verdict:
    return bits_per_byte_verdict(before.nats, after.nats, before.sizes)


def _form_verdict(before: Sequence[AnswerForm], after: Sequence[AnswerForm], part: str) -> Verdict:
    first, second = ([float(getattr(answer, part)) for answer in answers] for answers in (before, after))
    return score_verdict(first, second, metric="answers in form" if part == "kept" else "answers in the language asked")


def _with_fronts(points: Sequence[Point]) -> list[Point]:
    """The points with the panels in which each lies on the front."""
    found = list(points)
    panels: tuple[tuple[Front, list[float | None]], ...] = (
        ("accuracy", [None if one.accuracy is None else -one.accuracy.value for one in points]),
        ("chat", [None if one.chat is None else one.chat.value for one in points]),
    )
    for panel, lost in panels:
        places = [(one.gain.value, loss) for one, loss in zip(points, lost, strict=True) if loss is not None]
        if len(places) == len(points):
            for index in front(places):
                found[index] = replace(found[index], front=found[index].front | {panel})
    return found


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the places (gained, lost) that no other dominates: gained as much, lost no more, and one of it strictly."""
    kept = []
    for index, (gained, lost) in enumerate(places):
        others = (place for place in places if place != (gained, lost))
        if not any(more >= gained and less <= lost for more, less in others):
            kept.append(index)
    return kept


def _times(estimate: Estimate, factor: float) -> Estimate:
    low, high = sorted((factor * estimate.low, factor * estimate.high))
    error = abs(factor) * estimate.standard_error
    return replace(estimate, value=factor * estimate.value, low=low, high=high, standard_error=error)
