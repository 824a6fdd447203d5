"""The few SVG elements the charts are made of.

Elements are built as a tree and serialised once, so that every text is escaped and every tag closed by construction.
Colours and strokes are the style sheet's business: elements carry classes only.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring


class Drawing:
    """A drawing of `width` × `height` user units with a title and a description for those who cannot see it.

    `key` makes the ids unique in the page.
    """

    def __init__(self, width: float, height: float, *, key: str, title: str, description: str) -> None:
        labels = f"{key}-title {key}-desc"
        box = f"0 0 {_number(width)} {_number(height)}"
        self.width, self.height = width, height
        self._root = Element("svg", {"viewBox": box, "class": "chart", "role": "img", "aria-labelledby": labels})
        SubElement(self._root, "title", {"id": f"{key}-title"}).text = title
        SubElement(self._root, "desc", {"id": f"{key}-desc"}).text = description

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line."""
        self._add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def circle(self, x: float, y: float, radius: float, style: str, hover: str = "") -> None:
        """A dot, with text shown while the pointer rests on it."""
        self._hover(self._add("circle", style, cx=x, cy=y, r=radius), hover)

    def rectangle(self, x: float, y: float, width: float, height: float, style: str, hover: str = "") -> None:
        """A box, with text shown while the pointer rests on it."""
        self._hover(self._add("rect", style, x=x, y=y, width=width, height=height), hover)

    def polyline(self, points: list[tuple[float, float]], style: str) -> None:
        """A line through all points."""
        element = self._add("polyline", style)
        element.set("points", " ".join(f"{_number(x)},{_number(y)}" for x, y in points))

    def polygon(self, points: list[tuple[float, float]], style: str, hover: str = "") -> None:
        """A closed shape, with text shown while the pointer rests on it."""
        element = self._add("polygon", style)
        element.set("points", " ".join(f"{_number(x)},{_number(y)}" for x, y in points))
        self._hover(element, hover)

    def text(self, x: float, y: float, words: str, style: str, anchor: str = "start") -> None:
        """One line of text; `anchor` is start, middle or end."""
        element = self._add("text", style, x=x, y=y)
        element.set("text-anchor", anchor)
        element.text = words

    def markup(self) -> str:
        """The drawing as an `<svg>` element."""
        return tostring(self._root, encoding="unicode")

    def _add(self, tag: str, style: str, **numbers: float) -> Element:
        return SubElement(self._root, tag, {"class": style} | {name: _number(value) for name, value in numbers.items()})

    @staticmethod
    def _hover(element: Element, words: str) -> None:
        if words:
            SubElement(element, "title").text = words


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
