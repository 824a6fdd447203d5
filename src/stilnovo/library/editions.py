"""Find the stored work that a document is another version of: the same file corrected, or the same work read anew.

A name alone does not say so: two novels may both lie in `testo.txt`, and two volumes bear one title. So the name of the
file, or author and title, must agree, and most of the stored text must stand in the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import fold, words

#: Of the runs of words of the stored text, how many must stand in the new one: less where the file has the same name.
#: Two of 40 novels share 1.4 % at most; two transcriptions of one novel 96 %; a text with one word in twelve changed keeps
#: 71 %, with one in eight 60 %.
SAME_FILE, SAME_NAMES = 0.5, 0.7
#: Words in a run; single words where both texts have fewer than `SHORT`.
RUN, SHORT = 4, 60
# Two short texts have many single words in common.
_SHORT_SHARE = 0.77


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    listed = words(text)
    return set(zip(*(islice(listed, start, None) for start in range(length)), strict=False))


def likeness(stored: str, text: str) -> float:
    """How much of the stored text stands in another text, from 0 to 1."""
    brief = all(len(words(part[: SHORT * 40])) < SHORT for part in (stored, text))
    runs = _runs(stored, 1 if brief else RUN)
    share = len(runs & _runs(text, 1 if brief else RUN)) / len(runs) if runs else 0.0
    return share * _SHORT_SHARE if brief else share


def namesakes(db: Any, names: Names, source: str = "") -> dict[int, float]:
    """Works of this title and author, as far as both are known, or from a file of this name.

    Returns:
        Their ids, and how much of each must stand in a text for it to be the same work.
    """
    author, title = fold(names.author), fold(names.title)
    rows: Sequence[tuple[int, str, str, str]] = db.execute("SELECT id, author, title, source FROM works").fetchall()

    def named_so(by: str, called: str) -> bool:
        return bool(title) and fold(called) == title and (not author or not by or fold(by) == author)

    return {
        work: SAME_FILE if source and file == source else SAME_NAMES
        for work, by, called, file in rows
        if (source and file == source) or named_so(by, called)
    }


def names_of(document: Book, stored: Names, given: Names | None) -> Names:
    """The names under which a document replaces a stored work: those that a person gave win, now before then.

    Args:
        document: The new state.
        stored: The names of the stored work.
        given: Those of them that a person gave; None: not recorded, so that it may be each of them.
    """
    return document.given.over(stored if given is None else given).over(document.names).over(stored)
