"""Read PDF, which marks nothing: it is lines on pages.

Running heads, page numbers and hyphens at line ends are taken out, and the structure is found in the text. A scan without a
text layer is refused.
"""

from __future__ import annotations

import io
import logging
import re
import unicodedata
from collections import Counter

from stilnovo.errors import InputError, needs, reported
from stilnovo.library.names import Names, direct_name
from stilnovo.library.text_builder import Book

_MOST_PAGES = 10_000
#: Fewer letters a page than this, on average, are page numbers on a scan.
_LETTERS_A_PAGE = 20


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", line.strip())


def parse(data: bytes, name: str) -> Book:
    """Read a PDF with a text layer.

    Raises:
        InputError: damaged, locked by a password, or a scan without text.
        MissingExtra: pypdf is not installed.
    """
    with needs("pypdf", "documents"):
        from pypdf import PdfReader
        from pypdf.errors import FileNotDecryptedError
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it mends on the way is no news
    locked = reported(f"{name} is locked by a password.", "Take a copy without one.", errors=FileNotDecryptedError)
    with reported(f"{name} is damaged.", "Take another copy."), locked:  # pypdf raises whatever the broken part makes
        reader = PdfReader(io.BytesIO(data))
        if len(reader.pages) > _MOST_PAGES:
            raise InputError(f"{name} has {len(reader.pages)} pages.", f"The limit is {_MOST_PAGES}.", "Split it.")
        pages = [(page.extract_text() or "").split("\n") for page in reader.pages]
        facts = reader.metadata
    letters = sum(char.isalpha() for lines in pages for line in lines for char in line)
    if letters < _LETTERS_A_PAGE * max(1, len(pages)):
        raise InputError(
            f"{name} has no text layer.",
            f"{letters} letters on {len(pages)} pages: these are images.",
            "Run it through OCR first (ocrmypdf -l ita), then add the result.",
        )
    # First and last lines that come back, numbers aside, on a third of the pages: running heads and page numbers.
    counts = Counter(_shape(line) for lines in pages for line in {*lines[:2], *lines[-2:]})
    repeated = {shape for shape, count in counts.items() if count >= max(3, len(pages) / 3)}
    bodies = []
    for lines in pages:
        edges = {0, 1, len(lines) - 2, len(lines) - 1}
        body = [line for i, line in enumerate(lines) if i not in edges or _shape(line) not in repeated]
        bodies.append("\n".join(line.rstrip() for line in body).strip("\n"))
    text = re.sub(r"(?<=[a-zà-ÿ])[-\u00ad]\n(?=[a-zà-ÿ])", "", "\n".join(bodies))
    title, author = (facts.title or "", facts.author or "") if facts else ("", "")
    if re.search(r"\.\w{2,5}$|^Microsoft|untitled", title, re.I):
        title = ""
    return Book(Names(title.strip(), direct_name(author)), unicodedata.normalize("NFC", text))
