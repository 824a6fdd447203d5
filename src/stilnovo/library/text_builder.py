"""Shared parts of all readers: bytes decoded to text, running text built with its headings, the document itself."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from stilnovo.errors import InputError
from stilnovo.library.headings import CHAPTERS, PARTS, Heading, label_for, number_of
from stilnovo.library.names import Names

_KIND = re.compile(rf"\s*({'|'.join(re.escape(kind) for kind in (*PARTS, *CHAPTERS))})\b", re.I)
_MAGIC = {b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive (EPUB, Word)", b"\x1f\x8b": "gzip", b"{\\rtf": "RTF"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\x80-\x9f]")


@dataclass(frozen=True)
class Book:
    """A document: names, running text, source file, headings with offsets (None: detect them in the text)."""

    names: Names
    text: str
    source: str = ""
    headings: tuple[Heading, ...] | None = None


#: A heading marked in the source format: its start and end, depth (1 is the outermost) and lines.
Mark = tuple[int, int, int, Sequence[str]]


def tag_of(element: Any) -> str:
    """Name of an XML or HTML element without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


class TextBuilder:
    """Collect blocks of text and marks of headings; everything is NFC, as offsets must not move afterwards."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.marks: list[Mark] = []

    def put(self, text: str, gap: str) -> int:
        """Append a block with `gap` before it; returns where the block starts."""
        text = unicodedata.normalize("NFC", text)
        self.pieces.append((gap if self.length else "") + text)
        self.length += len(self.pieces[-1])
        return self.length - len(text)

    def heading(self, lines: Sequence[str], depth: int) -> None:
        """Append a heading of one or several lines."""
        start = self.put("\n".join(lines), "\n\n\n")
        self.marks.append((start, self.length, depth, lines))

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def book(self, names: Names) -> Book:
        """The document, with the headings that were marked."""
        return Book(names, self.text, headings=_headings(self.marks))


def _headings(marks: Sequence[Mark]) -> tuple[Heading, ...] | None:
    """Convert marks to headings; None when there are fewer than two, too few to give a structure.

    What others stand below is a part. A lone outermost heading before all others is the work's title, and no section.
    """
    depths = [depth for _, _, depth, _ in marks]
    if len(marks) > 1 and depths[0] < min(depths[1:]):
        marks, depths = marks[1:], depths[1:]
    if len(marks) < 2:
        return None
    below = zip(depths, [*depths[1:], 0], strict=True)
    return tuple(_heading(mark, after > depth) for mark, (depth, after) in zip(marks, below, strict=True))


def _heading(mark: Mark, holds_others: bool) -> Heading:
    start, end, _, lines = mark
    number, title = number_of(lines)
    worded = _KIND.match(lines[0])
    kind = worded.group(1).lower().replace("cap.", "capitolo") if worded else "parte" if holds_others else "capitolo"
    level = 1 if holds_others or kind in PARTS else 2
    whole = " ".join(lines)
    if number is None or (level == 1 and not worded):
        return Heading(start, end, level, kind, number, whole if len(whole) <= 120 else lines[0][:120])
    return Heading(start, end, level, kind, number, label_for(kind, number), title)


def cut(book: Book, start: int, end: int) -> Book:
    """Cut a document to a span, with its headings' offsets adjusted."""
    if (start, end) == (0, len(book.text)):
        return book
    if book.headings is None:
        return replace(book, text=book.text[start:end])
    inside = (heading for heading in book.headings if start <= heading.start and heading.end <= end)
    moved = tuple(replace(heading, start=heading.start - start, end=heading.end - start) for heading in inside)
    return replace(book, text=book.text[start:end], headings=moved)


def decode(data: bytes, name: str) -> str:
    """Decode bytes to text with `\\n` line ends, NFC, no byte-order mark.

    Raises:
        InputError: binary, empty, or UTF-8 with stray bytes (a damaged file, which must not be read as Latin-1).
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if data.startswith(tuple(_MAGIC)) or (b"\x00" in data and not utf16):
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "binary data")
        raise InputError(f"{name} is not plain text.", f"It is {kind}.", "Save it as plain text (.txt) and add that.")
    text = data.decode("utf-16", errors="replace") if utf16 else _decode_8_bit(data, name)
    text = (
        text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x85", "\n")
    )
    if not text.strip():
        raise InputError(f"{name} is empty.", "It holds no text.", "Choose another file.")
    strange = len(_CONTROL.findall(text))
    if strange * 200 > len(text):
        raise InputError(
            f"{name} is not plain text.", f"It holds {strange} control characters.", "Save it as UTF-8 text."
        )
    return unicodedata.normalize("NFC", text)


def _decode_8_bit(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        pairs = len(re.findall(rb"[\xc3\xe2][\x80-\xbf]", data))
        if pairs * 2 > sum(byte >= 0x80 for byte in data) * 0.8:
            raise InputError(
                f"{name} is damaged: it is UTF-8 with bytes that do not belong.",
                f"Byte 0x{data[error.start]:02x} at offset {error.start}.",
                "Save it again as UTF-8, or take another copy.",
            ) from error
    with suppress(UnicodeDecodeError):
        if any(0x80 <= byte <= 0x9F for byte in set(data)):
            return data.decode("cp1252")
    return data.decode("latin-1")
