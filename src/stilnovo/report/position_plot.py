"""Loss by position in the context: does a model still profit from what stands far back?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.report.charts import CHARACTER, EDGE, Scale, fit, interval_text, numbers_of
from stilnovo.report.numbers import decimal, drawable
from stilnovo.report.pareto import colour, legend, legend_rows, mark
from stilnovo.report.svg import Drawing
from stilnovo.report.values import Interval

_SPREAD = 0.4  # of a range's width: how far apart the series stand, so that whiskers do not cover each other


@dataclass(frozen=True)
class Series:
    """One model's change against the base by range of positions, nats a token; None where nothing was read."""

    name: str
    changes: tuple[Interval | None, ...]


def position_chart(ranges: Sequence[str], series: Sequence[Series], *, width: int, key: str) -> str | None:
    """Change of the loss against the base by range of positions (`1–31`, …); down is better, the base is zero.

    Returns:
        An `<svg>` element, or None if there is no value that can be drawn.
    """
    values = numbers_of([one for line in series for one in line.changes if one is not None])
    if not values:
        return None
    rows = legend_rows([line.name for line in series], width)
    top = 22.0 * len(rows) + 30.0
    height = top + (260 if width > 500 else 230)
    bottom, right = height - 42.0, width - EDGE
    y = Scale((*values, 0.0), bottom, top, 6)
    left = max(len(decimal(tick, y.digits)) for tick in y.ticks) * CHARACTER + 12
    step = (right - left) / len(ranges)
    drawing = Drawing(
        width, height, key=key, title="Loss by position in the context", description=_words(ranges, series)
    )
    legend(drawing, rows)
    for tick in y.ticks:
        drawing.line(left, y(tick), right, y(tick), "grid")
        drawing.text(left - 8, y(tick) + 4, decimal(tick, y.digits), "tick", "end")
    drawing.line(left, y(0), right, y(0), "guide")
    for place, name in enumerate(ranges):
        drawing.text(left + (place + 0.5) * step, bottom + 17, fit(name, step + 4), "tick", "middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text(0, top - 12, fit("nats a token against the base, lower is better", width), "tick")
    drawing.text(right, bottom + 36, "position in the context, tokens", "tick", "end")
    for index, line in enumerate(series):
        aside = _SPREAD * (index / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0
        places = [left + (place + 0.5 + aside) * step for place in range(len(ranges))]
        _series(drawing, line, index, list(zip(ranges, places, strict=True)), y)
    return drawing.markup()


def _series(drawing: Drawing, line: Series, index: int, places: Sequence[tuple[str, float]], y: Scale) -> None:
    drawn = [
        (name, x, one)
        for (name, x), one in zip(places, line.changes, strict=True)
        if one is not None and drawable(one.value)
    ]
    for _, x, one in drawn:
        if drawable(one.low) and drawable(one.high):
            drawing.line(x, y(one.low), x, y(one.high), "interval")
    drawing.polyline([(x, y(one.value)) for _, x, one in drawn], f"curve {colour(index)}")
    for name, x, one in drawn:
        mark(drawing, x, y(one.value), index, hover=f"{line.name}, {name}: {interval_text(one, 3)} nats a token")


def _words(ranges: Sequence[str], series: Sequence[Series]) -> str:
    return "; ".join(
        f"{line.name}, positions {name}: {interval_text(one, 3)}"
        for line in series
        for name, one in zip(ranges, line.changes, strict=True)
        if one is not None
    )
