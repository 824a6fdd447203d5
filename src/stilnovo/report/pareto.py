"""What was gained against what was lost: one curve a model through its scalings, the base at the origin.

Right is more gained, down is less lost, so the place to be is at the lower right. Curves differ by colour and by the
shape of their marks; a filled mark lost nothing that the test can see; a pale band runs along the Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.report.charts import CHARACTER, EDGE, Scale, fit, interval_text, numbers_of, spaced
from stilnovo.report.numbers import decimal, drawable
from stilnovo.report.svg import Drawing
from stilnovo.report.values import Interval

COLOURS = 6  # classes curve-0 … curve-5 of the style sheet; more curves begin again, with another shape
_RADIUS = 5.0
_SHAPES: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((math.cos(math.tau * k / 24), math.sin(math.tau * k / 24)) for k in range(24)),  # disc
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),  # square
    ((0.0, -1.25), (1.1, 0.85), (-1.1, 0.85)),  # triangle
    ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),  # diamond
    ((0.0, 1.25), (1.1, -0.85), (-1.1, -0.85)),  # triangle, upside down
)

Box = tuple[float, float, float, float]  # left, right, top, bottom


@dataclass(frozen=True)
class Place:
    """One setting: gained (x) and lost (y) with their intervals; `joined` places of a curve are connected in order.

    `front` marks the Pareto front, `lost` that something is significantly worse.
    """

    label: str
    x: Interval
    y: Interval
    front: bool = False
    lost: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Curve:
    """A model through its scalings."""

    name: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Panel:
    """One picture: captions say what the axes measure and in which unit."""

    title: str
    gained: str
    lost: str
    curves: tuple[Curve, ...]
    base_on_front: bool = True


def pareto_chart(panel: Panel, *, width: int, key: str) -> str | None:
    """The picture of one panel.

    Returns:
        An `<svg>` element, or None if no place has values that can be drawn.
    """
    drawn = [one for curve in panel.curves for one in curve.places if drawable(one.x.value) and drawable(one.y.value)]
    if not drawn:
        return None
    rows = legend_rows([curve.name for curve in panel.curves], width)
    top = 22.0 * len(rows) + 30.0
    height = top + (430 if width > 500 else 340)
    bottom, right = height - 42.0, width - EDGE
    y = Scale((*numbers_of([one.y for one in drawn]), 0.0), bottom, top, 7)
    left = max(len(decimal(tick, y.digits)) for tick in y.ticks) * CHARACTER + 12
    x = Scale((*numbers_of([one.x for one in drawn]), 0.0), left + EDGE, right - EDGE, 8 if width > 500 else 5)
    words = [f"{curve.name} {one.label}: {_words(one)}" for curve in panel.curves for one in curve.places]
    description = f"Across: {panel.gained}. Up: {panel.lost}. " + "; ".join(words) + "."
    drawing = Drawing(width, height, key=key, title=panel.title, description=description)
    legend(drawing, rows)
    _axes(drawing, x, y, (left, right, top, bottom), panel)
    _front(drawing, panel, x, y)
    boxes: list[Box] = []
    for one in drawn:
        boxes.append(_around(x(one.x.value), y(one.y.value), _RADIUS + 1, _RADIUS + 1))
        _bars(drawing, one, x, y)
    for index, curve in enumerate(panel.curves):
        _curve(drawing, curve, index, x, y)
    boxes.append(_base(drawing, x, y, (left, right, top, bottom)))
    for index, curve in enumerate(panel.curves):
        for one in curve.places:
            if one in drawn:
                _label(drawing, one, colour(index), x, y, (left, right, top, bottom), boxes)
    return drawing.markup()


def _words(one: Place) -> str:
    return f"gained {interval_text(one.x, 2)}, lost {interval_text(one.y, 2)}"


def colour(index: int) -> str:
    """The style class of a curve."""
    return f"curve-{index % COLOURS}"


def mark(drawing: Drawing, x: float, y: float, index: int, *, filled: bool = True, hover: str = "") -> None:
    """The mark of a curve at a place."""
    shape = _SHAPES[index % len(_SHAPES)]
    style = f"mark {colour(index)}" + ("" if filled else " hollow")
    drawing.polygon([(x + _RADIUS * dx, y + _RADIUS * dy) for dx, dy in shape], style, hover)


def legend_rows(names: Sequence[str], width: float) -> list[list[tuple[float, int, str]]]:
    """(x, index, name) of every curve, in as many rows as they need."""
    rows: list[list[tuple[float, int, str]]] = [[]]
    x = 8.0
    for index, whole in enumerate(names):
        name = fit(whole, width - 40)
        room = len(name) * CHARACTER + 34
        if rows[-1] and x + room > width:
            rows.append([])
            x = 8.0
        rows[-1].append((x, index, name))
        x += room
    return rows


def legend(drawing: Drawing, rows: Sequence[Sequence[tuple[float, int, str]]]) -> None:
    """Mark and name of every curve, above the plot, 22 units a row."""
    for number, row in enumerate(rows):
        for x, index, name in row:
            mark(drawing, x, 8 + 22 * number, index)
            drawing.text(x + 12, 12 + 22 * number, name, "label")


def _axes(drawing: Drawing, x: Scale, y: Scale, box: Box, panel: Panel) -> None:
    left, right, top, bottom = box
    for tick in y.ticks:
        drawing.line(left, y(tick), right, y(tick), "grid")
        drawing.text(left - 8, y(tick) + 4, decimal(tick, y.digits), "tick", "end")
    for tick in x.ticks:
        drawing.line(x(tick), top, x(tick), bottom, "grid")
    for tick in spaced(x):
        drawing.text(x(tick), bottom + 17, decimal(tick, x.digits), "tick", "middle")
    drawing.line(x(0), top, x(0), bottom, "guide")
    drawing.line(left, y(0), right, y(0), "guide")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text(0, top - 12, fit(f"↑ {panel.lost}", drawing.width), "tick")
    drawing.text(right, bottom + 36, fit(f"{panel.gained} →", drawing.width), "tick", "end")
    drawing.text(right - 6, bottom - 8, "better ↘", "tick", "end")


def _front(drawing: Drawing, panel: Panel, x: Scale, y: Scale) -> None:
    """A pale band along the front, from the least gained to the most."""
    places = [(one.x.value, one.y.value) for curve in panel.curves for one in curve.places if one.front]
    places += [(0.0, 0.0)] if panel.base_on_front else []
    points = [(x(gained), y(lost)) for gained, lost in sorted(places) if drawable(gained) and drawable(lost)]
    if len(points) > 1:
        drawing.polyline(points, "front")
    for px, py in points:
        drawing.circle(px, py, 9.5, "front-place")


def _bars(drawing: Drawing, one: Place, x: Scale, y: Scale) -> None:
    """The intervals, both ways."""
    px, py = x(one.x.value), y(one.y.value)
    if drawable(one.x.low) and drawable(one.x.high):
        drawing.line(x(one.x.low), py, x(one.x.high), py, "interval")
    if drawable(one.y.low) and drawable(one.y.high):
        drawing.line(px, y(one.y.low), px, y(one.y.high), "interval")


def _curve(drawing: Drawing, curve: Curve, index: int, x: Scale, y: Scale) -> None:
    places = [one for one in curve.places if drawable(one.x.value) and drawable(one.y.value)]
    joined = [(x(one.x.value), y(one.y.value)) for one in places if one.joined]
    if joined:
        drawing.polyline([(x(0), y(0)), *joined], f"curve {colour(index)}")
    for one in places:
        hover = f"{curve.name}, {one.label}: {_words(one)}"
        mark(drawing, x(one.x.value), y(one.y.value), index, filled=not one.lost, hover=hover)


def _base(drawing: Drawing, x: Scale, y: Scale, plane: Box) -> Box:
    """A cross at the origin; returns the box that it and its name take."""
    px, py = x(0), y(0)
    drawing.line(px - 5, py - 5, px + 5, py + 5, "base")
    drawing.line(px - 5, py + 5, px + 5, py - 5, "base")
    room = 4 * CHARACTER
    left = px - 9 - room >= plane[0]
    drawing.text(px - 9 if left else px + 9, py - 9, "base", "label", "end" if left else "start")
    return (px - 9 - room if left else px - 5), (px + 5 if left else px + 9 + room), py - 20, py + 5


def _label(
    drawing: Drawing, one: Place, colour: str, x: Scale, y: Scale, plane: Box, taken: list[Box]
) -> None:  # fmt: skip
    """The setting beside its mark, where it covers least of what is there already."""
    px, py, room = x(one.x.value), y(one.y.value), len(one.label) * CHARACTER
    sides = [(9, -8, "start"), (9, 17, "start"), (-9, -8, "end"), (-9, 17, "end"), (11, 4, "start"), (-11, 4, "end"),
             (0, -13, "middle"), (0, 22, "middle"), (18, -20, "start"), (18, 29, "start"), (-18, -20, "end"), (-18, 29, "end")]  # fmt: skip
    best: tuple[float, float, float, str, Box] | None = None
    for dx, dy, anchor in sides:
        start = px + dx - {"start": 0.0, "middle": room / 2, "end": room}[anchor]
        box = (start, start + room, py + dy - 11, py + dy + 3)
        cost = sum(_overlap(box, other) for other in taken) + 4 * _outside(box, plane)
        if best is None or cost < best[0] - 1e-9:
            best = (cost, px + dx, py + dy, anchor, box)
    assert best is not None
    drawing.text(best[1], best[2], one.label, f"setting {colour}", best[3])
    taken.append(best[4])


def _around(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, x + half_width, y - half_height, y + half_height


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[2], b[2]))


def _outside(box: Box, plane: Box) -> float:
    area = (box[1] - box[0]) * (box[3] - box[2])
    return area - _overlap(box, plane)
