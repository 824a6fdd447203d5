"""Find the stored work that a document is another state of: the same file mended, or the same work read anew.

A name alone does not say so: two novels may both lie in `testo.txt`, and two volumes bear one title. So the name of the
file, or author and title, must agree, and most of the stored text must stand in the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from stilnovo.library.names import Names
from stilnovo.library.text_builder import Book
from stilnovo.text.italian import fold, words

#: Of the runs of words of the stored text, how many must stand in the new one. Different works by one author share
#: about 3 %, a text whose every twelfth word was mended keeps 70 %.
SAME_WORK = 0.5
#: Words in a run; single words where the stored text has fewer than `SHORT`.
RUN, SHORT = 4, 40
#: In a short text single words decide, and two texts have many of them in common.
SAME_SHORT_WORK = 0.65


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    listed = words(text)
    return set(zip(*(islice(listed, start, None) for start in range(length)), strict=False))


def likeness(stored: str, text: str) -> float:
    """How much of the stored text stands in another text, from 0 to 1; at `SAME_WORK` it is the same work."""
    brief = len(words(stored[: SHORT * 40])) < SHORT
    runs = _runs(stored, 1 if brief else RUN)
    share = len(runs & _runs(text, 1 if brief else RUN)) / len(runs) if runs else 0.0
    return share * SAME_WORK / SAME_SHORT_WORK if brief else share


def namesakes(db: Any, document: Book) -> list[int]:
    """Ids of the works that lie under the document's file name, or bear its author and title."""
    names = (fold(document.names.author), fold(document.names.title))
    rows: Sequence[tuple[int, str, str, str]] = db.execute("SELECT id, author, title, source FROM works").fetchall()
    return [
        work
        for work, author, title, source in rows
        if (document.source and source == document.source) or (names[1] and (fold(author), fold(title)) == names)
    ]


def names_of(document: Book, stored: Names, given: Names | None) -> Names:
    """The names under which a document replaces a stored work: those that a person gave win, now before then.

    Args:
        document: The new state.
        stored: The names of the stored work.
        given: Those of them that a person gave; None: not recorded, so that it may be each of them.
    """
    return document.given.over(stored if given is None else given).over(document.names).over(stored)
