"""One evaluation as a page: scores with their intervals, categories, what could not be seen, how to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.report import charts
from stilnovo.report.page import Drawn, PageSection, both_widths, compose
from stilnovo.report.values import Imprint, Interval

UNFOLDED = 12  # categories of a task that are shown without being asked for


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one task, in percent; `main` marks the one that verdicts are about."""

    name: str
    interval: Interval
    main: bool = False


@dataclass(frozen=True)
class Score:
    """One task: `part` says in words which items were asked; `chance` in percent; `visible` in points."""

    task: str
    version: str
    part: str
    n: int
    measures: tuple[ScoreRow, ...]
    chance: float
    visible: float
    speed: str
    licence: str
    items_sha256: str
    note: str = ""


@dataclass(frozen=True)
class Categories:
    """A task's breakdown by one metric: (category, items, score in percent)."""

    task: str
    measure: str
    rows: tuple[tuple[str, int, Interval], ...]


@dataclass(frozen=True)
class HeldOut:
    """Bits per byte of a held-out text."""

    name: str
    documents: int
    bytes: int
    tokens: int
    bits_per_byte: Interval
    note: str = ""


@dataclass(frozen=True)
class ScoreData(Imprint):
    """Everything the page shows; `facts` are (what, value) pairs with which the run can be repeated."""

    scores: tuple[Score, ...] = ()
    categories: tuple[Categories, ...] = ()
    held_out: HeldOut | None = None
    facts: tuple[tuple[str, str], ...] = ()


def render_scores(data: ScoreData) -> str:
    """The whole page as HTML text; write it as UTF-8."""
    return compose(
        data,
        _sections(data),
        plot=_plot(data.scores),
        category_plots=[_category_plot(table, index) for index, table in enumerate(data.categories)],
        unfolded=UNFOLDED,
    )


def _sections(data: ScoreData) -> list[PageSection]:
    return [
        PageSection(
            "scores",
            "Scores",
            "Dots are scores, bars their 95 % intervals, dotted marks what guessing scores. Two runs are told apart "
            "by comparing them item by item, not by whether their bars overlap.",
            bool(data.scores),
        ),
        PageSection("heldout", "Held-out text", "Lower is better.", data.held_out is not None),
        PageSection(
            "categories",
            "By category",
            "The intervals of small categories are wide; a category that looks best by chance always exists.",
            bool(data.categories),
        ),
        PageSection("limits", "What this does not show", "", bool(data.limits)),
        PageSection("method", "How it was measured", "", bool(data.method)),
        PageSection("repeat", "To repeat it", "", bool(data.facts)),
        PageSection("colophon", "Colophon", "", True),
    ]


def _plot(scores: Sequence[Score]) -> Drawn:
    rows = [
        charts.IntervalRow(score.task, measure.interval, chance=score.chance or None)
        for score in scores
        for measure in score.measures
        if measure.main
    ]
    axis = charts.IntervalAxis("%", 1, caption="%, higher is better")
    return both_widths(rows, axis, "scores", "Scores with their 95 % intervals") if rows else Drawn(None, None)


def _category_plot(table: Categories, index: int) -> Drawn:
    rows = [charts.IntervalRow(f"{name} ({n:,})", interval) for name, n, interval in table.rows]
    axis = charts.IntervalAxis("%", 1, caption=f"{table.measure}, %")
    return both_widths(rows, axis, f"category-{index}", f"{table.task} by category")
