"""Find in a page or a document what its marks leave untold, as it is told in plain text.

HTML, EPUB, Word and Markdown mark headings, notes and page numbers if they mark anything; who speaks in a play, which line
is a letter's date, which number counts verses, and which title only comes again above each chapter, they seldom say.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from stilnovo.reading.headings import Heading, compared
from stilnovo.reading.plain import drama, letters, page_apparatus, stanzas
from stilnovo.reading.text_builder import Book, Span, edited, set_apart


def complete(book: Book) -> Book:
    """Find in a page or a document what its marks leave untold: notes, letters by their dates, speakers, numbers of verses."""
    book = edited(book, page_apparatus.typed(book.text))
    if book.headings:
        book = _without_running_titles(book)
    if book.headings:
        book = replace(book, headings=letters.in_sections(book.text, book.headings))
    return stanzas.number(drama.arrange(book), spaced=False)


def _without_running_titles(book: Book) -> Book:
    """Keep apart a title that is printed again above each chapter of what it names: it is a running head there.

    The work's own title is no section of it, even where it stands above the first chapter.
    """
    open_: list[tuple[Heading, str]] = []
    repeated: list[Span] = []
    headings = book.headings or ()
    for heading, below in pairwise(headings):
        words = compared(book.text[heading.start : heading.end])
        while open_ and open_[-1][0].level > heading.level:
            open_.pop()
        within = below.level > heading.level and not book.text[heading.end : below.start].strip()
        if within and words and open_ and open_[-1] == (open_[-1][0], words) and open_[-1][0].level == heading.level:
            repeated.append((heading.start, below.start, "running head"))
            continue
        open_ = [*(pair for pair in open_ if pair[0].level < heading.level), (heading, words)]
    if not repeated:
        return book
    book = set_apart(book, repeated)
    first, *others = book.headings or ()
    own = compared(book.text[first.start : first.end]) == compared(book.names.title)
    alone = own and others and all(heading.level > first.level for heading in others)
    return replace(book, headings=tuple(others)) if alone else book
