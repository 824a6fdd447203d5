"""The macro average of a group of tasks: each task's main metric weighs the same, with the interval of the mean.

Beside it stands the average of the scores counted from guessing, (score - chance) / (1 - chance), because tasks with two and
with five options do not begin at the same place. Of a group of which some data were missing it is the average of those tasks
that were asked, and is called so; one task alone has no average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stilnovo.benchmarks.corpus_metrics import is_corpus_metric
from stilnovo.benchmarks.restrictions import licence_limits
from stilnovo.benchmarks.task import Metric, Selection
from stilnovo.benchmarks.tasks import Wanted
from stilnovo.statistics.estimates import FEWEST_UNITS, Estimate
from stilnovo.statistics.macro import chance_corrected, macro_average, score_average
from stilnovo.statistics.power import ASSUMED_DISCORDANCE

VISIBLE_ERRORS = 2.8  # standard errors of a difference that is seen four times of five
_ROUNDS = 20  # after which the difference that is visible at its own spread no longer moves


class ScoredTask(Protocol):
    """What a group needs of its tasks' results."""

    @property
    def name(self) -> str:
        """As typed after `--tasks`."""

    @property
    def label(self) -> str:
        """What it is called where it is shown."""

    @property
    def n(self) -> int:
        """Number of items."""

    @property
    def chance(self) -> float:
        """What guessing scores."""

    @property
    def clusters(self) -> list[str] | None:
        """A cluster name for each item, or None where all stand alone."""

    @property
    def metric(self) -> Metric:
        """The main metric."""

    @property
    def smallest_visible(self) -> float:
        """The smallest difference that a paired test would show (80 % power)."""

    def score(self) -> Estimate:
        """Main metric with its interval."""


@dataclass(frozen=True)
class GroupScore:
    """What a group of tasks scored: `tasks` are those that were asked, of `members`, all of the group's.

    `average` is of their main metrics, `corrected` of the same counted from guessing; None for fewer than two tasks.
    """

    name: str
    members: tuple[str, ...]
    tasks: tuple[ScoredTask, ...]
    average: Estimate | None
    corrected: Estimate | None

    @property
    def missing(self) -> list[str]:
        """Names of tasks that were not asked."""
        here = {task.name for task in self.tasks}
        return [name for name in self.members if name not in here]

    @property
    def extent(self) -> str:
        """Of how many tasks: "5 tasks", "2 of 5 tasks"."""
        return extent(len(self.tasks), len(self.members))

    @property
    def chance(self) -> float:
        """What guessing scores on average."""
        return sum(task.chance for task in self.tasks) / len(self.tasks)

    @property
    def smallest_visible(self) -> float:
        """The smallest difference of averages that a comparison over these items shows (80 % power); 1 where none."""
        return visible_average([(task.n, task.clusters, _change_error(task)) for task in self.tasks])

    def figures(self) -> dict[str, Any]:
        """The figures for `--json`."""
        figures: dict[str, Any] = {
            "tasks": [task.name for task in self.tasks], "missing": self.missing, "of": len(self.members),
            "chance": self.chance, "smallest_visible_difference": self.smallest_visible,
        }  # fmt: skip
        for name, estimate in (("macro_average", self.average), ("macro_average_above_chance", self.corrected)):
            ends = None if estimate is None else [estimate.low, estimate.high]
            figures |= {name: estimate and estimate.value, f"{name}_interval": ends}
        return figures | ({} if self.average is None else {"n": self.average.n, "units": self.average.clusters})


def extent(asked: int, members: int) -> str:
    """Say of how many tasks something is."""
    return f"{asked} tasks" if asked == members else f"{asked} of {members} tasks"


def group_scores(groups: Mapping[str, tuple[str, ...]], results: Mapping[str, ScoredTask]) -> list[GroupScore]:
    """The scores of groups (name → tasks) of which any task was asked."""
    scores = []
    for name, members in groups.items():
        if tasks := tuple(results[member] for member in members if member in results):
            parts = [task.score() for task in tasks]
            above = [chance_corrected(part, task.chance) for part, task in zip(parts, tasks, strict=True)]
            averages = (macro_score(parts), macro_score(above)) if len(tasks) > 1 else (None, None)
            scores.append(GroupScore(name, members, tasks, *averages))
    return scores


def macro_score(parts: Sequence[Estimate]) -> Estimate:
    """Macro average of scores; its interval ends at 1, and at 0 where none of them can be less."""
    average = score_average(parts)
    if not average.has_interval:
        return average
    low = max(average.low, 0.0) if all(part.low >= 0 for part in parts) else average.low
    return replace(average, low=low, high=min(average.high, 1.0))


def _change_error(task: ScoredTask) -> float | None:
    """Error of a difference, of a metric of all items together; None for others, of which the items say it."""
    return task.smallest_visible / VISIBLE_ERRORS if is_corpus_metric(task.metric) else None


def visible_average(tasks: Sequence[tuple[int, Sequence[str] | None, float | None]]) -> float:
    """The smallest paired difference of averages that tasks show with 80 % power: (items, clusters, error of a difference).

    As of one task: where no error is given, a fifth of the answers change, or more where the difference is larger; items of a
    cluster independently. A task in fewer than eight clusters has no interval, and so shows none: 1.
    """
    sizes = [(n, n if clusters is None else len(set(clusters)), error) for n, clusters, error in tasks]
    if any(units < min(n, FEWEST_UNITS) for n, units, _ in sizes):
        return 1.0
    changing = visible = ASSUMED_DISCORDANCE
    for _ in range(_ROUNDS):
        usual = max(changing - visible**2, 0.0)
        parts = [
            Estimate(0.0, 0.0, 0.0, math.sqrt(usual / n) if error is None else error, n, units)
            for n, units, error in sizes
        ]
        visible = min(1.0, macro_average(parts).smallest_visible)
        changing = max(ASSUMED_DISCORDANCE, visible)
    return visible


def chosen_notes(wanted: Wanted, selections: Sequence[Selection]) -> list[str]:
    """What is said of all that was chosen, before a run: incomplete groups, licences, what a group's average can show."""
    lines = [*wanted.notes, *filter(None, [licence_limits(selections)])]
    by_task = {selection.task.name: (len(selection.items), selection.clusters, None) for selection in selections}
    for name, members in wanted.groups.items():
        asked = [by_task[member] for member in members if member in by_task]
        if len(asked) > 1:
            visible = visible_average(asked)
            shown = "no difference" if visible >= 1 else f"nothing under {100 * visible:.1f} points"
            lines.append(
                f"{name}: of the macro average of {extent(len(asked), len(members))}, {shown} can be seen against another run "
                "on the same items."
            )
    return lines
