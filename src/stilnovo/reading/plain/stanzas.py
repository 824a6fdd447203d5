"""Find the numbers that an edition prints beside verses (every fifth line) and above stanzas, and keep them apart.

A number in the margin is one when it says which line it stands at, counted from the last: that no other figure does.
A numeral between stanzas counts them up from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from stilnovo.reading import numerals
from stilnovo.reading.sections import Section, split
from stilnovo.reading.text_builder import Book, Edit, VerseLine, edited
from stilnovo.reading.verse import is_verse, verse_spans

_RIGHT = re.compile(r"(?<=\S)(?:[ ]{2,}|[ ]*\t[ \t]*)[(\[]?(\d{1,5})[)\]]?[ \t]*$", re.M)
_LEFT = re.compile(r"^[ \t]*[(\[]?(\d{1,5})[)\].]?(?:[ ]{2,}|[ ]*\t[ \t]*)(?=\S)|^[ \t]*(\d{1,5})[ ](?=[^\W\d_])", re.M)
# Where white space is not that of the print, as in pages and documents.
_RIGHT_BLANK = re.compile(r"(?<=[^\s\d(\[])[ \t]*[(\[]?(\d{1,5})[)\]]?[ \t]*$", re.M)
_NUMERAL = re.compile(r"^[ \t]*[\[(*—–-]*[ \t]*([IVXLC]{1,8}|\d{1,3})[ \t]*[.\])*—–-]*[ \t]*$", re.M)
#: Lines of verse are shorter on the average.
_LINE = 110


def number(book: Book, spaced: bool = True) -> Book:
    """Keep margin numbers and stanzas' numerals apart; verses that have a number of their own keep it.

    Args:
        book: A text with its headings; where it has lines of verse, none of them is numbered.
        spaced: Whether its white space is that of the print. Where it is not, only verse can have numbers.
    """
    # Whether a section is verse is asked only where it has numbers.
    sections = split(book.text, book.headings, book.lines or ())
    margins = [margin for section in sections for margin in _margins(book.text, section, spaced)]
    if margins:
        book = _with_lines(edited(book, [edit for edit, _ in margins]), margins)
        sections = split(book.text, book.headings, book.lines or ())
    return edited(book, [edit for section in sections for edit in _numerals(book.text, section)])


def _margins(text: str, section: Section, spaced: bool) -> list[tuple[Edit, int]]:
    """Numbers in the margin of a section, each with what it says."""
    body = text[section.body : section.end]
    if (body.count("\n") + 1) * _LINE < len(body):
        return []
    for pattern in (_RIGHT if spaced else _RIGHT_BLANK, _LEFT):
        matches = [(match, int(match[match.lastindex or 1])) for match in pattern.finditer(body)]
        if not matches or len(matches) > 100_000:
            continue
        lines = [match.start() for match in re.finditer(r"^(?=[^\n]*[^\W_])", body, re.M)]
        at = list(_line_numbers(lines, [match.start() for match, _ in matches]))
        steps = [b - a == j - i for (a, i), (b, j) in pairwise(zip([n for _, n in matches], at, strict=True))]
        counts = (steps and sum(steps) >= 0.7 * len(steps)) or (
            len(matches) == 1 and matches[0][1] == at[0] + 1 and len(lines) >= 4
        )
        if counts and (spaced or section.verse or is_verse(pattern.sub("", body))):
            return [
                (Edit(section.body + match.start(), section.body + match.end(), "line number"), said)
                for match, said in matches
            ]
    return []


def _line_numbers(lines: Sequence[int], offsets: Sequence[int]) -> Iterator[int]:
    """Index of the line in which each offset is; both in order."""
    i = 0
    for offset in offsets:
        while i + 1 < len(lines) and lines[i + 1] <= offset:
            i += 1
        yield i


def _with_lines(book: Book, margins: Sequence[tuple[Edit, int]]) -> Book:
    """All lines of verse of a text whose margins had numbers, each with its own; those that the source marks stay its lines."""
    removed, said = 0, {}
    for edit, n in margins:
        said[edit.start - removed] = n
        removed += edit.end - edit.start
    places = sorted(said)
    lines = book.lines or tuple(
        VerseLine(start, end, None)
        for section in split(book.text, book.headings)
        for start, end in (verse_spans(book.text, section.body, section.end) if section.verse else ())
    )
    numbered, i = [], 0
    for line in lines:
        while i < len(places) and places[i] < line.start:
            i += 1
        here = i < len(places) and places[i] <= line.end
        numbered.append(line._replace(number=said[places[i]]) if here else line)
    return replace(book, lines=tuple(numbered))


def _numerals(text: str, section: Section) -> list[Edit]:
    """Numerals that stand alone between the stanzas of a poem."""
    body = text[section.body : section.end]
    if (body.count("\n") + 1) * _LINE < len(body):
        return []
    matches = [match for match in _NUMERAL.finditer(body) if _lone(body, match.start(), match.end())]
    numbers = [int(match[1]) if match[1].isdigit() else numerals.value(match[1]) or 0 for match in matches]
    rising = sum(b == a + 1 for a, b in pairwise(numbers))
    if len(matches) < 2 or rising < 0.8 * (len(matches) - 1):
        return []
    if not section.verse and not is_verse(body) and not is_verse(_NUMERAL.sub("", body)):
        return []
    return [_between(text, section.body + match.start(), section.body + match.end()) for match in matches]


def _lone(body: str, start: int, end: int) -> bool:
    before = body[:start] if start < 100 else body[start - 100 : start]
    after = body[end : end + 100]
    return (
        not before.strip() or before.rstrip(" \t").endswith("\n\n") or before.strip(" \t") == "\n"
    ) and after.startswith("\n")


def _between(text: str, start: int, end: int) -> Edit:
    """A numeral with the blank lines around it; one blank line is left between the stanzas."""
    left, right = start, end
    while left > 0 and text[left - 1] in " \t\n":
        left -= 1
    while right < len(text) and text[right] in " \t\n":
        right += 1
    line = text.rfind("\n", end, right) + 1  # the indent of the next verse stays
    return Edit(left, line or right, "line number", "\n\n")
