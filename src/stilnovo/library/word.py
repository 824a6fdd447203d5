"""Read Word documents, in which headings are marked by style."""

from __future__ import annotations

import io
import re

from stilnovo.errors import needs, reported
from stilnovo.library.epub import open_archive
from stilnovo.library.names import Names, direct_name
from stilnovo.library.text_builder import Book, TextBuilder

_STYLE = re.compile(r"(?:heading|titolo)\s*(\d)", re.I)


def parse(data: bytes, name: str) -> Book:
    """Read a Word document (.docx).

    Raises:
        InputError: damaged, or too large once unpacked.
        MissingExtra: python-docx is not installed.
    """
    with needs("python-docx", "documents"):
        from docx import Document
    open_archive(data, name)
    with reported(
        f"{name} is damaged.", "Save it anew, or as .txt."
    ):  # the library raises whatever the broken part makes
        document = Document(io.BytesIO(data))
        paragraphs = [(p.text.strip(), p.style.name if p.style else "") for p in document.paragraphs]
        properties = document.core_properties
        author = properties.author or ""
        names = Names(properties.title or "", "" if author in ("python-docx", "Unknown") else direct_name(author))
    writer = TextBuilder()
    for text, style in paragraphs:
        level = _STYLE.match(style or "")
        if text and level:
            writer.heading(text.split("\n"), int(level.group(1)))
        elif text:
            writer.put(text, "\n\n")
    return writer.book(names)
