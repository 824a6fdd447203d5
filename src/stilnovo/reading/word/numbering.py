"""Number the headings of a Word document as Word prints them, and find those that only look like headings.

Both say how a section is cited, and stand in no paragraph's words: *Capitolo I* may be an automatic number, and a title
may be a bold line in the middle of the page that nobody gave a style. Unusual: the looks count only where no paragraph
of the document has the style of a heading.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.reading.numerals import roman
from stilnovo.reading.text_builder import tag_of
from stilnovo.reading.word.word_parts import WordParts, attribute_of, child

if TYPE_CHECKING:
    from lxml.etree import _Element

#: A longer line is no title.
_LONGEST = 90
_PLACE = re.compile(r"%([1-9])")


class NumberLevel(NamedTuple):
    """How a level of a list is numbered: its first number, the form of it, and the text around it."""

    start: int
    form: str
    text: str


class Numbering:
    """The automatic numbers of headings, counted as the paragraphs come."""

    def __init__(self, parts: WordParts) -> None:
        self.parts = parts
        levels: dict[str, dict[int, NumberLevel]] = {}
        self.lists: dict[str, dict[int, NumberLevel]] = {}
        self.counts: dict[int, dict[int, int]] = defaultdict(dict)
        for root in parts.parts("numbering"):
            for element in root:
                if tag_of(element) == "abstractNum":
                    levels[attribute_of(element, "abstractNumId")] = dict(map(_level, element.iterfind("{*}lvl")))
                elif tag_of(element) == "num":
                    self.lists[attribute_of(element, "numId")] = levels.get(
                        attribute_of(child(element, "abstractNumId")), {}
                    )

    def number(self, properties: _Element | None) -> str:
        """The number that Word prints before a paragraph; empty where there is none."""
        said = self.parts.numbered(properties)
        levels = self.lists.get(said[0], {}) if said else {}
        if said is None or said[1] not in levels or levels[said[1]].form in ("bullet", "none"):
            return ""
        depth, counts = said[1], self.counts[id(levels)]
        counts[depth] = counts.get(depth, levels[depth].start - 1) + 1
        for deeper in [level for level in counts if level > depth]:
            del counts[deeper]

        def shown(match: re.Match[str]) -> str:
            level = int(match[1]) - 1
            n = counts.get(level, levels[level].start) if level in levels else 0
            return _form(n, levels[level].form) if level in levels else ""

        return _PLACE.sub(shown, levels[depth].text[:80]).strip()


def _level(element: _Element) -> tuple[int, NumberLevel]:
    start, depth = attribute_of(child(element, "start")), attribute_of(element, "ilvl")
    return (
        int(depth) if re.fullmatch("[0-8]", depth) else 9,
        NumberLevel(
            int(start) if start.isdecimal() and len(start) < 5 else 1,
            attribute_of(child(element, "numFmt")) or "decimal",
            attribute_of(child(element, "lvlText")),
        ),
    )


def _form(n: int, form: str) -> str:
    """A number as Word writes it."""
    if form in ("upperRoman", "lowerRoman") and n:
        return roman(n) if form == "upperRoman" else roman(n).lower()
    if form in ("upperLetter", "lowerLetter") and 0 < n <= 26:
        return chr((64 if form == "upperLetter" else 96) + n)
    return str(n)


def looks(paragraph: _Element, words: str) -> tuple[bool, int] | None:
    """How a paragraph looks that may be a title: whether it is in the middle, and the size of its letters; None: it may not.

    A title is a short line, all of it in bold, in the middle or larger than the text.
    """
    if len(words) > _LONGEST or "\n" in words or not any(map(str.isalpha, words)):
        return None
    sizes = set()
    for run in paragraph.iterfind("{*}r"):
        if any((text.text or "").strip() for text in run.iterfind("{*}t")):
            properties = child(run, "rPr")
            bold = child(properties, "b")
            if bold is None or attribute_of(bold) in ("0", "false", "off"):
                return None
            size = attribute_of(child(properties, "sz"))
            sizes.add(int(size) if size.isdecimal() and len(size) < 5 else 0)
    middle = attribute_of(child(paragraph, "pPr", "jc")) == "center"
    return (middle, max(sizes)) if sizes and (middle or max(sizes) > 24) else None
