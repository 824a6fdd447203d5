"""Read PDF, which marks nothing: it is lines on pages.

The words come from pypdf, their places from `page_lines`; `running_heads` tells what is not text, `reflow` makes
paragraphs and verses of lines, `hyphens` joins broken words. Sections come from the file's bookmarks, else from lines in
larger type, else they are found in the text. A scan without a text layer is refused, and so is what would take for ever.
"""

from __future__ import annotations

import io
import logging
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from stilnovo.errors import InputError, needs, reported
from stilnovo.reading import numerals
from stilnovo.reading.headings import compared
from stilnovo.reading.hyphens import Hyphens
from stilnovo.reading.names import Names, direct_name, from_file_name
from stilnovo.reading.pdf.page_lines import PageText, page_text, with_accents
from stilnovo.reading.pdf.reflow import Row, reflow
from stilnovo.reading.pdf.running_heads import apparatus, starts_note
from stilnovo.reading.plain import detection
from stilnovo.reading.text_builder import Book, HeadingMark, TextBuilder, VerseLine

_MOST_PAGES, _MOST_BOOKMARKS, _MOST_AGAIN = 10_000, 5000, 100
#: A file unpacks to this many times its size at most, or to that many bytes if it is small.
_UNPACKED, _FEWEST_BYTES = 25, 4_000_000
#: Fewer letters a page than this, on average, are page numbers on a scan.
_LETTERS_A_PAGE = 20
#: A page with less text than this beside large lines is a title page.
_TITLE_PAGE = 200
_NO_TITLE = re.compile(r"\.\w{2,5}\Z|\AMicrosoft|\Auntitled|\Asenza titolo|\Auntitled document", re.I)
_NO_AUTHOR = re.compile(r"anonymous|unknown|user|utente|admin(?:istrator)?", re.I)
_NO_SECTION = re.compile(
    r"(?:page|pagina|pag\.|p\.) ?\d+|.*\.(?:pdf|docx?|indd)|(?:front |back )?cover|(?:quarta di )?copertina", re.I
)


_SPACED = re.compile(r"(?<![^\W_])(?<!['’])[^\W\d_](?: [^\W\d_]){3,}(?![^\W_'’])")


def parse(data: bytes, name: str) -> Book:
    """Read a PDF with a text layer.

    Raises:
        InputError: damaged, locked by a password, a scan without text, or too much for a book.
        MissingExtra: pypdf is not installed.
    """
    with needs("pypdf", "documents"):
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, FileNotDecryptedError
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it mends on the way is no news
    locked = reported(
        f"{name} is locked by a password.", "Take a copy without one.", errors=(FileNotDecryptedError, DependencyError)
    )
    with reported(f"{name} is damaged.", "Take another copy."), locked:  # pypdf raises whatever the broken part makes
        reader = PdfReader(io.BytesIO(data))
        if len(reader.pages) > _MOST_PAGES:
            raise InputError(f"{name} has {len(reader.pages)} pages.", f"The limit is {_MOST_PAGES}.", "Split it.")
        pages = with_accents(_pages(reader, name, len(data)))
        names = _names(reader)
        bookmarks = list(_bookmarks(reader))
    letters = sum(char.isalpha() for page in pages for line in page.lines for char in line.text)
    if letters < _LETTERS_A_PAGE * max(1, len(pages)):
        raise InputError(
            f"{name} has no text layer.",
            f"{letters} letters on {len(pages)} pages: these are images.",
            "Run it through OCR first (ocrmypdf -l ita), then add the result.",
        )
    hint = from_file_name(PurePath(name).stem)
    kinds = apparatus([page.lines for page in pages], (names.title, names.author, hint.title, hint.author))
    rows = reflow([[line for i, line in enumerate(page.lines) if i not in kinds[n]] for n, page in enumerate(pages)])
    writer = TextBuilder()
    places = _write(writer, pages, kinds, rows)
    writer.heading_marks = _marks(writer.text, rows, places, bookmarks)
    if any(row.number is not None for row in rows):
        writer.lines = [
            VerseLine(start, end, row.number)
            for row, (start, end) in zip(rows, places, strict=True)
            if row.verse and end > start
        ]
    return writer.book(names)


def _pages(reader: Any, name: str, size: int) -> list[PageText]:
    """The lines of all pages. One that is listed again is read once, as often as no book lists any."""
    pages: list[PageText] = []
    known: dict[Any, PageText] = {}
    again = 0
    left = _FEWEST_BYTES + _UNPACKED * size
    for page in reader.pages:
        key = getattr(page.indirect_reference, "idnum", None)
        if key is None or key not in known:
            known[key] = page_text(page, left)
            left -= known[key].bytes
        else:
            again += 1
        if again > _MOST_AGAIN:
            raise InputError(f"{name} is refused: it lists the same pages again and again.", "", "Take another copy.")
        pages.append(known[key])
    return pages


def _names(reader: Any) -> Names:
    facts = reader.metadata
    title, author = (str(facts.title or "").strip(), str(facts.author or "").strip()) if facts else ("", "")
    title = "" if _NO_TITLE.search(title) else title
    return Names(title, "" if _NO_AUTHOR.fullmatch(author) else direct_name(author))


def _bookmarks(reader: Any) -> Iterator[tuple[str, int, float | None, int]]:
    """The file's own list of its sections: title, page, height on it, depth."""
    waiting: list[tuple[Any, int]] = [(entry, 1) for entry in reversed(reader.outline or [])]
    for _ in range(_MOST_BOOKMARKS):
        if not waiting:
            return
        entry, depth = waiting.pop()
        if isinstance(entry, list):
            waiting += [(inner, depth + 1) for inner in reversed(entry)]
            continue
        page, title = reader.get_destination_page_number(entry), " ".join(str(entry.title or "").split())
        if page is not None and page >= 0 and title and not _NO_SECTION.fullmatch(title):
            top = entry.top
            yield title, page, float(top) if isinstance(top, (int, float)) else None, depth


def _write(
    writer: TextBuilder, pages: Sequence[PageText], kinds: Sequence[dict[int, Any]], rows: Sequence[Row]
) -> list[tuple[int, int]]:
    """Append the text of all pages, and what is not text where it stood; returns where each row stands."""
    hyphens = Hyphens(row.line.text for row in rows)
    texts = [row.line.text for row in rows]
    for i, (_, after) in enumerate(pairwise(rows)):
        if after.gap == " " and (whole := hyphens.joined(texts[i], texts[i + 1])) is not None:
            texts[i], after.gap = whole, ""
    places: list[tuple[int, int]] = []
    body = iter(zip(rows, texts, strict=True))
    for number, page in enumerate(pages):
        notes: list[str] = []
        for i, line in enumerate(page.lines):
            kind = kinds[number].get(i)
            if kind == "note":
                if notes and not starts_note(line.text):
                    joined = hyphens.joined(notes[-1], line.text)
                    notes[-1] = f"{notes[-1]} {line.text}" if joined is None else joined + line.text
                else:
                    notes.append(line.text)
            elif kind is not None:
                writer.apart(kind, line.text)
            else:
                row, text = next(body)
                places.append(_put(writer, row, text))
        for note in notes:
            writer.apart("note", note.replace("\u00ad", ""))
        for words in page.sideways:
            writer.apart("other", words)
    return places


def _put(writer: TextBuilder, row: Row, text: str) -> tuple[int, int]:
    """Append a line's words, cut where the number of a note stood."""
    number = row.line.number if row.number is None else row.number
    if number is not None:
        writer.apart("line number", str(number))
    gap, start, done = row.gap, -1, 0
    for at, mark in (*row.line.notes, (len(text), "")):
        piece = _SPACED.sub(_closed, text[done : max(at, done)].replace("\u00ad", ""))
        piece = re.sub(r"\s+", " ", piece)
        if piece:
            where = writer.put(piece, gap)
            start, gap = (where if start < 0 else start), ""
        writer.apart("note", mark)
        done = max(at, done)
    return (start if start >= 0 else writer.length), writer.length


def _closed(spaced: re.Match[str]) -> str:
    """A word whose letters were set apart, as a word; single letters that are words, or the alphabet, stay apart."""
    letters = spaced.group()
    if not letters.isupper():
        letters = re.sub(r" (?=[^\W\d_a-zà-ÿ])", "  ", letters)  # a capital begins another word
    words = letters.split("  ")
    return " ".join(_word(word.split(" "), word) for word in words)


def _word(letters: Sequence[str], apart: str) -> str:
    alphabet = all(ord(b) - ord(a) == 1 for a, b in pairwise(letters))
    vowels = sum(letter.lower() in "aeioè" for letter in letters)
    return apart if len(letters) < 3 or alphabet or vowels * 3 > 2 * len(letters) else "".join(letters)


def _marks(
    text: str,
    rows: Sequence[Row],
    places: Sequence[tuple[int, int]],
    bookmarks: Sequence[tuple[str, int, float | None, int]],
) -> list[HeadingMark]:
    """Headings by bookmarks, or by larger type; none where the text shows more of them by itself."""
    detected = len(detection.find(text))
    listed = _listed(rows, places, bookmarks)
    if len(listed) >= 2 and len(listed) * 2 >= detected:
        return listed
    large = _large(rows, places)
    if len(large) >= 2 and len(large) * 5 >= detected * 4:
        return large
    numbered = _numbered(rows, places)
    return numbered if len(numbered) > max(2, detected) else []


def _numbered(rows: Sequence[Row], places: Sequence[tuple[int, int]]) -> list[HeadingMark]:
    """Headings that are a number alone on its line and count from one: the poems of a book, however short."""
    marks: list[HeadingMark] = []
    for row, (start, end) in zip(rows, places, strict=True):
        number = numerals.value(row.line.text.strip(" .")) if row.heading else None
        if number == len(marks) + 1:
            marks.append((start, end, 1, [row.line.text]))
        elif number is not None:
            return []
    return marks


def _listed(
    rows: Sequence[Row],
    places: Sequence[tuple[int, int]],
    bookmarks: Sequence[tuple[str, int, float | None, int]],
) -> list[HeadingMark]:
    """Find each bookmark's title in print on its page; where it is not printed, its section begins without a heading."""
    pages: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        pages[row.page].append(i)
    numbers = sorted(pages)
    marks: list[HeadingMark] = []
    end = 0
    for title, page, top, depth in bookmarks:
        later = numbers[bisect_left(numbers, page) :]
        here = [i for i in pages[later[0]] if places[i][0] >= end] if later else []
        if not here:
            continue
        span = _printed(rows, here[:200], compared(title))
        if span:
            start, end = places[span[0]][0], places[span[-1]][1]
            marks.append((start, end, depth, [rows[i].line.text for i in span]))
            continue
        below = [i for i in here if top is not None and later[0] == page and rows[i].line.y <= top + 2]
        start = end = places[(below or here)[0]][0]
        if not marks or marks[-1][0] < start:
            marks.append((start, start, depth, [title]))
    return marks


def _printed(rows: Sequence[Row], here: Sequence[int], title: str) -> list[int]:
    """The lines in which a title is printed: those with just its words, or a heading that is its beginning or end."""
    keys = [compared(rows[i].line.text) for i in here]
    for n, key in enumerate(keys):
        joined = key
        for length in range(1, 4):
            if joined and joined == title:
                return list(here[n : n + length])
            joined = f"{joined} {keys[n + length]}" if n + length < len(keys) else ""
    for i, key in zip(here, keys, strict=True):
        if rows[i].heading and len(key) > 2 and (title.endswith(key) or title.startswith(key)):
            return [i]
    return []


def _large(rows: Sequence[Row], places: Sequence[tuple[int, int]]) -> list[HeadingMark]:
    """Headings in larger type, the largest outermost; lines of a title page are none."""
    text: dict[int, int] = defaultdict(int)
    for row in rows:
        text[row.page] += 0 if row.heading else len(row.line.text)
    groups: list[list[int]] = []
    for i, row in enumerate(rows):
        if not row.large:
            continue
        if groups and groups[-1][-1] == i - 1 and row.gap == "\n":
            groups[-1].append(i)
        else:
            groups.append([i])
    groups = [group for group in groups if text[rows[group[0]].page] > _TITLE_PAGE or rows[group[0]].page > 2]
    sizes = sorted({round(rows[group[0]].line.size) for group in groups}, reverse=True)
    return [
        (
            places[group[0]][0],
            places[group[-1]][1],
            sizes.index(round(rows[group[0]].line.size)) + 1,
            [rows[i].line.text for i in group],
        )
        for group in groups
    ]
