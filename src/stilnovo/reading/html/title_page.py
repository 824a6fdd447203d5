"""Tell the headings of a title page from those of sections.

Web editions print title, author, place and publisher as headings, one under the other: `<h1>CYRANO</h1><h2>Edmond
Rostand</h2>`. A heading is taken for a line of the title page when at the head of the text headings follow each other
without a word between them, or when it says the author's name; never when it names a chapter or a part.
"""

from __future__ import annotations

import re
from itertools import pairwise

from stilnovo.reading.headings import CHAPTERS, KINDS, PARTS
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book, TextBuilder, set_apart
from stilnovo.text.italian import fold

#: A title page that only its words tell has no more of them beside the title, and no longer line.
_WORDS, _LINE = 30, 80
#: A title page of more letters than this is none.
_LONGEST = 1800
_NAMED = re.compile(
    rf"\W*(?:{'|'.join(sorted({*PARTS, *CHAPTERS, *KINDS}))}|chapter|part|book|act|scene|scène|acte|chapitre|kapitel"
    r"|introduzione|introduction|prefazione|preface|préface|vorwort|prologo|prologue|proemio|personaggi|dramatis|avvertenza|dedica|epigra(?:fe|ph))\b"
    r"|\W*(?-i:(?!DI\b)(?:[IVX]+|[IVXLCDM]{2,}|\d{1,3}))\W*(?:[.:)—–-]|\Z)",
    re.I,
)


# Headings of those who made the file, before the title page.
_EDITION = re.compile(r"project gutenberg|\be-?(?:text|book) (?:prepared|produced)|distributed proofread", re.I)


def _says_author(heading: str, names: Names) -> bool:
    surname = fold(names.author).split()[-1:]
    return bool(surname) and surname[0] in re.findall(r"\w+", fold(heading))


def without_title_page(builder: TextBuilder, names: Names) -> Book:
    """The document that a builder holds, its title page kept apart when its first headings are one."""
    marks, text = builder.heading_marks, builder.text
    first = next((at for at, mark in enumerate(marks) if not _EDITION.search(" ".join(mark[3]))), 0)
    last = first
    for (_, end, _, words), (start, *_) in pairwise(marks[first:]):
        said = " ".join(words)
        if _NAMED.match(said) or (text[end:start].strip() and not (last > first and _says_author(said, names))):
            break
        last += 1
    # The last of them may be a part, which holds what follows.
    while (
        last > first and marks[last][2] > marks[last - 1][2] and not _says_author(" ".join(marks[last - 1][3]), names)
    ):
        last -= 1
    if last > first + 1 and marks[last][0] - marks[first][0] <= _LONGEST:
        start, end = marks[first][0], marks[last][0]
        builder.heading_marks = marks[:first] + marks[last:]
    else:
        start, end = 0, _names_alone(builder, names)
    return set_apart(builder.book(names), [(start, end, "title page")] if end else [])


def _names_alone(builder: TextBuilder, names: Names) -> int:
    """Where the first section begins, when what stands before it is no more than title, author and imprint; else 0."""
    marks = builder.heading_marks
    first = 1 if len(marks) > 2 and marks[0][2] < min(depth for _, _, depth, _ in marks[1:]) else 0
    if len(marks) - first < 2 or any(line.start < marks[first][0] for line in builder.lines):
        return 0
    before = builder.text[: marks[first][0]]
    return marks[first][0] if is_title_page(before, names) else 0


def is_title_page(text: str, names: Names) -> bool:
    """Whether a text is no more than the lines of a title page: it has the title and the author's name, and no sentence."""
    lines = [line for line in text.split("\n") if line.strip()]
    words, title = re.findall(r"\w+", fold(text)), re.findall(r"\w+", fold(names.title))
    short = len(words) <= _WORDS + len(title) and max(map(len, lines), default=0) <= _LINE
    return short and bool(title) and _says_author(text, names) and set(title) <= set(words)
