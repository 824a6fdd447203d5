"""Read plain text: of any age and encoding, hard-wrapped, one paragraph a line, or one novel a line.

Nothing in it is marked, so what the author wrote is told from what the book and its printers added by rules, each in the
file of its kind (`front_pages`, `page_apparatus`, `drama`, `stanzas`). Marks of italics (_so_) and entities (&egrave;) are
spellings and no words: they are resolved before anything else, so that offsets are those of the text that is stored.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import replace

from stilnovo.reading.decoding import decoded
from stilnovo.reading.headings import PARTS
from stilnovo.reading.names import Names
from stilnovo.reading.plain import detection, drama, front_pages, page_apparatus, stanzas
from stilnovo.reading.text_builder import Book, edited, set_apart

_ENTITY = re.compile(r"&(?:#\d{2,6}|#[xX][0-9a-fA-F]{2,5}|[A-Za-z]{2,8}[1-4]?);")
_ITALIC = re.compile(r"(?<![^\W_])_(?=[^\s_])([^_]{1,1500}?)(?<=[^\s_])_(?![^\W_])")
_BOLD = re.compile(r"(?<![\w=])=(?=[^\s=])([^=\n]{1,200}?)(?<=[^\s=])=(?![\w=])")


def parse(data: bytes, name: str) -> Book:
    """Read a plain text; what it holds besides the author's words is still in it (`arrange`).

    Raises:
        InputError: binary, empty, or in an encoding that cannot be told.
    """
    text, warnings = decoded(data, name)
    if "&" in text:
        text = unicodedata.normalize("NFC", _ENTITY.sub(lambda match: html.unescape(match.group()), text))
    if "\u00ad" in text:
        text = re.sub("\u00ad(?![ \t]*\n)", "", text)
    if "_" in text:
        text = _ITALIC.sub(r"\1", text)
    if "=" in text:
        text = _BOLD.sub(r"\1", text)
    return Book(Names(), text, warnings=warnings)


def arrange(book: Book, names: Names) -> Book:
    """Keep apart what is not the author's running text, and find the headings, of a plain text."""
    book = set_apart(book, front_pages.contents(book.text))
    if page := front_pages.title_page(book.text, names):
        book = set_apart(book, [page])
    book = edited(book, page_apparatus.edits(book.text))
    book = replace(book, headings=tuple(detection.find(book.text)))
    return stanzas.number(_without_title(drama.arrange(book)))


def _without_title(book: Book) -> Book:
    """Keep a title apart that stands above the first chapter and above nothing else: it is the work's, and no part of it."""
    headings = book.headings or ()
    if len(headings) < 2 or headings[0].kind != "nome":
        return book
    title, first = headings[:2]
    if first.number != 1 and first.kind != "atto":
        return book
    others = any(heading.kind == "nome" and heading.level <= title.level for heading in headings[1:])
    if (
        others
        or (title.level >= first.level and first.kind not in PARTS)
        or re.search(r"\w", book.text[: title.start] + book.text[title.end : first.start])
    ):
        return book
    return set_apart(book, [(title.start, title.end, "title page")])
