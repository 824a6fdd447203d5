"""The trade-off of a sweep: gains and losses against the base, the Pareto front, and the recommended setting.

Every setting is compared with the base item by item. Three choices are deliberate:

* A loss is believed at 5 % for each measure by itself, without Holm's correction: here the cautious mistake is to see a
  loss that is none. Nor is "nothing lost" proof that nothing was: the headline says what these items leave possible.
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
from typing import Literal, get_args

from stilnovo.compare.paired import Pairs, pair, text_verdict
from stilnovo.compare.verdict import Verdict, score_verdict
from stilnovo.forgetting.form import form_share
from stilnovo.forgetting.scales import BASE, ScaleAnswers, Sweep
from stilnovo.model.scaling import Scaling
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.statistics.estimates import Estimate, paired_difference, ratio

Front = Literal["accuracy", "chat"]
ALL_TASKS, CHAT, FORM, LANGUAGE = "all tasks", "chat", "form", "language"  # measures beside the tasks' own names
_FORM_MEASURES = ((FORM, "kept", "answers in form"), (LANGUAGE, "language", "answers in the language asked"))
_NOTHING = Estimate(0.0, 0.0, 0.0, 0.0, 1, 1)


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
        lost: The measures that regressed, each at 5 %, and beyond what is tolerated.
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
        """The chat answers' entry in `texts`; None without them."""
        return self.texts.get(CHAT)

    def loss(self, panel: Front) -> Estimate | None:
        """Loss shown in one panel of the chart: points of accuracy, or percent of the chat answers' bits."""
        if panel == "chat":
            return self.chat
        return None if self.accuracy is None else self.accuracy.times(-100)

    @property
    def form(self) -> float | None:
        """Percent of the written answers that kept their form; None where none was written."""
        return 100 * form_share(self.measured.answers, "kept") if self.measured.answers else None


@dataclass(frozen=True)
class Tradeoff:
    """The base, every setting in order, and the recommended one; None where none gains without a loss beyond `tolerance`."""

    base: Point
    points: tuple[Point, ...]
    recommended: Point | None
    tolerance: float = 0.0


def weigh(sweep: Sweep, tolerance: float = 0.0) -> Tradeoff:
    """Compare every setting of a sweep with its base; `tolerance` in percent of a text's bits per byte, see the module."""
    base = Point(
        BASE, Scaling(0.0, 0.0), sweep.base, _NOTHING, None, _NOTHING if sweep.base.tasks else None,
        dict.fromkeys([*([CHAT] if sweep.base.chat else []), *sweep.base.protected], _NOTHING), {},
    )  # fmt: skip
    points = [_point(base, name, scaling, measured, tolerance) for (name, scaling), measured in sweep.points.items()]
    base, *points = _with_fronts([base, *points])
    safe = [
        point for point in points if point.gained is not None and point.gained.outcome == "improved" and not point.lost
    ]
    best = max(safe, key=lambda point: point.gain.value, default=None)
    return Tradeoff(base, tuple(points), best, tolerance)


def saved_share(before: HeldOutScore, after: HeldOutScore) -> Estimate:
    """Share of the nats that `after` saves, paired by document, in percent: 100 · Σ (before − after) / Σ before."""
    saved = [first - second for first, second in zip(before.nats, after.nats, strict=True)]
    return ratio(saved, before.nats, before.clusters).times(100)


def _point(base: Point, name: str, scaling: Scaling, measured: ScaleAnswers, tolerance: float) -> Point:
    before, after = base.measured, measured
    pairs = {task: pair(before.tasks[task], after.tasks[task]) for task in before.tasks}
    losses = {task: common.verdict() for task, common in pairs.items()}
    accuracy = None
    if losses:
        first, second, clusters = _pooled(pairs)
        accuracy = paired_difference(first, second, clusters)
        if len(losses) > 1:
            losses[ALL_TASKS] = score_verdict(first, second, metric="score", clusters=clusters)
    texts = {CHAT: (before.chat, after.chat)} if before.chat is not None and after.chat is not None else {}
    texts |= {name: (before.protected[name], after.protected[name]) for name in before.protected}
    losses |= {name: text_verdict(*scores) for name, scores in texts.items()}
    changes = {name: saved_share(*scores).times(-1) for name, scores in texts.items()}
    if before.answers:
        for measure, part, metric in _FORM_MEASURES:
            form_scores = [[float(getattr(a, part)) for a in answers] for answers in (before.answers, after.answers)]
            losses[measure] = score_verdict(*form_scores, metric=metric)
    regressed = (measure for measure, verdict in losses.items() if verdict.outcome == "regressed")
    lost = tuple(measure for measure in regressed if measure not in changes or changes[measure].low > tolerance)
    return Point(
        name, scaling, measured, saved_share(before.held_out, after.held_out),
        text_verdict(before.held_out, after.held_out), accuracy, changes, losses, lost,
    )  # fmt: skip


def _pooled(pairs: Mapping[str, Pairs]) -> tuple[list[float], list[float], list[Hashable] | None]:
    """Pool the items of all tasks: scores before and after, each by its task's own metric, and their clusters."""
    scores = [common.scores() for common in pairs.values()]
    first = [value for before, _, _ in scores for value in before]
    second = [value for _, after, _ in scores for value in after]
    if all(names is None for *_, names in scores):
        return first, second, None
    clusters: list[Hashable] = [
        (task, name)
        for (task, common), (*_, names) in zip(pairs.items(), scores, strict=True)
        for name in names or [answer.id for answer, _ in common.items]
    ]
    return first, second, clusters


def _with_fronts(points: Sequence[Point]) -> list[Point]:
    """Mark on each point the panels in whose Pareto front it lies."""
    fronts: dict[Front, list[int]] = {}
    for panel in get_args(Front):
        places = [(point.gain.value, loss.value) for point in points if (loss := point.loss(panel)) is not None]
        fronts[panel] = front(places) if len(places) == len(points) else []
    return [
        replace(point, front=frozenset(panel for panel, indices in fronts.items() if index in indices))
        for index, point in enumerate(points)
    ]


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """Pareto front: indices of the (gained, lost) points that no other dominates."""
    return [
        index
        for index, (gained, lost) in enumerate(places)
        if not any(more >= gained and less <= lost for more, less in places if (more, less) != (gained, lost))
    ]
