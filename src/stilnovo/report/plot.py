"""Parts of charts: SVG elements, scales with round ticks, labels that fit, and the plane of a line chart.

Elements are built as a tree and serialised once, so that every text is escaped and every tag closed by construction.
Colours and strokes are the style sheet's business: elements carry classes only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from stilnovo.report.numbers import clean, decimal, drawable, finite, tick_digits, ticks
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
    """An axis: round ticks over the data, and the linear map from values to drawing coordinates."""

    def __init__(self, values: Sequence[float], start: float, stop: float, target: int, *, whole: bool = False) -> None:
        self.ticks = ticks(min(values), max(values), target, whole=whole)
        digits = 0 if whole else tick_digits(self.ticks[1] - self.ticks[0])
        self.labels = [decimal(tick, digits) for tick in self.ticks]
        self.room = max(map(len, self.labels)) * CHARACTER
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self._start + (value - low) / (high - low) * (self._stop - self._start)

    def ends(self, estimate: Estimate) -> list[tuple[float, float]]:
        """Coordinates of an interval's ends, as a list of one pair; an empty list where it has none."""
        known = drawable(estimate.low) and drawable(estimate.high)
        return [(self(estimate.low), self(estimate.high))] if known else []

    def spaced(self) -> list[tuple[float, str]]:
        """Choose ticks whose labels have room, with their labels: all, or every n-th where the numbers are long.

        A long label at an end is moved inwards, towards its neighbour; that too has to fit.
        """
        gap = abs(self(self.ticks[1]) - self(self.ticks[0]))
        every = math.ceil((self.room + 6 + max(0.0, self.room / 2 - EDGE)) / gap)
        return list(zip(self.ticks, self.labels, strict=True))[::every]


class Drawing:
    """An SVG drawing of `width` × `height` user units with a title and a description for screen readers.

    `key` makes the ids unique in the page.
    """

    def __init__(self, width: float, height: float, *, key: str, title: str, description: str) -> None:
        labels, box = f"{key}-title {key}-desc", f"0 0 {_number(width)} {_number(height)}"
        self.width, self.height = width, height
        self._root = Element("svg", {"viewBox": box, "class": "chart", "role": "img", "aria-labelledby": labels})
        SubElement(self._root, "title", {"id": f"{key}-title"}).text = title
        SubElement(self._root, "desc", {"id": f"{key}-desc"}).text = description

    def add(self, tag: str, style: str, hover: str = "", **attributes: float | str) -> Element:
        """Add an element, with text shown on hover."""
        shown = {name: value if isinstance(value, str) else _number(value) for name, value in attributes.items()}
        element = SubElement(self._root, tag, {"class": style} | shown)
        if hover:
            SubElement(element, "title").text = hover
        return element

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Add a straight line."""
        self.add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def points(self, tag: str, points: Iterable[tuple[float, float]], style: str, hover: str = "") -> None:
        """Add a `polyline` through all points, or a closed `polygon`."""
        self.add(tag, style, hover, points=" ".join(f"{_number(x)},{_number(y)}" for x, y in points))

    def text(self, x: float, y: float, words: str, style: str, anchor: str = "start") -> None:
        """Add a line of text; `anchor` is start, middle or end."""
        self.add("text", style, x=x, y=y, **{"text-anchor": anchor}).text = words

    def labels_below(self, x: Scale, y: float) -> None:
        """Add the labels of the horizontal axis."""
        for tick, label in x.spaced():
            half = len(label) * CHARACTER / 2
            self.text(min(max(x(tick), half), self.width - half), y, label, "tick", "middle")

    def markup(self) -> str:
        """Render the drawing as an `<svg>` element."""
        return tostring(self._root, encoding="unicode")


class Plane(Drawing):
    """A plot with a value axis at the left, captions, and a legend above; the caller draws the rest.

    `height` is that of the plot without the legend, `captions` name the axes (upwards, across), `names` the curves.
    """

    def __init__(
        self, values: Sequence[float], captions: tuple[str, str], *, width: float, height: float, key: str, title: str,
        description: str, names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        names = [fit(name, width - 40) for name in names]
        room = max(map(len, names), default=0) * CHARACTER + 34
        columns = max(1, int((width - 8) / room))
        self.top = _ROW * math.ceil(len(names) / columns) + 30
        super().__init__(width, self.top + height, key=key, title=title, description=description)
        self.bottom, self.right = self.height - 42, width - EDGE
        self.y = Scale(values, self.bottom, self.top, 6)
        self.left = self.y.room + 12
        for tick, label in zip(self.y.ticks, self.y.labels, strict=True):
            self.line(self.left, self.y(tick), self.right, self.y(tick), "grid")
            self.text(self.left - 8, self.y(tick) + 4, label, "tick", "end")
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        self.text(0, self.top - 12, fit(captions[0], width), "tick")
        self.text(self.right, self.bottom + 36, fit(captions[1], width), "tick", "end")
        for index, name in enumerate(names):
            x, y = 8 + room * (index % columns), 8 + _ROW * (index // columns)
            self.mark(x, y, index)
            self.text(x + 12, y + 4, name, "label")

    def mark(self, x: float, y: float, index: int, *, filled: bool = True, hover: str = "") -> None:
        """Draw the mark of curve number `index` at a place."""
        style = f"mark {colour(index)}" + ("" if filled else " hollow")
        shape = _SHAPES[index % len(_SHAPES)]
        self.points("polygon", [(x + RADIUS * dx, y + RADIUS * dy) for dx, dy in shape], style, hover)

    def whisker(self, x: float, estimate: Estimate) -> None:
        """Draw a vertical interval; nothing where it has no ends."""
        for low, high in self.y.ends(estimate):
            self.line(x, low, x, high, "interval")


def colour(index: int) -> str:
    """CSS class of a curve."""
    return f"curve-{index % COLOURS}"


def fit(label: str, room: float) -> str:
    """Shorten a label with an ellipsis if it is longer than its room."""
    label = " ".join(clean(label).split())
    most = max(1, int(room / CHARACTER))
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def ends_text(estimate: Estimate, digits: int) -> str:
    """Format an interval's ends in brackets; empty where it has none."""
    if not all(map(finite, (estimate.value, estimate.low, estimate.high))):
        return ""
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"


def interval_text(estimate: Estimate, digits: int) -> str:
    """Format an interval as "1.487 [1.452, 1.521]", without the brackets where it has no ends."""
    return f"{decimal(estimate.value, digits)} {ends_text(estimate, digits)}".rstrip()


def numbers_of(estimates: Iterable[Estimate]) -> list[float]:
    """All drawable values and ends: the range that a shared axis has to cover."""
    return [x for e in estimates if drawable(e.value) for x in (e.value, e.low, e.high) if drawable(x)]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
