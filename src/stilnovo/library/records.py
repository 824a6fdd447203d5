"""Records of the library (works, sections, passages) and their citations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from stilnovo.reading.headings import KINDS
from stilnovo.reading.text_builder import VerseLine

_ABBREVIATED = {"capitolo": "cap.", "paragrafo": "par.", "volume": "vol.", "articolo": "art."}
_KIND_WORD = re.compile(
    rf"(?:(?<=, )|^)(?:{'|'.join(kind.capitalize() for kind in KINDS)})(?= (?:[IVXLCDM]+(?![^\W_])|ultim[ao]\b))"
)


@dataclass(frozen=True)
class Work:
    """A stored work. `sha256` is of its stored text (UTF-8), by which a second copy is recognised."""

    id: int
    title: str
    author: str
    year: int | None
    source: str
    sha256: str
    characters: int
    sections: int
    passages: int


@dataclass(frozen=True)
class Chapter:
    """A stored section: `start` to `end` of the work's text, its own words from `body`; `lines` are its lines of verse."""

    id: int
    work: Work
    position: int
    label: str
    title: str
    verse: bool
    start: int
    end: int
    body: int
    lines: tuple[VerseLine, ...] = ()

    def verses(self, start: int, end: int) -> str:
        """Numbers of the verses that `text[start:end]` touches, *7-9*; empty in prose."""
        touched = [line.number for line in self.lines if line.start < end and start < line.end and line.number]
        return verse_range(touched[0], touched[-1]) if touched else ""


@dataclass(frozen=True)
class Passage:
    """A stored passage: `text` is exactly `start` to `end` of the work's text."""

    id: int
    section: Chapter
    start: int
    end: int
    text: str
    first_verse: int | None
    last_verse: int | None

    @property
    def verses(self) -> str:
        """Numbers of the verses, *1-9*; empty in prose."""
        return verse_range(self.first_verse, self.last_verse)

    @property
    def citation(self) -> str:
        """Citation of the passage: *Dante Alighieri, Commedia, Inferno, canto I, vv. 1-9*."""
        return citation(self.section, self.verses)


def packed_lines(lines: Iterable[VerseLine]) -> str:
    """Pack lines of verse for storage: JSON rows of start, end, number."""
    return json.dumps(list(lines), separators=(",", ":"))


def unpacked_lines(packed: str) -> tuple[VerseLine, ...]:
    """Unpack stored lines of verse."""
    return tuple(VerseLine(*line) for line in json.loads(packed))


def verse_range(first: int | None, last: int | None) -> str:
    """Format a range of verses: *7*, *7-9*, or empty."""
    if first is None:
        return ""
    return str(first) if last in (None, first) else f"{first}-{last}"


def citation(section: Chapter, verses: str = "") -> str:
    """Format a citation: author, work, section and verses, without what is unknown."""
    label = _KIND_WORD.sub(lambda word: _ABBREVIATED.get(word.group().lower(), word.group().lower()), section.label)
    numbers = f"{'vv.' if '-' in verses else 'v.'} {verses}" if verses else ""
    return ", ".join(part for part in (section.work.author, section.work.title, label, numbers) if part)
