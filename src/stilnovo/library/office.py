"""Word and PDF to a book.

Word marks headings by style. A PDF marks nothing: it is lines on pages, so running heads, page numbers and hyphens at
line ends are taken out, and the structure is found in the text. A scan without a text layer is refused.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter

from stilnovo.errors import InputError, MissingExtra
from stilnovo.library.epub import open_archive
from stilnovo.library.names import Names, direct_name
from stilnovo.library.text_builder import Book, TextBuilder, headings

_STYLE = re.compile(r"(?:heading|titolo)\s*(\d)", re.I)
_MOST_PAGES = 10_000
#: Fewer letters a page than this, on average, are page numbers on a scan.
_LETTERS_A_PAGE = 20


def parse_word(data: bytes, name: str) -> Book:
    """Read a Word document (.docx).

    Raises:
        InputError: damaged, without words, or too large once unpacked.
        MissingExtra: python-docx is not installed.
    """
    try:
        from docx import Document
    except ImportError as error:
        raise MissingExtra("python-docx", "documents") from error
    open_archive(data, name)
    try:
        document = Document(io.BytesIO(data))
        paragraphs = [(p.text.strip(), p.style.name if p.style else "") for p in document.paragraphs]
        properties = document.core_properties
        names = Names(properties.title or "", direct_name(properties.author or ""))
    except Exception as error:  # the library raises whatever the broken part makes
        raise InputError(f"{name} is damaged.", str(error)[:200], "Save it anew, or as .txt.") from error
    writer = TextBuilder()
    for text, style in paragraphs:
        level = _STYLE.match(style or "")
        if text and level:
            writer.heading(text.split("\n"), int(level.group(1)))
        elif text:
            writer.put(text, "\n\n")
    if not writer.text.strip():
        raise InputError(f"{name} is empty.", "The document holds no words.", "Choose another file.")
    if names.author in ("python-docx", "Unknown"):
        names = Names(names.title)
    return Book(names, writer.text, headings(writer.marks))


def _edges(pages: list[list[str]]) -> set[str]:
    """First and last lines that come back, numbers aside, on a third of the pages: running heads and page numbers."""
    counts = Counter(_shape(line) for lines in pages for line in {*lines[:2], *lines[-2:]})
    return {shape for shape, count in counts.items() if count >= max(3, len(pages) / 3)}


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", line.strip())


def parse_pdf(data: bytes, name: str) -> Book:
    """Read a PDF with a text layer.

    Raises:
        InputError: damaged, locked by a password, or a scan without text.
        MissingExtra: pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import FileNotDecryptedError
    except ImportError as error:
        raise MissingExtra("pypdf", "documents") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it mends on the way is no news
    try:
        reader = PdfReader(io.BytesIO(data))
        if len(reader.pages) > _MOST_PAGES:
            raise InputError(f"{name} has {len(reader.pages)} pages.", f"The limit is {_MOST_PAGES}.", "Split it.")
        pages = [(page.extract_text() or "").split("\n") for page in reader.pages]
        facts = reader.metadata
    except InputError:
        raise
    except FileNotDecryptedError as error:
        raise InputError(f"{name} is locked by a password.", "", "Take a copy without one.") from error
    except Exception as error:  # the library raises whatever the broken part makes
        raise InputError(f"{name} is damaged.", str(error)[:200], "Take another copy.") from error
    letters = sum(char.isalpha() for lines in pages for line in lines for char in line)
    if letters < _LETTERS_A_PAGE * max(1, len(pages)):
        raise InputError(
            f"{name} has no text layer.",
            f"{letters} letters on {len(pages)} pages: these are images.",
            "Run it through OCR first (ocrmypdf -l ita), then add the result.",
        )
    repeated = _edges(pages)
    kept = []
    for lines in pages:
        last = len(lines) - 2
        body = [line for i, line in enumerate(lines) if not ((i < 2 or i >= last) and _shape(line) in repeated)]
        kept.append("\n".join(line.rstrip() for line in body).strip("\n"))
    text = re.sub(r"(?<=[a-zà-ÿ])[-\u00ad]\n(?=[a-zà-ÿ])", "", "\n".join(kept))
    writer = TextBuilder()
    writer.put(text, "")
    title, author = (facts.title or "", facts.author or "") if facts else ("", "")
    if re.search(r"\.\w{2,5}$|^Microsoft|untitled", title, re.I):
        title = ""
    return Book(Names(title.strip(), direct_name(author)), writer.text)
