"""Cut sections into passages: the units that are indexed, found and shown.

Prose is cut at sentence ends into pieces of about 900 characters, verse into groups of three tercets or the stanzas
nearest to nine lines. A passage is a span of the stored text and nothing else; no passage crosses a section.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stilnovo.reading.sections import Section
from stilnovo.text.italian import sentences

#: Prose passages aim at TARGET characters, and are never longer than LONGEST.
TARGET, LONGEST = 900, 1400
VERSES = 9


class PassageSpan(NamedTuple):
    """`text[start:end]` of the stored source; in verse, the numbers of its first and last line in the section."""

    start: int
    end: int
    first_verse: int | None = None
    last_verse: int | None = None


_MARKS = (re.compile(r"[;:]\s"), re.compile(r",\s"), re.compile(r"\s"))


def _clauses(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Cut a sentence longer than a passage at semicolons, then commas, then spaces."""
    if end - start <= LONGEST:
        return [(start, end)]
    middle = (start + end) // 2
    for mark in _MARKS:
        if cut := _nearest(mark, text, middle, (end - start) // 3):
            left = cut
            while left > start and text[left - 1].isspace():
                left -= 1
            return _clauses(text, start, left) + _clauses(text, cut, end)
    return _clauses(text, start, middle) + _clauses(text, middle, end)


def _nearest(mark: re.Pattern[str], text: str, middle: int, reach: int) -> int:
    """End of the mark nearest to `middle` and nearer than `reach`, of two as near the first; 0 where there is none.

    It looks a little farther each time: a sentence without any stop may be a whole file.
    """
    width = 256
    while True:
        width = min(width, reach - 1)
        ends = [match.end() for match in mark.finditer(text, middle - width - 2, middle + width)]
        near = min((end for end in ends if abs(end - middle) <= width), key=lambda end: abs(end - middle), default=0)
        if near or width >= reach - 1:
            return near
        width *= 4


def prose(text: str, section: Section) -> list[PassageSpan]:
    """Pack the sentences of a section into passages of about `TARGET` characters."""
    spans = [
        clause
        for start, end in sentences(text[section.body : section.end])
        for clause in _clauses(text, section.body + start, section.body + end)
    ]
    pieces: list[PassageSpan] = []
    first: int | None = None
    last = 0
    for start, end in spans:
        if first is not None and (last - first >= TARGET or end - first > LONGEST):
            pieces.append(PassageSpan(first, last))
            first = None
        first = start if first is None else first
        last = end
    if first is not None:
        tail = pieces and last - first < TARGET // 4 and last - pieces[-1].start <= LONGEST
        pieces.append(PassageSpan(pieces.pop().start if tail else first, last))
    return pieces


def verse(text: str, section: Section) -> list[PassageSpan]:
    """Group the stanzas of a section into passages of about `VERSES` lines; longer stanzas are cut."""
    lines = section.lines
    pieces: list[PassageSpan] = []
    first = 0
    for i, (_, end, number) in enumerate(lines):
        following = lines[i + 1].start if i + 1 < len(lines) else len(text)
        blank = text.count("\n", end, following) > 1
        count = i + 1 - first
        if (count >= VERSES and (blank or count >= VERSES + 3)) or i + 1 == len(lines):
            pieces.append(PassageSpan(lines[first].start, end, lines[first].number, number))
            first = i + 1
    if len(pieces) > 1 and (pieces[-1].last_verse or 0) - (pieces[-1].first_verse or 0) < 2:
        last, before = pieces.pop(), pieces.pop()
        pieces.append(PassageSpan(before.start, last.end, before.first_verse, last.last_verse))
    return pieces


def cut(text: str, section: Section) -> list[PassageSpan]:
    """Cut a section into passages, in order; together they hold every word of its body."""
    return verse(text, section) if section.verse else prose(text, section)
