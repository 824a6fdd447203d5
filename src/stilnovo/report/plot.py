"""What the charts share: scales with round ticks, labels that fit, intervals in words, and the plane of a line chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stilnovo.report.numbers import clean, decimal, drawable, finite, tick_digits, ticks
from stilnovo.report.svg import Drawing
from stilnovo.statistics.estimates import Estimate

CHARACTER = 7.4  # mean advance of the sans face at 12 px, on the generous side: labels must not touch the plot
EDGE = 12.0  # room for half a dot at the ends of an axis
COLOURS = 6  # classes curve-0 … curve-5 of the style sheet; more curves begin again, with another shape
RADIUS = 5.0
_ROW = 22.0  # height of a row of the legend
_SHAPES: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((math.cos(math.tau * k / 24), math.sin(math.tau * k / 24)) for k in range(24)),  # disc
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),  # square
    ((0.0, -1.25), (1.1, 0.85), (-1.1, 0.85)),  # triangle
    ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),  # diamond
    ((0.0, 1.25), (1.1, -0.85), (-1.1, -0.85)),  # triangle, upside down
)


class Scale:
    """Round numbers over the data, and the linear map from them to drawing coordinates."""

    def __init__(self, values: Iterable[float], start: float, stop: float, target: int, *, whole: bool = False) -> None:
        values = list(values)
        self.ticks = ticks(min(values), max(values), target, whole=whole)
        self.digits = 0 if whole else tick_digits(self.ticks[1] - self.ticks[0])
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self._start + (value - low) / (high - low) * (self._stop - self._start)

    def spaced(self) -> list[float]:
        """The ticks whose labels have room: every one, or every second where the numbers are long.

        A long label at an end is moved inwards, towards its neighbour; that too has to fit.
        """
        gap = abs(self(self.ticks[1]) - self(self.ticks[0]))
        half = max(len(decimal(tick, self.digits)) for tick in self.ticks) * CHARACTER / 2
        return self.ticks[:: math.ceil((2 * half + 6 + max(0.0, half - EDGE)) / gap)]


class Plane(Drawing):
    """A plot with a value axis at the left, captions, and a legend above; the caller draws the rest.

    `height` is that of the plot without the legend, `captions` name the axes (upwards, across), `names` the curves.
    """

    def __init__(
        self, values: Iterable[float], captions: tuple[str, str], *, width: float, height: float, key: str, title: str,
        description: str, names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        rows = _legend(names, width)
        self.top = _ROW * len(rows) + 30
        super().__init__(width, self.top + height, key=key, title=title, description=description)
        self.bottom, self.right = self.height - 42, width - EDGE
        self.y = Scale(values, self.bottom, self.top, 6)
        self.left = max(len(decimal(tick, self.y.digits)) for tick in self.y.ticks) * CHARACTER + 12
        for tick in self.y.ticks:
            self.line(self.left, self.y(tick), self.right, self.y(tick), "grid")
            self.text(self.left - 8, self.y(tick) + 4, decimal(tick, self.y.digits), "tick", "end")
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        self.text(0, self.top - 12, fit(captions[0], width), "tick")
        self.text(self.right, self.bottom + 36, fit(captions[1], width), "tick", "end")
        for number, row in enumerate(rows):
            for x, index, name in row:
                self.mark(x, 8 + _ROW * number, index)
                self.text(x + 12, 12 + _ROW * number, name, "label")

    def labels_below(self, x: Scale) -> None:
        """The figures of the horizontal axis."""
        for tick in x.spaced():
            label = decimal(tick, x.digits)
            place = min(x(tick), self.right + EDGE - len(label) * CHARACTER / 2)
            self.text(place, self.bottom + 18, label, "tick", "middle")

    def mark(self, x: float, y: float, index: int, *, filled: bool = True, hover: str = "") -> None:
        """The mark of curve number `index` at a place."""
        style = f"mark {colour(index)}" + ("" if filled else " hollow")
        shape = _SHAPES[index % len(_SHAPES)]
        self.points("polygon", [(x + RADIUS * dx, y + RADIUS * dy) for dx, dy in shape], style, hover)

    def whisker(self, x: float, estimate: Estimate) -> None:
        """A vertical interval; nothing where it has no ends."""
        if drawable(estimate.low) and drawable(estimate.high):
            self.line(x, self.y(estimate.low), x, self.y(estimate.high), "interval")


def _legend(names: Sequence[str], width: float) -> list[list[tuple[float, int, str]]]:
    """(x, index, name) of every curve, in as many rows as they need."""
    rows: list[list[tuple[float, int, str]]] = []
    x = math.inf
    for index, name in enumerate(fit(name, width - 40) for name in names):
        room = len(name) * CHARACTER + 34
        if x + room > width:
            rows.append([])
            x = 8.0
        rows[-1].append((x, index, name))
        x += room
    return rows


def colour(index: int) -> str:
    """The style class of a curve."""
    return f"curve-{index % COLOURS}"


def fit(label: str, room: float) -> str:
    """The label, cut with an ellipsis if it is longer than the room it has."""
    label = " ".join(clean(label).split())
    most = max(1, int(room / CHARACTER))
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def ends_text(estimate: Estimate, digits: int) -> str:
    """The ends of an interval in brackets, or nothing where it has none."""
    if not all(map(finite, (estimate.value, estimate.low, estimate.high))):
        return ""
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"


def interval_text(estimate: Estimate, digits: int) -> str:
    """An interval as "1.487 [1.452, 1.521]"; the brackets are left out where it has no ends."""
    return f"{decimal(estimate.value, digits)} {ends_text(estimate, digits)}".rstrip()


def numbers_of(estimates: Iterable[Estimate]) -> list[float]:
    """All values and ends that can be drawn: what an axis shared by these intervals has to cover."""
    return [x for e in estimates if drawable(e.value) for x in (e.value, e.low, e.high) if drawable(x)]
