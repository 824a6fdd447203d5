"""Numbers of notes that only their place tells: set high, or small, behind a word.

A measure (m², km²) and an ordinal look alike, so what stands before decides.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"[\[(]?(?:\d{1,3}|\*{1,3}|[†‡§])[\])]?")
# A word that is no unit of measure, or a mark that ends one.
_BEFORE = re.compile(r"(?:[^\W\d_]{3,}|[.,;:!?»”’\"')\]…])\s*\Z")


def is_note_mark(mark: str, before: str) -> bool:
    """Whether a mark that is set high or small, behind the words `before`, is the number of a note."""
    return bool(_MARK.fullmatch(mark) and _BEFORE.search(before[-40:]))
