"""Shared parts of all readers: running text built with its headings, the document itself."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from stilnovo.reading.headings import CHAPTERS, PARTS, Heading, label_for, levels, numbers_of
from stilnovo.reading.names import Names
from stilnovo.reading.numerals import roman
from stilnovo.reading.verse import is_verse

#: What words that are not the author's running text are.
ApparatusKind = Literal[
    "note", "speaker", "stage", "argument", "contents", "title page", "licence", "colophon", "transcriber", "header", "page",
    "running head", "line number", "figure", "reading", "deletion", "other",
]  # fmt: skip


class VerseLine(NamedTuple):
    """A line of verse, `text[start:end]` of the stored text, and its number; None: the line is not numbered."""

    start: int
    end: int
    number: int | None


@dataclass(frozen=True)
class Apparatus:
    """Words of the file that are not the author's running text, kept apart: `text`, which stood before offset `at`."""

    kind: ApparatusKind
    text: str
    at: int


_KIND = re.compile(rf"\s*({'|'.join(re.escape(kind) for kind in (*PARTS, *CHAPTERS))})\b", re.I)


@dataclass(frozen=True)
class Book:
    """A document as a reader gives it.

    Attributes:
        names: Author, title, year.
        text: The author's running text with its headings, every word once, in order, NFC.
        source: Name of the file.
        headings: Headings with offsets; None: detect them in the text. An empty span (start = end) is a section that
            the source marks without printing a heading.
        apparatus: Words that are not the author's running text, each where it stood, in order.
        lines: Lines of verse that the source marks, in order, with the numbers it prints or marks; None: the source
            does not say what is verse, so that it is told from the text.
        warnings: What the reader could not read, in words for a person.
        data: The file's bytes, kept so that the stored text can be checked against them.
        given: Those of the names that a person gave, not the reader.
    """

    names: Names
    text: str
    source: str = ""
    headings: tuple[Heading, ...] | None = None
    apparatus: tuple[Apparatus, ...] = ()
    lines: tuple[VerseLine, ...] | None = None
    warnings: tuple[str, ...] = ()
    data: bytes = b""
    given: Names = field(default_factory=Names)

    @cached_property
    def sha256(self) -> str:
        """Digest of the text, by which a library knows it again."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


#: A heading marked in the source format: its start and end, depth (1 is the outermost) and lines.
HeadingMark = tuple[int, int, int, Sequence[str]]


def tag_of(element: Any) -> str:
    """Name of an XML or HTML element without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the paragraphs in `text[start:end]`: runs of lines that are not blank."""
    for match in re.finditer(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*", text[start:end]):
        yield start + match.start(), start + match.end()


class TextBuilder:
    """Collect blocks of text and marks of headings; everything is NFC, as offsets must not move afterwards."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.heading_marks: list[HeadingMark] = []
        self.lines: list[VerseLine] = []
        self.apparatus: list[Apparatus] = []
        self.warnings: list[str] = []

    def put(self, text: str, gap: str) -> int:
        """Append a block with `gap` before it; returns where the block starts."""
        text = unicodedata.normalize("NFC", text)
        self.pieces.append((gap if self.length else "") + text)
        self.length += len(self.pieces[-1])
        return self.length - len(text)

    def line(self, text: str, gap: str, number: int | None = None) -> None:
        """Append a line of verse."""
        start = self.put(text, gap)
        self.lines.append(VerseLine(start, self.length, number))

    def apart(self, kind: ApparatusKind, text: str) -> None:
        """Keep words apart that are not the author's running text; they stand at the end of the text so far."""
        if text.strip():
            self.apparatus.append(Apparatus(kind, unicodedata.normalize("NFC", text), self.length))

    def heading(self, lines: Sequence[str], depth: int) -> None:
        """Append a heading of one or several lines."""
        start = self.put("\n".join(lines), "\n\n\n")
        self.heading_marks.append((start, self.length, depth, lines))

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def book(self, names: Names) -> Book:
        """The document, with everything that was marked."""
        return Book(
            names,
            self.text,
            headings=_headings(self.heading_marks, self.lines, self.text),
            apparatus=tuple(self.apparatus),
            lines=tuple(self.lines) or None,
            warnings=tuple(self.warnings),
        )


def _headings(marks: Sequence[HeadingMark], lines: Sequence[VerseLine], text: str) -> tuple[Heading, ...] | None:
    """Convert marks to headings; None when there are fewer than two, too few to give a structure.

    What others stand below is a part. A lone outermost heading before all others is the work's title, and no section,
    unless it names a part (*Atto primo*).
    """
    depths = [depth for _, _, depth, _ in marks]
    if len(marks) > 1 and depths[0] < min(depths[1:]) and not _KIND.match(marks[0][3][0]):
        marks, depths = marks[1:], depths[1:]
    if len(marks) < 2:
        return None
    worded = [_KIND.match(lines[0]) for *_, lines in marks]
    said = [match.group(1).lower().replace("cap.", "capitolo") if match else "" for match in worded]
    numbers = numbers_of([heads for *_, heads in marks])
    kinds = [kind or ("capitolo" if number else "") for kind, (number, _) in zip(said, numbers, strict=True)]
    holds = [after > depth for depth, after in zip(depths, [*depths[1:], 0], strict=True)]
    ends = [*(start for start, *_ in marks[1:]), len(text)]
    verse = [
        _letters(lines, mark[1], end) * 2 > end - mark[1] if lines else bool(number) and is_verse(text[mark[1] : end])
        for mark, end, (number, _) in zip(marks, ends, numbers, strict=True)
    ]
    return tuple(
        _heading(mark, level, kind or ("parte" if below else ""), number, poem)
        for mark, level, kind, below, number, poem in zip(
            marks, levels(depths, kinds), said, holds, numbers, verse, strict=True
        )
    )


def _letters(lines: Sequence[VerseLine], start: int, end: int) -> int:
    """Characters of the lines of verse between two places."""
    first, last = bisect_left(lines, (start,)), bisect_left(lines, (end,))
    return sum(line.end - line.start for line in lines[first:last])


def _heading(mark: HeadingMark, level: int, kind: str, split: tuple[int | None, str], poem: bool) -> Heading:
    """A heading of what was marked; a poem that has a number and a title is cited by both, *XII. L'infinito*, one without by its number."""
    start, end, _, lines = mark
    number, title = split
    if number is None or (kind == "parte" and not _KIND.match(lines[0])):
        whole = " ".join(lines)
        if kind and re.fullmatch(rf"\W*{kind}\s+ultim[ao]\W*", whole, re.I):
            whole = whole.strip(" .").capitalize()
        return Heading(start, end, level, kind or "capitolo", None, whole if len(whole) <= 120 else lines[0][:120])
    if poem and not kind:
        return Heading(
            start, end, level, "poesia", number, f"{roman(number)}. {title}" if title else roman(number), title
        )
    kind = kind or "capitolo"
    return Heading(start, end, level, kind, number, label_for(kind, number), title)


#: A span of a text to be kept apart: its start and end, and what it is.
Span = tuple[int, int, ApparatusKind]


class Edit(NamedTuple):
    """A change of a text: `text[start:end]` gives way to `instead`; its words are kept apart as `kind`, if they are words."""

    start: int
    end: int
    kind: ApparatusKind | None = None
    instead: str = ""


class _Spanned(Protocol):
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


_Span = TypeVar("_Span", bound=_Spanned)


def disjoint(changes: Iterable[_Span]) -> list[_Span]:
    """Spans in order, without those that overlap an earlier one of them."""
    apart: list[_Span] = []
    for span in sorted(changes, key=lambda span: (span.start, span.end)):
        if not apart or span.start >= apart[-1].end:
            apart.append(span)
    return apart


def set_apart(book: Book, spans: Sequence[Span]) -> Book:
    """Take spans out of a document's text and keep them as apparatus, everything else moved up.

    Args:
        book: The document.
        spans: In order, not overlapping. Headings and lines of verse inside one are dropped with it.
    """
    return edited(book, [Edit(*span) for span in spans])


def edited(book: Book, edits: Sequence[Edit]) -> Book:
    """Change a document's text; headings, lines of verse and apparatus move with it.

    Args:
        book: The document.
        edits: In order, not overlapping. Headings and lines of verse inside one are dropped with it.
    """
    if not edits:
        return book
    starts, ends = [edit.start for edit in edits], [edit.end for edit in edits]
    moves = [0, *accumulate(len(edit.instead) - (edit.end - edit.start) for edit in edits)]

    def moved(at: int) -> int:
        before = bisect_right(starts, at)
        if before and at < ends[before - 1]:
            before, at = before - 1, starts[before - 1]
        return at + moves[before]

    def stays(start: int, end: int) -> bool:
        before = bisect_right(starts, start)
        return not (before and end <= ends[before - 1] and start < ends[before - 1])

    pieces, last = [], 0
    for edit in edits:
        pieces += [book.text[last : edit.start], edit.instead]
        last = edit.end
    apart = [
        Apparatus(edit.kind, words, moved(edit.start))
        for edit in edits
        if edit.kind and (words := book.text[edit.start : edit.end].strip())
    ]
    apparatus = [replace(item, at=moved(item.at)) for item in book.apparatus] + apart
    return replace(
        book,
        text="".join([*pieces, book.text[last:]]),
        headings=None if book.headings is None else tuple(
            replace(heading, start=moved(heading.start), end=moved(heading.end))
            for heading in book.headings
            if stays(heading.start, heading.end)
        ),
        lines=None if book.lines is None else tuple(
            VerseLine(moved(line.start), moved(line.end), line.number)
            for line in book.lines
            if stays(line.start, line.end)
        ),
        apparatus=tuple(sorted(apparatus, key=lambda item: item.at)),
    )  # fmt: skip
