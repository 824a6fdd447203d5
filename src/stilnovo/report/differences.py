"""Two evaluations as a page: the verdicts, and every item on which the two models differ, to be read one by one.

Filters work by style sheet alone, so that the page needs no script to be browsed; the script adds a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stilnovo.report import charts
from stilnovo.report.page import Drawn, PageSection, both_widths, compose, verdict_plots
from stilnovo.report.values import Imprint, VerdictRow

Change = Literal["gained", "lost", "other"]


@dataclass(frozen=True)
class Ending:
    """A possible answer and what each model gave for it: log-likelihoods in nats, and whether it was its choice.

    The figures per character are given where they decide.
    """

    text: str
    right: bool
    before: float
    after: float
    picked_before: bool
    picked_after: bool
    before_per_character: float | None = None
    after_per_character: float | None = None


@dataclass(frozen=True)
class DifferingItem:
    """One item that the models answered differently.

    `gained` became right, `lost` wrong; `other` is another answer that is as wrong or as right as before. A written
    answer has `references` and two texts instead of endings. `question` is empty where the text is not at hand.
    """

    id: str
    change: Change
    question: str = ""
    category: str = ""
    endings: tuple[Ending, ...] = ()
    references: tuple[str, ...] = ()
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class DifferingTask:
    """The differing items of one task, at most as many as the page can bear; counts are of all of them.

    `language` is that of the questions, empty where it is not known.
    """

    name: str
    n: int
    gained: int
    lost: int
    other: int
    items: tuple[DifferingItem, ...]
    licence: str = ""
    notes: tuple[str, ...] = ()
    language: str = ""


@dataclass(frozen=True)
class ComparisonData(Imprint):
    """Everything the page shows; `runs` are (what, before, after) where the two runs differ."""

    verdicts: tuple[VerdictRow, ...] = ()
    runs: tuple[tuple[str, str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    tasks: tuple[DifferingTask, ...] = ()


def render_comparison(data: ComparisonData) -> str:
    """The whole page as HTML text; write it as UTF-8."""
    return compose(
        data,
        _sections(data),
        plots=verdict_plots(data.verdicts),
        difference_plots=_difference_plots(data.verdicts),
    )


def _sections(data: ComparisonData) -> list[PageSection]:
    return [
        PageSection(
            "differences",
            "The difference",
            "After minus before on the same items, with its 95 % interval. An interval that holds the dashed zero "
            "leaves open which is better.",
            bool(data.verdicts),
        ),
        PageSection(
            "verdicts",
            "Better or worse",
            "Hollow dot and dashed line: before. Filled dot: after. Bars are 95 % intervals. The verdict rests on the "
            "paired difference, item by item, not on whether the bars overlap.",
            bool(data.verdicts),
        ),
        PageSection("runs", "The two runs", "What differs between them, beside their answers.", bool(data.runs)),
        PageSection("refused", "Not compared", "", bool(data.refused)),
        PageSection(
            "items",
            "Where they differ",
            "Gained: wrong before, right after. Lost: the reverse. Other: another answer, as right or as wrong as "
            "before. Figures are log-likelihoods in nats, and per character where that decides; the filled one was "
            "chosen, the right answer has a tick.",
            bool(data.tasks),
        ),
        PageSection("limits", "What this does not show", "", bool(data.limits)),
        PageSection("method", "How it was measured", "", bool(data.method)),
        PageSection("colophon", "Colophon", "", True),
    ]


def _difference_plots(verdicts: Sequence[VerdictRow]) -> list[Drawn]:
    """One plot a unit: differences in points and differences in bits per byte share no axis."""
    plots = []
    for index, unit in enumerate(dict.fromkeys(verdict.unit for verdict in verdicts)):
        alike = [verdict for verdict in verdicts if verdict.unit == unit]
        rows = [charts.IntervalRow(v.name, v.difference) for v in alike if v.difference is not None]
        name = "points" if unit == "%" else unit
        side = "left" if alike[0].lower_is_better else "right"
        axis = charts.IntervalAxis(name, alike[0].digits, guide=0.0, caption=f"{name}; better to the {side}")
        if rows:
            plots.append(both_widths(rows, axis, f"difference-{index}", f"Difference in {name}"))
    return plots
