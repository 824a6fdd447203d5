"""Build running text with headings from marked-up text: what the TEI, HTML, EPUB, Markdown and Word readers share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.library.headings import CHAPTERS, PARTS, Heading, label_for, number_of
from stilnovo.library.names import Names

_KIND = re.compile(rf"\s*({'|'.join(re.escape(kind) for kind in (*PARTS, *CHAPTERS))})\b", re.I)


@dataclass(frozen=True)
class Book:
    """A parsed document: names, running text, headings with offsets (None: detect them in the text)."""

    names: Names
    text: str
    headings: tuple[Heading, ...] | None = None


@dataclass(frozen=True)
class Mark:
    """A heading marked in the source format: its span, depth (1 is the outermost) and lines."""

    start: int
    end: int
    depth: int
    lines: tuple[str, ...]


class TextBuilder:
    """Collect blocks of text and marks of headings; everything is NFC, as offsets must not move afterwards."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.marks: list[Mark] = []

    def put(self, text: str, gap: str) -> int:
        """Append a block with `gap` before it; returns where the block starts."""
        text = unicodedata.normalize("NFC", text)
        piece = (gap if self.length else "") + text
        start = self.length + len(piece) - len(text)
        self.pieces.append(piece)
        self.length += len(piece)
        return start

    def heading(self, lines: Sequence[str], depth: int) -> None:
        """Append a heading of one or several lines."""
        start = self.put("\n".join(lines), "\n\n\n")
        self.marks.append(Mark(start, self.length, depth, tuple(lines)))

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def book(self, names: Names) -> Book:
        """The document, with the headings that were marked."""
        return Book(names, self.text, _headings(self.marks))


def _headings(marks: Sequence[Mark]) -> tuple[Heading, ...] | None:
    """Marks to headings; None when there are fewer than two, which say nothing of the text's structure.

    What others stand below is a part. A lone outermost heading before all others is the work's title, and no section.
    """
    if len(marks) > 1 and all(marks[0].depth < mark.depth for mark in marks[1:]):
        marks = marks[1:]
    if len(marks) < 2:
        return None
    depths = [*(mark.depth for mark in marks[1:]), 0]
    return tuple(_heading(mark, depth > mark.depth) for mark, depth in zip(marks, depths, strict=True))


def _heading(mark: Mark, holds_others: bool) -> Heading:
    number, title = number_of(mark.lines)
    worded = _KIND.match(mark.lines[0])
    kind = worded.group(1).lower().replace("cap.", "capitolo") if worded else "parte" if holds_others else "capitolo"
    level = 1 if holds_others or kind in PARTS else 2
    whole = " ".join(mark.lines)
    if number is None or (level == 1 and not worded):
        return Heading(mark.start, mark.end, level, kind, number, whole if len(whole) <= 120 else mark.lines[0][:120])
    return Heading(mark.start, mark.end, level, kind, number, label_for(kind, number), title)


def cut(book: Book, start: int, end: int) -> Book:
    """Cut a document to a span, with its headings' offsets adjusted."""
    if (start, end) == (0, len(book.text)):
        return book
    if book.headings is None:
        return replace(book, text=book.text[start:end])
    inside = (heading for heading in book.headings if start <= heading.start and heading.end <= end)
    moved = tuple(replace(heading, start=heading.start - start, end=heading.end - start) for heading in inside)
    return replace(book, text=book.text[start:end], headings=moved)
