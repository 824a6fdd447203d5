"""The SVG elements that the charts are made of.

Elements are built as a tree and serialised once, so that every text is escaped and every tag closed by construction.
Colours and strokes are the style sheet's business: elements carry classes only.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    def add(self, tag: str, style: str, hover: str = "", **attributes: float | str) -> Element:
        """Any element, with text shown while the pointer rests on it."""
        shown = {name: value if isinstance(value, str) else _number(value) for name, value in attributes.items()}
        element = SubElement(self._root, tag, {"class": style} | shown)
        if hover:
            SubElement(element, "title").text = hover
        return element

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line."""
        self.add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def points(self, tag: str, points: Iterable[tuple[float, float]], style: str, hover: str = "") -> None:
        """A `polyline` through all points, or a closed `polygon`."""
        self.add(tag, style, hover, points=" ".join(f"{_number(x)},{_number(y)}" for x, y in points))

    def text(self, x: float, y: float, words: str, style: str, anchor: str = "start") -> None:
        """One line of text; `anchor` is start, middle or end."""
        self.add("text", style, x=x, y=y).attrib["text-anchor"] = anchor
        self._root[-1].text = words

    def markup(self) -> str:
        """The drawing as an `<svg>` element."""
        return tostring(self._root, encoding="unicode")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
