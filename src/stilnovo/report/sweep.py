"""A sweep of adapters and scalings as a page: the picture, the point to take, and everything in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from stilnovo.report.page import Drawn, PageSection, compose
from stilnovo.report.pareto import Panel, pareto_chart
from stilnovo.report.position_plot import Series, position_chart
from stilnovo.report.values import Direction, Imprint, Interval

_WIDE, _NARROW = 736, 350


@dataclass(frozen=True)
class Setting:
    """One adapter under one scaling. `gain` and `chat` in percent of the base's, `accuracy` in points, `form` in percent.

    `lost` are the measures that are significantly worse; `front` the panels in which it is on the front.
    """

    name: str
    scaling: str
    bits_per_byte: Interval
    gain: Interval | None
    accuracy: Interval | None
    chat: Interval | None
    form: float | None
    lost: tuple[str, ...] = ()
    front: tuple[str, ...] = ()
    recommended: bool = False


@dataclass(frozen=True)
class Row:
    """One setting under one measure: its value, and the paired difference to the base with the verdict on it."""

    name: str
    scaling: str
    value: float
    difference: Interval | None = None
    p: float | None = None
    direction: Direction | None = None


@dataclass(frozen=True)
class SweepMeasure:
    """One thing that was gained or may have been lost, in `unit` with `digits` decimals, for every setting."""

    name: str
    unit: str
    n: int
    rows: tuple[Row, ...]
    digits: int = 1
    note: str = ""


@dataclass(frozen=True)
class SweepData(Imprint):
    """Everything the page shows; `facts` are (what, value) pairs with which the run can be repeated."""

    panels: tuple[Panel, ...] = ()
    settings: tuple[Setting, ...] = ()
    measures: tuple[SweepMeasure, ...] = ()
    ranges: tuple[str, ...] = ()
    positions: tuple[Series, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def render_sweep(data: SweepData) -> str:
    """The whole page as HTML text; write it as UTF-8."""
    return compose(
        data,
        _sections(data),
        panels=[
            Drawn(*(pareto_chart(panel, width=width, key=f"pareto-{index}-{width}") for width in (_WIDE, _NARROW)))
            for index, panel in enumerate(data.panels)
        ],
        position_plot=Drawn(
            *(position_chart(data.ranges, data.positions, width=w, key=f"positions-{w}") for w in (_WIDE, _NARROW))
        ),
    )


def _sections(data: SweepData) -> list[PageSection]:
    return [
        PageSection(
            "tradeoff",
            "Gained and lost",
            "One curve a model, through the scales of its adapter; the cross is the base. Lower right is better. Bars "
            "are 95 % intervals of the paired differences to the base. Hollow marks: something is significantly worse. "
            "Pale band: the Pareto front, on which nothing can be gained without losing more.",
            bool(data.panels),
        ),
        PageSection("settings-table", "Every setting", "Changes against the base, item by item.", bool(data.settings)),
        PageSection(
            "positions",
            "By position",
            "How much better or worse each model predicts, by how many tokens it has read before.",
            bool(data.positions),
        ),
        PageSection(
            "measures",
            "Measure by measure",
            "Each verdict stands alone at 5 %: where a loss is feared, the cautious mistake is to see one that is none.",
            bool(data.measures),
        ),
        PageSection("limits", "What this does not show", "", bool(data.limits)),
        PageSection("method", "How it was measured", "", bool(data.method)),
        PageSection("repeat", "To repeat it", "", bool(data.facts)),
        PageSection("colophon", "Colophon", "", True),
    ]
