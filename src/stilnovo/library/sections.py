"""Split a text into sections that tile it: every character belongs to exactly one section.

A section is a chapter, a canto, a novella, or what stands before and between them. Its `body` is where its own words
begin, after the heading. Verse is recognised by its short lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stilnovo.library import headings as heading_finder
from stilnovo.library.headings import Heading

#: Verse: at least this many lines, half of them at most, nine in ten at most that many characters long.
_VERSE_LINES, _VERSE_MEDIAN, _VERSE_LONG = 4, 52, 64


@dataclass(frozen=True)
class Section:
    """`text[start:end]`, heading included; the words begin at `body`.

    `label` is how it is cited (*Parte II, Capitolo IV*; *Inferno, Canto I*), empty for a text without parts; `title`
    what the author called it, often empty.
    """

    start: int
    end: int
    body: int
    label: str
    title: str
    verse: bool


def is_verse(text: str) -> bool:
    """Whether a text is verse: short lines throughout."""
    lengths = sorted(len(line.strip()) for line in text.split("\n") if line.strip())
    enough = len(lengths) >= _VERSE_LINES
    return enough and median(lengths) <= _VERSE_MEDIAN and lengths[int(len(lengths) * 0.9)] <= _VERSE_LONG


def _label(part: Heading | None, heading: Heading) -> str:
    if part is None or heading.level == 1 or heading.label.lower().startswith(part.label.lower()):
        return heading.label
    return f"{part.label}, {heading.label}"


def _joined(text: str, headings: Sequence[Heading]) -> list[tuple[int, Heading, Heading | None]]:
    """Headings with where their section starts and the part they stand in; a bare part heading joins its chapter."""
    joined: list[tuple[int, Heading, Heading | None]] = []
    part: Heading | None = None
    pending: int | None = None
    for heading, following in zip(headings, [*headings[1:], None][: len(headings)], strict=True):
        if heading.level == 1:
            part = heading
            if following and following.level == 2 and not text[heading.end : following.start].strip():
                pending = heading.start if pending is None else pending
                continue
        joined.append((heading.start if pending is None else pending, heading, part))
        pending = None
    return joined


def split(text: str, headings: Sequence[Heading] | None = None) -> list[Section]:
    """Split a text at its headings (detected when not given). The sections tile it: `"".join` of them is the text."""
    marked = _joined(text, heading_finder.find(text) if headings is None else headings)
    if not marked:
        return [Section(0, len(text), 0, "", "", is_verse(text))]
    first = marked[0][0]
    if text[:first].strip():
        sections = [Section(0, first, 0, "", "", is_verse(text[:first]))]
    else:
        sections, marked[0] = [], (0, *marked[0][1:])
    ends = [*(start for start, _, _ in marked[1:]), len(text)]
    return sections + [
        Section(start, end, heading.end, _label(part, heading), heading.title, is_verse(text[heading.end : end]))
        for (start, heading, part), end in zip(marked, ends, strict=True)
    ]
