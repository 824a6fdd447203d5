"""Split a text into sections that tile it: every character belongs to exactly one section.

A section is a chapter, a canto, a novella, or what stands before and between them. Its `body` is where its own words
begin, after the heading.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.reading.headings import Heading
from stilnovo.reading.plain import detection
from stilnovo.reading.text_builder import VerseLine
from stilnovo.reading.verse import is_verse, verse_spans


@dataclass(frozen=True)
class Section:
    """`text[start:end]`, heading included; the words begin at `body`.

    `label` is how it is cited (*Parte II, Capitolo IV*; *Inferno, Canto I*): the labels of the headings it stands under,
    from the outermost; empty for a text without parts; `title`
    what the author called it, often empty. `lines` are its lines of verse; `verse` is whether it is a poem as a whole.
    """

    start: int
    end: int
    body: int
    label: str
    title: str
    verse: bool
    lines: tuple[VerseLine, ...] = ()


def _label(chain: Sequence[Heading]) -> str:
    """Label of the innermost of nested headings, after those of the others: *Parte I, Libro II, Capitolo III*.

    A label that says the one before it, too, stands for both: *Inferno, Canto I* in *Inferno*.
    """
    labels: list[str] = []
    for label in (heading.label for heading in chain if heading.label):
        if labels and re.match(rf"{re.escape(labels[-1])}(?!\w)", label, re.I):
            labels.pop()
        labels.append(label)
    return ", ".join(labels)


def _said(text: str, start: int, end: int) -> bool:
    """Whether there are words in `text[start:end]`; ornaments are none."""
    return any(map(str.isalnum, text[start:end]))


def _joined(text: str, headings: Sequence[Heading]) -> list[tuple[int, Heading, str]]:
    """Headings with where their section starts and its label; a heading right before one inside it joins that."""
    joined: list[tuple[int, Heading, str]] = []
    chain: list[Heading] = []  # those that are open, from the outermost
    pending: int | None = None
    for heading, following in zip(headings, [*headings[1:], None][: len(headings)], strict=True):
        while chain and chain[-1].level >= heading.level:
            chain.pop()
        chain.append(heading)
        start = heading.start if pending is None else pending
        pending = None
        if following and following.level > heading.level and not _said(text, heading.end, following.start):
            pending = start
            continue
        joined.append((start, heading, _label(chain)))
    return joined


def _lines(text: str, start: int, end: int, marked: Sequence[VerseLine] | None) -> tuple[bool, tuple[VerseLine, ...]]:
    """Whether `text[start:end]` is verse as a whole, and its lines of verse; in a poem all of them are numbered.

    Numbers that the source gives are kept; the others are counted on from them, from 1 where none is given. Lines of verse
    in a section of prose are numbered only where the source numbers them.
    """
    if marked is None:
        if not is_verse(text[start:end]):
            return False, ()
        return True, tuple(VerseLine(*span, number) for number, span in enumerate(verse_spans(text, start, end), 1))
    inside = marked[bisect_left(marked, (start,)) : bisect_left(marked, (end,))]
    if not inside:
        return False, ()
    letters = sum(not char.isspace() for char in text[start:end])
    verse = sum(not char.isspace() for line in inside for char in text[line.start : line.end]) * 2 > letters
    if not verse:
        return False, tuple(inside)
    first = next((i for i, line in enumerate(inside) if line.number is not None), None)
    number = 0 if first is None else (inside[first].number or 0) - first - 1
    numbered = []
    for line in inside:
        number = number + 1 if line.number is None else line.number
        numbered.append(line._replace(number=number))
    return True, tuple(numbered)


def split(
    text: str, headings: Sequence[Heading] | None = None, lines: Sequence[VerseLine] | None = None
) -> list[Section]:
    """Split a text at its headings. The sections tile it: `"".join` of them is the text.

    Args:
        text: The text.
        headings: Detected in the text when not given.
        lines: Its lines of verse; told from the text when not given.
    """

    def section(start: int, end: int, body: int, label: str, title: str) -> Section:
        return Section(start, end, body, label, title, *_lines(text, body, end, lines))

    marked = _joined(text, detection.find(text) if headings is None else headings)
    if not marked:
        return [section(0, len(text), 0, "", "")]
    first = marked[0][0]
    if _said(text, 0, first):
        sections = [section(0, first, 0, "", "")]
    else:
        sections, marked[0] = [], (0, *marked[0][1:])
    ends = [*(start for start, _, _ in marked[1:]), len(text)]
    return sections + [
        section(start, end, heading.end, label, heading.title)
        for (start, heading, label), end in zip(marked, ends, strict=True)
    ]
