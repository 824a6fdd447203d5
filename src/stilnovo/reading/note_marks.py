"""Numbers of notes that only their place tells: set high, or small, behind a word.

A measure (m², km²) and an ordinal look alike, so what stands before decides.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"[\[(]?(?:\d{1,3}|[*†‡§]{1,3})[\])]?")
# A word, or a mark that ends one.
_BEFORE = re.compile(r"(?:(?P<word>[^\W\d_]{2,})|[.,;:!?»”’\"')\]…(\[—–-])\s*\Z")
_UNITS = frozenset(["mm", "cm", "dm", "dam", "hm", "km", "mq", "mc", "kg", "sec", "cmq", "kmq"])


def is_note_mark(mark: str, before: str) -> bool:
    """Whether a mark that is set high or small, behind the words `before`, is the number of a note."""
    match = _BEFORE.search(before[-40:]) if _MARK.fullmatch(mark) else None
    return match is not None and (match.group("word") or "").lower() not in _UNITS
