"""The charts of one run: intervals on an axis, the loss curve, and curves of other figures over the steps.

Each chart is drawn for a width in CSS pixels, so that the page can hold a wide and a narrow one and text is never
scaled down to nothing on a phone. A chart that has nothing to show is None, and the page says so in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from stilnovo.io.excerpt import even_places
from stilnovo.report.numbers import decimal, drawable, rate
from stilnovo.report.page import both_widths
from stilnovo.report.plot import CHARACTER, EDGE, Drawing, Plane, Scale, fit, interval_text, numbers_of
from stilnovo.statistics.estimates import Estimate

_HOVER_COLUMNS = 120
_DRAWN_POINTS = 400
_TABLE_ROWS = 24
_TOP = 6
Row = TypeVar("Row")


@dataclass(frozen=True)
class IntervalRow:
    """A labelled interval; `filled` draws the dot in the accent colour (what came after), else hollow.

    `chance` is what guessing scores in this row, a dotted mark across it.
    """

    label: str
    interval: Estimate
    filled: bool = True
    chance: float | None = None


def interval_plot(
    rows: Sequence[IntervalRow], unit: str, digits: int, *, width: int, key: str, title: str, caption: str = "",
    guide: float | None = None, cover: Sequence[float] = (), room: int = 0,
) -> str | None:  # fmt: skip
    """Draw dots with whiskers, one row each, over one axis with an optional dashed `guide`.

    Wide drawings have the label left and the figures right of the plot; narrow ones have both above the whisker.
    `cover` are values of other plots that this axis must show too, and `room` the characters their longest figure
    takes: plots with the same unit, `cover` and `room` have the same axis at the same place.

    Returns:
        An `<svg>` element, or None if no row has a value that can be drawn.
    """
    values = numbers_of(row.interval for row in rows)
    if not values:
        return None
    chances = [row.chance for row in rows if drawable(row.chance)]
    lines = [guide] if drawable(guide) else []
    texts = [interval_text(row.interval, digits) for row in rows]
    label_room = max(len(row.label) for row in rows) * CHARACTER + 14
    text_room = max(room, *map(len, texts)) * CHARACTER + 14
    beside = width > 500 and width - label_room - text_room >= 0.45 * width
    left, right, row_height = (label_room, width - text_room, 34) if beside else (0.0, float(width), 48)
    bottom = _TOP + row_height * len(rows)
    scale = Scale([*values, *cover, *lines, *chances], left + EDGE, right - EDGE, 6 if width > 500 else 5)
    words = "; ".join(f"{row.label}: {text}" for row, text in zip(rows, texts, strict=True))
    drawing = Drawing(
        width, bottom + 40, key=key, title=title,
        description=f"{words} {unit}. Dots are values, lines their 95 % intervals.",
    )  # fmt: skip
    middles = [_TOP + row_height * index + (row_height / 2 if beside else 34) for index in range(len(rows))]
    # the vertical lines run only through these bands, which keeps them out of the words between
    bands = [(_TOP, bottom)] if beside else [(y - 12, y + 12) for y in middles]
    for value, style in [*((tick, "grid") for tick in scale.ticks), *((value, "guide") for value in lines)]:
        for start, stop in bands:
            drawing.line(scale(value), start, scale(value), stop, style)
    drawing.labels_below(scale, bottom + 16)
    drawing.line(left, bottom, right, bottom, "axis")
    if chances:
        drawing.text(0, bottom + 34, "dotted: chance", "tick")
    drawing.text(right, bottom + 34, fit(caption or unit, right - 16 * CHARACTER * bool(chances)), "tick", "end")
    for y, row, text in zip(middles, rows, texts, strict=True):
        baseline = y + 4 if beside else y - 18
        drawing.text(0, baseline, fit(row.label, (left if beside else width - text_room) - 10), "label")
        drawing.text(width, baseline, text, "value", "end")
        _row(drawing, row, scale, y, 17 if beside else 12, f"{row.label}: {text} {unit}".strip())
    return drawing.markup()


def _row(drawing: Drawing, row: IntervalRow, scale: Scale, y: float, half: float, hover: str) -> None:
    """Draw a row `half` units above and below `y`: the dot with its whisker, and a mark at the score of guessing."""
    if drawable(row.chance):
        drawing.line(scale(row.chance), y - half, scale(row.chance), y + half, "chance")
    if not drawable(row.interval.value):
        return
    style = "after" if row.filled else "before"
    for low, high in scale.ends(row.interval):
        for x1, y1, x2, y2 in ((low, y, high, y), (low, y - 4, low, y + 4), (high, y - 4, high, y + 4)):
            drawing.line(x1, y1, x2, y2, f"whisker {style}")
    drawing.add("circle", f"dot {style}", hover, cx=scale(row.interval.value), cy=y, r=5)


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Exponential moving average with `span` (weight 2 / (span + 1) on the newest value), bias-corrected."""
    decay = 1 - 2 / (span + 1)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means


def smoothing_span(count: int) -> int:
    """Choose the smoothing span for a curve of `count` steps: a tenth of it, at least three."""
    return max(3, round(count / 10))


def loss_values(metrics: Sequence[Mapping[str, Any]], unit: str = "nats per token") -> dict[str, Any]:
    """Collect what the section `loss` shows of a run's `metrics.jsonl`: the chart in `unit`, some of its rows, and its legend."""
    usable = sum(drawable(row["loss"]) for row in metrics)
    return {
        "loss_chart": both_widths(loss_chart, metrics, key="loss", unit=unit), "loss_rows": evenly(metrics, _TABLE_ROWS),
        "loss_span": smoothing_span(usable), "loss_unusable": len(metrics) - usable,
        "loss_held_out": any(drawable(row.get("held_out_loss")) for row in metrics),
        "loss_base": any(drawable(row.get("base_held_out_loss")) for row in metrics),
    }  # fmt: skip


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """Choose at most `most` evenly spaced rows, the first and the last included."""
    return [rows[place] for place in even_places(most, len(rows))]


def loss_chart(
    metrics: Sequence[Mapping[str, Any]], *, width: int, key: str, unit: str = "nats per token"
) -> str | None:
    """Draw training loss over steps, raw (thin) and smoothed (bold); `metrics` are rows of a run's `metrics.jsonl`.

    Held-out losses are marks joined by a line, the base's is dashed. Losses that cannot be drawn are left out. Long runs
    are thinned to what the eye can resolve, keeping the lowest and the highest raw value of every stretch.

    Returns:
        An `<svg>` element, or None with fewer than two losses that can be drawn.
    """
    logged = sorted((row for row in metrics if drawable(row["loss"])), key=lambda row: row["step"])
    if len(logged) < 2 or logged[0]["step"] == logged[-1]["step"]:
        return None
    losses = [row["loss"] for row in logged]
    means = smooth(losses, smoothing_span(len(logged)))
    evaluated = evenly([row for row in logged if drawable(row.get("held_out_loss"))], _HOVER_COLUMNS)
    base = next((row["base_held_out_loss"] for row in logged if drawable(row.get("base_held_out_loss"))), None)
    held_out = [row["held_out_loss"] for row in evaluated]
    ends = [f"{mean:.3f} at step {row['step']}" for mean, row in ((means[0], logged[0]), (means[-1], logged[-1]))]
    words = f" Held-out loss {held_out[-1]:.3f} at step {evaluated[-1]['step']}." if held_out else ""
    plane = Plane(
        [*losses, *held_out, *([base] if base is not None else [])], (f"loss, {unit}", "training step"),
        width=width, height=290 if width > 500 else 230, key=key, title="Loss against training step",
        description=f"Smoothed training loss {', '.join(ends)}.{words}",
    )  # fmt: skip
    x = _steps_axis(plane, logged)
    plane.points("polyline", [(x(logged[i]["step"]), plane.y(losses[i])) for i in _thin(losses)], "raw")
    drawn = sorted({*range(0, len(logged), max(1, len(logged) // _DRAWN_POINTS)), len(logged) - 1})
    plane.points("polyline", [(x(logged[i]["step"]), plane.y(means[i])) for i in drawn], "smooth")
    if base is not None:
        plane.line(plane.left, plane.y(base), plane.right, plane.y(base), "guide")

    def words_at(i: int) -> str:
        row = logged[i]
        return (
            f"step {row['step']:,}, {row['tokens']:,} tokens: loss {row['loss']:.3f}, smoothed {means[i]:.3f}, "
            f"learning rate {rate(row['learning_rate'])}"
        )

    _hover_columns(plane, logged, words_at, x)
    plane.points("polyline", [(x(row["step"]), plane.y(row["held_out_loss"])) for row in evaluated], "curve curve-1")
    for row in evaluated:
        hover = f"step {row['step']:,}: held-out loss {row['held_out_loss']:.3f}"
        plane.mark(x(row["step"]), plane.y(row["held_out_loss"]), 1, hover=hover)
    return plane.markup()


def step_chart(
    metrics: Sequence[Mapping[str, Any]], name: str, caption: str, *, width: int, key: str,
    format: Callable[[float], str] = decimal,
) -> str | None:  # fmt: skip
    """Draw one figure of `metrics.jsonl` over the steps, thinned as the loss is; `caption` says what it is, and its unit.

    Returns:
        An `<svg>` element, or None with fewer than two values that can be drawn.
    """
    logged = sorted((row for row in metrics if drawable(row.get(name))), key=lambda row: row["step"])
    if len(logged) < 2 or logged[0]["step"] == logged[-1]["step"]:
        return None
    values = [row[name] for row in logged]
    plane = Plane(
        [0.0, *values], (caption, "training step"), width=width, height=170, key=key, title=f"{caption} against training step",
        description=f"From {format(values[0])} to {format(values[-1])}, at most {format(max(values))}.",
    )  # fmt: skip
    x = _steps_axis(plane, logged)
    plane.points("polyline", [(x(logged[i]["step"]), plane.y(values[i])) for i in _thin(values)], "curve curve-0")
    _hover_columns(plane, logged, lambda i: f"step {logged[i]['step']:,}: {format(values[i])}", x)
    return plane.markup()


def _steps_axis(plane: Plane, logged: Sequence[Mapping[str, Any]]) -> Scale:
    """Draw the horizontal axis of the steps."""
    x = Scale([row["step"] for row in logged], plane.left, plane.right, 7 if plane.width > 500 else 5, whole=True)
    for tick in x.ticks:
        plane.line(x(tick), plane.bottom, x(tick), plane.bottom + 5, "axis")
    plane.labels_below(x, plane.bottom + 18)
    return x


def _hover_columns(plane: Plane, logged: Sequence[Mapping[str, Any]], words_at: Callable[[int], str], x: Scale) -> None:
    """Draw invisible full-height columns with tooltips for the nearest logged step."""
    chosen = range(0, len(logged), max(1, -(-len(logged) // _HOVER_COLUMNS)))
    centres = [x(logged[i]["step"]) for i in chosen]
    edges = [plane.left, *((a + b) / 2 for a, b in pairwise(centres)), plane.right]
    for i, (start, stop) in zip(chosen, pairwise(edges), strict=True):
        place = {"x": start, "y": plane.top, "width": max(0.0, stop - start), "height": plane.bottom - plane.top}
        plane.add("rect", "hover", words_at(i), **place)


def _thin(values: Sequence[float]) -> Sequence[int]:
    """Choose about `_DRAWN_POINTS` indices: the lowest and the highest of each stretch, in order, and both ends."""
    size = max(1, -(-2 * len(values) // _DRAWN_POINTS))
    stretches = [range(start, min(start + size, len(values))) for start in range(0, len(values), size)]
    extremes = {choose(stretch, key=values.__getitem__) for stretch in stretches for choose in (min, max)}
    return sorted({0, len(values) - 1} | extremes)
