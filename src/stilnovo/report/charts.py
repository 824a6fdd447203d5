"""The charts of one run: intervals on an axis and the loss curve.

Each chart is drawn for a width in CSS pixels, so that the page can hold a wide and a narrow one and text is never
scaled down to nothing on a phone. A chart that has nothing to show is None, and the page says so in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stilnovo.report.numbers import decimal, drawable, rate
from stilnovo.report.plot import CHARACTER, EDGE, Plane, Scale, fit, interval_text, numbers_of
from stilnovo.report.svg import Drawing
from stilnovo.statistics.estimates import Estimate

_HOVER_COLUMNS = 120
_DRAWN_POINTS = 400


@dataclass(frozen=True)
class IntervalRow:
    """A labelled interval; `filled` draws the dot in the accent colour (what came after), else hollow.

    `chance` is what guessing scores in this row alone, a dotted mark beside its whisker.
    """

    label: str
    interval: Estimate
    filled: bool = True
    chance: float | None = None


@dataclass(frozen=True)
class IntervalAxis:
    """What the rows share: unit, decimals and two optional vertical guides.

    `cover` are values of other plots that this axis must show too, and `room` the characters their longest figure
    takes: plots with the same unit, `cover` and `room` have the same axis at the same place.
    """

    unit: str
    digits: int
    cover: Sequence[float] = ()
    room: int = 0
    guide: float | None = None
    chance: float | None = None
    caption: str = ""


def interval_plot(rows: Sequence[IntervalRow], axis: IntervalAxis, *, width: int, key: str, title: str) -> str | None:
    """Dots with whiskers, one row each, over one axis.

    Wide drawings have the label left and the figures right of the plot; narrow ones have both above the whisker.

    Returns:
        An `<svg>` element, or None if no row has a value that can be drawn.
    """
    values = numbers_of([row.interval for row in rows])
    if not values:
        return None
    values += [*axis.cover, *(x for x in (axis.guide, axis.chance, *(row.chance for row in rows)) if drawable(x))]
    texts = [interval_text(row.interval, axis.digits) for row in rows]
    label_room = max(len(row.label) for row in rows) * CHARACTER + 14
    text_room = max(axis.room, *map(len, texts)) * CHARACTER + 14
    beside = width > 500 and width - label_room - text_room >= 0.45 * width
    left, right = (label_room, width - text_room) if beside else (0.0, float(width))
    height_of_row = 34 if beside else 48
    top = 6
    bottom = top + height_of_row * len(rows)
    scale = Scale(values, left + EDGE, right - EDGE, 6 if width > 500 else 5)
    words = "; ".join(f"{row.label}: {text}" for row, text in zip(rows, texts, strict=True))
    description = f"{words} {axis.unit}. Dots are values, lines their 95 % intervals."
    drawing = Drawing(width, bottom + 40, key=key, title=title, description=description)
    middles = [top + height_of_row * index + (height_of_row / 2 if beside else 34) for index in range(len(rows))]
    bands = [(top, bottom)] if beside else [(y - 12, y + 12) for y in middles]
    dotted = drawable(axis.chance) or any(drawable(row.chance) for row in rows)
    _value_axis(drawing, scale, axis, (left, right, bottom), bands, dotted=dotted)
    for y, row, text in zip(middles, rows, texts, strict=True):
        baseline = y + 4 if beside else y - 18
        drawing.text(0, baseline, fit(row.label, (left if beside else width - text_room) - 10), "label")
        drawing.text(width, baseline, text, "value", "end")
        if drawable(row.chance):
            drawing.line(scale(row.chance), y - 11, scale(row.chance), y + 11, "chance")
        _whisker(drawing, row, scale, y, f"{row.label}: {text} {axis.unit}".strip())
    return drawing.markup()


def _value_axis(
    drawing: Drawing,
    scale: Scale,
    axis: IntervalAxis,
    ends: tuple[float, float, float],
    bands: Sequence[tuple[float, float]],
    *,
    dotted: bool,
) -> None:
    """The axis at the foot; its vertical lines run only through `bands`, which keeps them out of the words between."""
    left, right, bottom = ends
    places = [(scale(tick), "grid") for tick in scale.ticks]
    places += [(scale(x), style) for x, style in ((axis.guide, "guide"), (axis.chance, "chance")) if drawable(x)]
    for x, style in places:
        for start, stop in bands:
            drawing.line(x, start, x, stop, style)
    for tick in scale.spaced():
        text = decimal(tick, scale.digits)
        half = len(text) * CHARACTER / 2
        drawing.text(min(max(scale(tick), half), drawing.width - half), bottom + 16, text, "tick", "middle")
    drawing.line(left, bottom, right, bottom, "axis")
    if dotted:
        drawing.text(0, bottom + 34, "dotted: chance", "tick")
    room = right - (16 * CHARACTER if dotted else 0)
    drawing.text(right, bottom + 34, fit(axis.caption or axis.unit, room), "tick", "end")


def _whisker(drawing: Drawing, row: IntervalRow, scale: Scale, y: float, hover: str) -> None:
    if not drawable(row.interval.value):
        return
    style = "after" if row.filled else "before"
    if drawable(row.interval.low) and drawable(row.interval.high):
        low, high = scale(row.interval.low), scale(row.interval.high)
        drawing.line(low, y, high, y, f"whisker {style}")
        for end in (low, high):
            drawing.line(end, y - 4, end, y + 4, f"whisker {style}")
    drawing.add("circle", f"dot {style}", hover, cx=scale(row.interval.value), cy=y, r=5)


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Exponential mean with `span` (weight 2 / (span + 1) on the newest value), freed of the bias towards the start."""
    decay = 1 - 2 / (span + 1)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means


def smoothing_span(count: int) -> int:
    """Over how many steps a curve of `count` steps is smoothed: a tenth of it, at least three."""
    return max(3, round(count / 10))


def loss_chart(metrics: Sequence[Mapping[str, Any]], *, width: int, key: str) -> str | None:
    """Training loss over steps, raw (thin) and smoothed (bold); `metrics` are rows of a run's `metrics.jsonl`.

    Losses that cannot be drawn are left out. Long runs are thinned to what the eye can resolve, keeping the lowest and
    the highest raw value of every stretch.

    Returns:
        An `<svg>` element, or None with fewer than two losses that can be drawn.
    """
    logged = sorted((row for row in metrics if drawable(row["loss"])), key=lambda row: row["step"])
    if len(logged) < 2 or logged[0]["step"] == logged[-1]["step"]:
        return None
    losses = [row["loss"] for row in logged]
    means = smooth(losses, smoothing_span(len(logged)))
    description = f"Smoothed training loss {means[0]:.3f} at step {logged[0]['step']}, "
    description += f"{means[-1]:.3f} at step {logged[-1]['step']}."
    plane = Plane(
        losses, ("loss, nats per token", "training step"), width=width, height=290 if width > 500 else 230, key=key,
        title="Loss against training step", description=description,
    )  # fmt: skip
    x = Scale((row["step"] for row in logged), plane.left, plane.right, 7 if width > 500 else 5, whole=True)
    for tick in x.ticks:
        plane.line(x(tick), plane.bottom, x(tick), plane.bottom + 5, "axis")
    plane.labels_below(x)
    plane.points("polyline", [(x(logged[i]["step"]), plane.y(losses[i])) for i in _thin(losses)], "raw")
    drawn = sorted({*range(0, len(logged), max(1, len(logged) // _DRAWN_POINTS)), len(logged) - 1})
    plane.points("polyline", [(x(logged[i]["step"]), plane.y(means[i])) for i in drawn], "smooth")
    _hover_columns(plane, logged, means, x)
    return plane.markup()


def _hover_columns(plane: Plane, logged: Sequence[Mapping[str, Any]], means: Sequence[float], x: Scale) -> None:
    """Invisible full-height columns that name the nearest logged step."""
    chosen = range(0, len(logged), max(1, -(-len(logged) // _HOVER_COLUMNS)))
    centres = [x(logged[i]["step"]) for i in chosen]
    edges = [plane.left, *((a + b) / 2 for a, b in pairwise(centres)), plane.right]
    for i, (start, stop) in zip(chosen, pairwise(edges), strict=True):
        row = logged[i]
        words = f"step {row['step']:,}, {row['tokens']:,} tokens: loss {row['loss']:.3f}, smoothed {means[i]:.3f}"
        words += f", learning rate {rate(row['learning_rate'])}"
        width, height = max(0.0, stop - start), plane.bottom - plane.top
        plane.add("rect", "hover", words, x=start, y=plane.top, width=width, height=height)


def _thin(values: Sequence[float]) -> Sequence[int]:
    """Indices of about `_DRAWN_POINTS` values: the lowest and the highest of each stretch, in order, and both ends."""
    size = max(1, -(-2 * len(values) // _DRAWN_POINTS))
    if size <= 2:
        return range(len(values))
    chosen = {0, len(values) - 1}
    for start in range(0, len(values), size):
        stretch = range(start, min(start + size, len(values)))
        chosen |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(chosen)
