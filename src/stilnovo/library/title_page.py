"""Tell the headings of a title page from those of sections.

Web editions print title, author, place and publisher as headings, one under the other: `<h1>CYRANO</h1><h2>Edmond
Rostand</h2>`. A heading is taken for a line of the title page when at the head of the text headings follow each other
without a word between them, or when it says the author's name; never when it names a chapter or a part.
"""

from __future__ import annotations

import re
from itertools import pairwise

from stilnovo.library.headings import CHAPTERS, KINDS, PARTS
from stilnovo.library.names import Names
from stilnovo.library.text_builder import Book, TextBuilder, set_apart
from stilnovo.text.italian import fold

#: A title page of more letters than this is none.
_LONGEST = 1800
_NAMED = re.compile(
    rf"\W*(?:{'|'.join(sorted({*PARTS, *CHAPTERS, *KINDS}))}|chapter|part|book|act|scene|scène|acte|chapitre|kapitel"
    r"|introduzione|introduction|prefazione|preface|préface|vorwort|prologo|prologue|proemio|personaggi|dramatis|avvertenza|dedica|epigra(?:fe|ph))\b"
    r"|\W*(?-i:[IVXLCDM]+|\d{1,3})\W*(?:[.:)—–-]|\Z)",
    re.I,
)


def _says_author(heading: str, names: Names) -> bool:
    surname = fold(names.author).split()[-1:]
    return bool(surname) and surname[0] in re.findall(r"\w+", fold(heading))


def without_title_page(builder: TextBuilder, names: Names) -> Book:
    """The document that a builder holds, its title page kept apart when its first headings are one."""
    marks, text = builder.marks, builder.text
    lines = 0
    for (_, end, _, words), (start, *_) in pairwise(marks):
        said = " ".join(words)
        if _NAMED.match(said) or (text[end:start].strip() and not (lines and _says_author(said, names))):
            break
        lines += 1
    # The last of them may be a part, which holds what follows.
    while (
        lines > 1 and marks[lines][2] > marks[lines - 1][2] and not _says_author(" ".join(marks[lines - 1][3]), names)
    ):
        lines -= 1
    end = marks[lines][0] if lines > 1 else 0
    if not end or end - marks[0][0] > _LONGEST:
        return builder.book(names)
    builder.marks = marks[lines:]
    return set_apart(builder.book(names), [(marks[0][0], end, "title page")])
