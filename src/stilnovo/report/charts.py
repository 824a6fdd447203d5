"""The page's three drawings: intervals on an axis, the loss curve, a bar for a table cell.

Each chart is drawn for a width in CSS pixels, so that the page can hold a wide and a narrow one and text is never
scaled down to nothing on a phone. A chart that has nothing to show is None, and the page says so in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stilnovo.report.numbers import clean, decimal, drawable, finite, rate, tick_digits, ticks
from stilnovo.report.svg import Drawing
from stilnovo.report.values import Interval, LossPoint

CHARACTER = 7.4  # mean advance of the sans face at 12 px, on the generous side: labels must not touch the plot
EDGE = 12.0  # room for half a dot at the ends of an axis
_HOVER_COLUMNS = 120
_DRAWN_POINTS = 400


@dataclass(frozen=True)
class IntervalRow:
    """A labelled interval; `filled` draws the dot in the accent colour (what came after), else hollow.

    `chance` is what guessing scores in this row alone, a dotted mark beside its whisker.
    """

    label: str
    interval: Interval
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
    cover: tuple[float, ...] = ()
    room: int = 0
    guide: float | None = None
    chance: float | None = None
    caption: str = ""


class Scale:
    """Round numbers over the data, and the linear map from them to drawing coordinates."""

    def __init__(self, values: Sequence[float], start: float, stop: float, target: int, *, whole: bool = False) -> None:
        self.ticks = ticks(min(values), max(values), target, whole=whole)
        self.digits = 0 if whole else tick_digits(self.ticks[1] - self.ticks[0])
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        """Where a value lies in the drawing."""
        low, high = self.ticks[0], self.ticks[-1]
        return self._start + (value - low) / (high - low) * (self._stop - self._start)


def interval_text(interval: Interval, digits: int, unit: str = "") -> str:
    """An interval as "1.487 [1.452, 1.521] unit"; the brackets are left out where it has no ends."""
    if not finite(interval.value):
        return decimal(None)
    if not (finite(interval.low) and finite(interval.high)):
        return decimal(interval.value, digits, unit)
    ends = f"[{decimal(interval.low, digits)}, {decimal(interval.high, digits)}]"
    return f"{decimal(interval.value, digits)} {ends}" + (f"\u202f{unit}" if unit else "")


def numbers_of(intervals: Sequence[Interval]) -> tuple[float, ...]:
    """All values and ends that can be drawn: what an axis shared by these intervals has to cover."""
    return tuple(x for i in intervals if drawable(i.value) for x in (i.value, i.low, i.high) if drawable(x))


def interval_plot(rows: Sequence[IntervalRow], axis: IntervalAxis, *, width: int, key: str, title: str) -> str | None:
    """Dots with whiskers, one row each, over one axis.

    Wide drawings have the label left and the figures right of the plot; narrow ones have both above the whisker.

    Returns:
        An `<svg>` element, or None if no row has a value that can be drawn.
    """
    values = [*numbers_of([row.interval for row in rows]), *axis.cover]
    values += [x for x in (axis.guide, axis.chance, *(row.chance for row in rows)) if drawable(x)]
    if not numbers_of([row.interval for row in rows]):
        return None
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
    for tick in spaced(scale):
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
    drawing.circle(scale(row.interval.value), y, 5, f"dot {style}", hover)


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Exponential mean with `span` (weight 2 / (span + 1) on the newest value), freed of the bias towards the start."""
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means


def smoothing_span(count: int) -> int:
    """Over how many steps a curve of `count` steps is smoothed: a tenth of it, at least three."""
    return max(3, round(count / 10))


def loss_chart(points: Sequence[LossPoint], *, width: int, key: str) -> str | None:
    """Training loss (raw, thin; smoothed, bold) and held-out loss (dots) over steps.

    Points that cannot be drawn are left out. Long runs are thinned to what the eye can resolve, keeping the lowest and
    the highest raw value of every stretch.

    Returns:
        An `<svg>` element, or None with fewer than two losses that can be drawn.
    """
    logged = sorted((point for point in points if drawable(point.loss)), key=lambda point: point.step)
    if len(logged) < 2 or logged[0].step == logged[-1].step:
        return None
    held = [(point.step, point.held_out) for point in points if drawable(point.held_out)]
    means = smooth([point.loss for point in logged], smoothing_span(len(logged)))
    height = 320 if width > 500 else 260
    top, bottom, right = 26.0, height - 42.0, width - EDGE
    y = Scale([point.loss for point in logged] + [loss for _, loss in held], bottom, top, 6)
    left = max(len(decimal(tick, y.digits)) for tick in y.ticks) * CHARACTER + 12
    steps = [point.step for point in logged] + [step for step, _ in held]
    x = Scale(steps, left, right, 7 if width > 500 else 5, whole=True)
    description = f"Smoothed training loss {means[0]:.3f} at step {logged[0].step}, "
    description += f"{means[-1]:.3f} at step {logged[-1].step}."
    if held:
        description += f" Held-out loss from {held[0][1]:.3f} to {held[-1][1]:.3f}."
    drawing = Drawing(width, height, key=key, title="Loss against training step", description=description)
    _plane(drawing, x, y, (left, right, top, bottom))
    drawing.polyline([(x(p.step), y(p.loss)) for p in _thin(logged)], "raw")
    every = max(1, len(logged) // _DRAWN_POINTS)
    kept = sorted({*range(0, len(logged), every), len(logged) - 1})
    drawing.polyline([(x(logged[i].step), y(means[i])) for i in kept], "smooth")
    _hover_columns(drawing, logged, means, x, (left, right, top, bottom))
    if len(held) > 1:
        drawing.polyline([(x(step), y(loss)) for step, loss in held], "held-line")
    for step, loss in held:
        drawing.circle(x(step), y(loss), 4.5, "dot before", f"step {step:,}: held-out loss {loss:.3f}")
    return drawing.markup()


def _plane(drawing: Drawing, x: Scale, y: Scale, box: tuple[float, float, float, float]) -> None:
    left, right, _, bottom = box
    for tick in y.ticks:
        drawing.line(left, y(tick), right, y(tick), "grid")
        drawing.text(left - 8, y(tick) + 4, decimal(tick, y.digits), "tick", "end")
    for tick in x.ticks:
        drawing.line(x(tick), bottom, x(tick), bottom + 5, "axis")
    for tick in spaced(x):
        text = decimal(tick, 0)
        half = len(text) * CHARACTER / 2
        drawing.text(min(x(tick), right + EDGE - half), bottom + 19, text, "tick", "middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text(0, 11, "loss, nats per token", "tick")
    drawing.text(right, bottom + 37, "training step", "tick", "end")


def _hover_columns(
    drawing: Drawing,
    logged: Sequence[LossPoint],
    means: Sequence[float],
    x: Scale,
    box: tuple[float, float, float, float],
) -> None:
    """Invisible full-height columns that name the nearest logged step."""
    left, right, top, bottom = box
    every = max(1, -(-len(logged) // _HOVER_COLUMNS))
    chosen = range(0, len(logged), every)
    centres = [x(logged[i].step) for i in chosen]
    edges = [left, *((a + b) / 2 for a, b in pairwise(centres)), right]
    for slot, i in enumerate(chosen):
        point = logged[i]
        words = f"step {point.step:,}, {point.tokens:,} tokens: loss {point.loss:.3f}, smoothed {means[i]:.3f}"
        if point.learning_rate is not None:
            words += f", learning rate {rate(point.learning_rate)}"
        drawing.rectangle(edges[slot], top, max(0.0, edges[slot + 1] - edges[slot]), bottom - top, "hover", words)


def _thin(points: Sequence[LossPoint]) -> list[LossPoint]:
    """At most about `_DRAWN_POINTS` points: the lowest and the highest of each stretch, in order, and both ends."""
    size = max(1, -(-2 * len(points) // _DRAWN_POINTS))
    if size <= 2:
        return list(points)
    chosen = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        chosen |= {min(stretch, key=lambda i: points[i].loss), max(stretch, key=lambda i: points[i].loss)}
    return [points[i] for i in sorted(chosen)]


def bars(predicted: float, measured: float | None, largest: float, *, key: str, title: str) -> str:
    """Two thin horizontal bars, predicted (outline) above measured (filled), scaled so that `largest` is full width."""
    drawing = Drawing(120, 16, key=key, title=title, description="Outline: predicted. Filled: measured.")
    unit = 118 / largest if largest > 0 else 0.0
    drawing.rectangle(1, 1, max(0.0, predicted) * unit, 5, "bar predicted")
    if measured is not None:
        drawing.rectangle(1, 10, max(0.0, measured) * unit, 5, "bar measured")
    return drawing.markup()


def spaced(scale: Scale) -> list[float]:
    """The ticks whose labels have room: every one, or every second where the numbers are long.

    A long label at an end is moved inwards, towards its neighbour; that too has to fit.
    """
    gap = abs(scale(scale.ticks[1]) - scale(scale.ticks[0]))
    half = max(len(decimal(tick, scale.digits)) for tick in scale.ticks) * CHARACTER / 2
    return scale.ticks[:: math.ceil((2 * half + 6 + max(0.0, half - EDGE)) / gap)]


def fit(label: str, room: float) -> str:
    """The label, cut with an ellipsis if it is longer than the room it has."""
    label = " ".join(clean(label).split())
    most = max(1, int(room / CHARACTER))
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"
