"""The lines of a PDF's page, each with its place, size and words.

pypdf puts the words together; here is what it does not say: where a line stands, how large it is set, which numbers in it are
set high and small (notes), what is printed sideways, and which of two columns a line is in, where a program wrote them
row by row. A page may be turned, so that places are measured along the direction in which most of it is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from stilnovo.errors import InputError
from stilnovo.reading.note_marks import is_note_mark
from stilnovo.reading.pdf.page_content import SOFT, make_plain
from stilnovo.text.italian import STOP_WORDS, fold

#: How narrow or wide letters are beside others, in any typeface: the sum says how full a line is.
_NARROW, _WIDE = frozenset("iljtfrI.,;:'’|!()[]- "), frozenset("mwMW—")
_LIGATURES = {0xFB00 + i: letters for i, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
_ACCENTS = {"`": "\u0300", "´": "\u0301", "ˆ": "\u0302", "˜": "\u0303", "¨": "\u0308", "¸": "\u0327"}
_ACCENT = re.compile(r"([`´ˆ˜¨¸])([aeiouAEIOUıncNCyY])")
_LOOSE = re.compile(r"[^\W\d_][`´¨][aeiouAEIOUı]")
#: An initial is this much larger than the lines beside it.
_INITIAL = 1.6
#: More characters or drawings than a page can have.
_MOST_CHARACTERS, _MOST_FORMS = 500_000, 20_000
_SHOW = (b"Tj", b"TJ", b"'", b'"')


@lru_cache(maxsize=4096)
def width(text: str) -> float:
    """About how wide a text is, in letters of middling width."""
    return sum(0.55 if c in _NARROW else 1.5 if c in _WIDE else 1.25 if c.isupper() else 1.0 for c in text)


class PageLine(NamedTuple):
    """A line: its words, its left end and base line in points (upwards), its size, whether it is bold.

    `notes` are the numbers of notes that stood in it, each with the offset in `text` before which it stood; `number` is the
    one in the margin beside it.
    """

    text: str
    x: float
    y: float
    size: float
    bold: bool = False
    notes: tuple[tuple[int, str], ...] = ()
    number: int | None = None


class _Fragment(NamedTuple):
    text: str
    x: float
    y: float
    size: float
    bold: bool


@dataclass
class PageText:
    """A page: its lines in reading order, and what is printed in another direction."""

    lines: list[PageLine]
    sideways: list[str] = field(default_factory=list)
    bytes: int = 0


def _product(tm: Any, cm: Any) -> tuple[float, ...]:
    a, b, c, d, e, f = (float(value) for value in tm)
    p, q, r, s, t, u = (float(value) for value in cm)
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def _turn(matrix: tuple[float, ...]) -> int:
    """Degrees by which text is turned, as pypdf counts them."""
    if abs(matrix[3]) > 1e-6:
        return 0 if matrix[3] > 0 else 180
    return 90 if matrix[1] > 0 else 270


def _placed(matrix: tuple[float, ...], turn: int) -> tuple[float, float]:
    x, y = matrix[4], matrix[5]
    return {0: (x, y), 180: (-x, -y), 90: (y, -x), 270: (-y, x)}[turn]


class _Extraction:
    """One reading of a page: fragments in one direction, perhaps on one side of `divide` only."""

    def __init__(self, turn: int = 0, divide: float | None = None, left: bool = True) -> None:
        self.turn, self.divide, self.left = turn, divide, left
        self.forms = self.length = 0
        self.emptied: list[tuple[Any, int, Any]] = []
        self.fragments: list[_Fragment] = []
        self.shown: list[tuple[int, float, float, int]] = []  # turn, x, y, bytes of each piece of text

    def before(self, operator: Any, operands: Any, cm: Any, tm: Any) -> None:
        """Note where a piece of text is shown; empty it if it is in the other column."""
        if operator == b"Do" and operands:
            self.forms += 1
            if self.forms > _MOST_FORMS or self.length > _MOST_CHARACTERS:
                operands[0] = "/no form"  # pypdf passes over one that it does not know
        if operator not in _SHOW or not operands:
            return
        matrix = _product(tm, cm)
        place = -1 if operator == b'"' else 0
        content = operands[place]
        length = (
            sum(len(p) for p in content if isinstance(p, (str, bytes))) if isinstance(content, list) else len(content)
        )
        self.shown.append((_turn(matrix), matrix[4], matrix[5], length))
        if self.divide is not None and (matrix[4] < self.divide - 1) != self.left:
            self.emptied.append((operands, place, content))
            operands[place] = type(content)() if isinstance(content, list) else b""

    def text(self, text: str, cm: Any, tm: Any, font: Any, size: Any) -> None:
        """Take a fragment as pypdf gives it."""
        self.length += len(text)
        if self.length > _MOST_CHARACTERS:
            return
        matrix = _product(tm, cm)
        x, y = _placed(matrix, self.turn)
        scale = (matrix[2] ** 2 + matrix[3] ** 2) ** 0.5
        name = str((font or {}).get("/BaseFont", ""))
        self.fragments.append(
            _Fragment(text, x, y, abs(float(size)) * scale, bool(re.search("bold|black|heavy", name, re.I)))
        )

    def read(self, page: Any) -> list[PageLine]:
        """Read a page."""
        page.extract_text(orientations=(self.turn,), visitor_operand_before=self.before, visitor_text=self.text)
        for operands, place, content in self.emptied:
            operands[place] = content
        if self.forms > _MOST_FORMS or self.length > _MOST_CHARACTERS:
            raise InputError(
                "A page is refused: it holds more than a page can.",
                f"{self.length:,} characters in {self.forms:,} drawings.",
                "Take another copy, or print it to a new PDF.",
            )
        lines: list[PageLine] = []
        row: list[_Fragment] = []
        for fragment in self.fragments:
            parts = fragment.text.split("\n")
            for i, part in enumerate(parts):
                if part:
                    row.append(fragment._replace(text=part.translate(_LIGATURES)))
                if i + 1 < len(parts):
                    lines += _lines(row)
                    row = []
        return lines + _lines(row)


def _lines(row: list[_Fragment]) -> list[PageLine]:
    """Make a line of its fragments; an initial before it is one of its own, as it may belong to a line above."""
    worded = [fragment for fragment in row if fragment.text.strip()]
    if not worded:
        return []
    main = max(worded, key=lambda fragment: len(fragment.text.strip()))
    initial = next((f for f in worded if f.size >= _INITIAL * main.size and len(f.text.strip()) <= 2), None)
    if initial is not None:
        at = row.index(initial)
        return [*_lines([initial]), *_lines(row[:at] + row[at + 1 :])]
    return _line(row, worded, main)


def _line(row: list[_Fragment], worded: list[_Fragment], main: _Fragment) -> list[PageLine]:
    """Join the words of a line, without the numbers of notes in it."""
    text = ""
    notes: list[tuple[int, str]] = []
    row = [fragment for fragment in row if fragment.text.strip() or fragment.size > 2 * SOFT * main.size]
    for before, fragment in zip([row[0], *row[:-1]], row, strict=True):
        if fragment.x < before.x - 1 and text[-1:].strip():
            text += " "  # it stands further left: pypdf sees no gap there
        elif _is_small_capitals(before, fragment, text):
            text, fragment = text.rstrip(), fragment._replace(text=fragment.text.lstrip())
        mark = fragment.text.strip()
        raised = fragment.y > main.y + 0.08 * main.size
        small = fragment.size < (0.86 if raised else 0.75) * main.size or fragment.y > main.y + 0.2 * main.size
        small = small and (raised or not text[-1:].isspace())  # far off on the line: the number of a verse
        if small and mark and fragment.y > main.y - 0.05 * main.size and is_note_mark(mark, text):
            notes.append((len(text.rstrip()), mark))
            text += fragment.text[len(fragment.text.rstrip()) :]
        else:
            if notes and re.match(r"[.,;:!?»”’)\]]", fragment.text):
                text = text.rstrip()
            # A note at the foot begins with its number, set high without a blank behind it.
            begins = small and not text.strip() and re.fullmatch(r"\d{1,3}", mark)
            text += f"{mark} " if begins else fragment.text
    # The words, with single blanks between them; what stood wide apart stays told by two.
    clean = re.sub(r"[ \t\xa0]{2,}", "  ", text.strip())
    shift = len(text) - len(text.lstrip())
    notes = [(min(max(0, at - shift), len(clean)), mark) for at, mark in notes]
    bold = all(fragment.bold for fragment in worded)
    return [PageLine(clean, worded[0].x, main.y, main.size, bold, tuple(notes))] if clean or notes else []


def _with_numbers(lines: list[PageLine]) -> list[PageLine]:
    """Put numbers in the margin, which some programs write before or after all else, on the lines that they stand beside."""
    heights: dict[int, list[int]] = {}
    for i, line in enumerate(lines):
        if not line.text.isdecimal():
            heights.setdefault(round(line.y / 4), []).append(i)
    beside: dict[int, int] = {}
    taken: set[int] = set()
    for i, line in enumerate(lines):
        if line.text.isdecimal() and len(line.text) <= 4 and line.text[0] != "0":
            near = [j for key in (-1, 0, 1) for j in heights.get(round(line.y / 4) + key, ())]
            near = [j for j in near[:50] if abs(lines[j].y - line.y) < 0.35 * lines[j].size]
            if near and near[0] not in taken:
                beside[i] = near[0]
                taken.add(near[0])
    if len(beside) < 2:  # a lone one is part of its line
        return lines
    merged = list(lines)
    for i, j in beside.items():
        merged[j] = merged[j]._replace(number=int(lines[i].text))
    return [line for i, line in enumerate(merged) if i not in beside]


def _is_small_capitals(before: _Fragment, fragment: _Fragment, text: str) -> bool:
    """Whether a capital and smaller ones right behind it are one word in small capitals, whatever blank pypdf sees."""
    letter = before.text.strip()
    if len(letter) != 1 or not letter.isupper() or not 0.6 < fragment.size / (before.size or 1) < 0.95:
        return False
    follows = fragment.x - before.x < before.size * (0.56 * width(letter) + 0.1)
    return (
        follows
        and abs(fragment.y - before.y) < 1
        and fragment.text.strip()[:2].isupper()
        and text.rstrip()[-1:] == letter
    )


def _with_initials(lines: list[PageLine]) -> list[PageLine]:
    """Put initials, set large at the head of a paragraph, before the topmost of the lines beside them."""
    usual = median([line.size for line in lines for _ in line.text]) if lines else 0.0
    initials = [
        line
        for line in lines
        if line.size >= _INITIAL * usual and 0 < sum(map(str.isalpha, line.text)) <= 2 >= len(line.text)
    ]
    if not initials or len(initials) > 20:
        return lines
    words = Counter(word.lower() for line in lines for word in re.findall(r"[^\W\d_]+", line.text))
    rest = [line for line in lines if line not in initials]
    for initial in initials:
        beside = [
            line
            for line in rest
            if -2 <= line.y - initial.y <= initial.size
            and line.size * 1.5 <= initial.size
            and 0.25 * initial.size < line.x - initial.x < 3 * initial.size
        ]
        if len(beside) < 2 and not any(abs(line.y - initial.y) <= 1 for line in beside):
            return lines
        first = max(beside, key=lambda line: line.y)
        word = next(iter(re.findall(r"[^\W\d_]+", first.text)), "")
        whole = (initial.text + word).lower()
        alone = initial.text in "AEÈIO" and not words[whole] and fold(whole) not in STOP_WORDS
        alone = alone and (words[word.lower()] > 1 or fold(word) in STOP_WORDS)  # it is a word itself: E il, A un
        gap = " " if alone else ""
        shift = len(initial.text) + len(gap)
        rest[rest.index(first)] = first._replace(
            text=initial.text + gap + first.text,
            x=initial.x,
            notes=tuple((at + shift, mark) for at, mark in first.notes),
        )
    return rest


def with_accents(pages: list[PageText]) -> list[PageText]:
    """Put accents on their letters in a text that prints them before (quantit`a, perch´e), as TeX's old fonts do."""
    words = sum(len(_LOOSE.findall(line.text)) for page in pages for line in page.lines)
    if words < 3:
        return pages

    def composed(text: str) -> str:
        return _ACCENT.sub(lambda m: unicodedata.normalize("NFC", m[2].replace("ı", "i") + _ACCENTS[m[1]]), text)

    def accented(line: PageLine) -> PageLine:
        notes = tuple((len(composed(line.text[:at])), mark) for at, mark in line.notes)
        return line._replace(text=composed(line.text), notes=notes)

    return [
        PageText([accented(line) for line in page.lines], list(map(composed, page.sideways)), page.bytes)
        for page in pages
    ]


def _divide(shown: list[tuple[int, float, float, int]]) -> float | None:
    """Where the second of two columns begins that were written row by row; None: there are none."""
    rows: dict[int, list[tuple[float, int]]] = {}
    for _, x, y, length in shown:
        rows.setdefault(round(y), []).append((x, length))
    if len(rows) < 10:
        return None
    first = min(x for row in rows.values() for x, _ in row)
    last = max(x for row in rows.values() for x, _ in row)
    starts = Counter(round(x) for row in rows.values() if len(row) > 1 for x, _ in row[1:] if x > first + 100)
    for start, count in starts.most_common(3):
        sides = [
            (sum(n for x, n in row if x < start - 1), sum(n for x, n in row if x >= start - 1))
            for row in rows.values()
            if any(abs(x - start) <= 1 for x, _ in row)
        ]
        both = [(left, right) for left, right in sides if left and right]
        if count < 8 or len(both) < 0.6 * len(rows) or last < start:
            continue
        left, right = median(n for n, _ in both), median(n for _, n in both)
        if min(left, right) >= 20 and max(left, right) <= 2.5 * min(left, right):
            return float(start)
    return None


def _in_columns(page: Any, divide: float) -> list[PageLine]:
    left, right = _Extraction(0, divide, True).read(page), _Extraction(0, divide, False).read(page)
    top, bottom = max((line.y for line in right), default=0), min((line.y for line in right), default=0)
    heights = sorted({line.y for line in left})
    usual = median(b - a for a, b in pairwise(heights)) if len(heights) > 1 else 0.0
    foot = (
        heights[0] if len(heights) > 1 and heights[1] - heights[0] > 1.6 * usual and heights[0] < bottom - 1 else -1e9
    )
    above = [line for line in left if line.y > top + 1]
    below = [line for line in left if line.y == foot]
    between = [line for line in left if foot < line.y <= top + 1]
    return above + between + right + below


def _ordered(lines: list[PageLine]) -> list[PageLine]:
    """Lines as they stand in the file, or from top to bottom where a program wrote one column in no order."""
    rises = sum(after.y > before.y + 2.5 * before.size for before, after in pairwise(lines))
    starts = sorted(line.x for line in lines)
    spread = starts[len(starts) * 9 // 10] - starts[len(starts) // 10] if starts else 0.0
    if rises > max(3, len(lines) // 4) and spread < 100:
        return sorted(lines, key=lambda line: -line.y)
    return lines


def page_text(page: Any, most: int) -> PageText:
    """Read the lines of a page (pypdf's `PageObject`).

    Raises:
        InputError: it has more than `most` bytes of instructions, or more text than a page can have.
    """
    length = make_plain(page, most)
    reading = _Extraction()
    lines = reading.read(page)
    turns = Counter(turn for turn, _, _, length in reading.shown if length)
    main = turns.most_common(1)[0][0] if turns else 0
    if main:
        lines = _Extraction(main).read(page)
    sideways = [" ".join(line.text for line in _Extraction(turn).read(page)) for turn in sorted(turns) if turn != main]
    if not main and (divide := _divide(reading.shown)):
        lines = _in_columns(page, divide)
    else:
        lines = _ordered(lines)
    page.pop("/Contents", None)  # rewritten, it is as large in memory as all of the page
    if len({round(line.y) for line in lines}) < len(lines) / 2:  # places that say nothing: one line under the other
        lines = [line._replace(x=0.0, y=-12.0 * i) for i, line in enumerate(lines)]
    return PageText(_with_initials(_with_numbers(lines)), [words for words in sideways if words.strip()], length)
