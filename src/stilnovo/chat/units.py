"""What may be quoted: whole sentences, whole verses, clauses of very long sentences; speeches are not torn open."""

from __future__ import annotations

import re

from stilnovo.library.passages import verse_lines
from stilnovo.library.records import Passage
from stilnovo.text.italian import sentences

#: A quotation is hardly ever longer, in characters; a speech is kept whole up to the second figure.
LONGEST, SPEECH, SHORTEST = 420, 240, 120
_CLAUSE = re.compile(r"[;:](?=\s)")


def _open_speech(sentence: str) -> bool:
    return sentence.count("«") > sentence.count("»") or sentence.count("“") > sentence.count("”")


def _clauses(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A very long sentence, cut after semicolons and colons into pieces of some length."""
    spans, left = [], start
    for cut in [*(match.end() for match in _CLAUSE.finditer(text, start, end)), end]:
        if cut - left >= SHORTEST or cut == end:
            piece = text[left:cut]
            spans.append((left + len(piece) - len(piece.lstrip()), left + len(piece.rstrip())))
            left = cut
    return [(first, last) for first, last in spans if first < last]


def _in_verse(text: str) -> list[tuple[int, int]]:
    """Sentences widened to whole lines; those that share a line are one."""
    lines = verse_lines(text, 0, len(text))
    spans: list[tuple[int, int]] = []
    for start, end in sentences(text):
        touched = [line for line in lines if line[0] < end and start < line[1]]
        if not touched:
            continue
        first, last = touched[0][0], touched[-1][1]
        if spans and first < spans[-1][1]:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def units(passage: Passage) -> list[tuple[int, int]]:
    """Spans of `passage.text` that may be quoted, in order."""
    text = passage.text
    if passage.section.verse:
        return _in_verse(text)
    spans: list[tuple[int, int]] = []
    for start, end in sentences(text):
        if spans and end - spans[-1][0] <= SPEECH and _open_speech(text[slice(*spans[-1])]):
            spans[-1] = (spans[-1][0], end)
        elif end - start <= LONGEST:
            spans.append((start, end))
        else:
            spans += _clauses(text, start, end)
    return spans
