"""Make paragraphs and verses of printed lines.

In prose a line ends where the next word had no more room; in verse it ends where the poet wished. So a block of lines is
verse when the first word of a next line would often have fitted on the line before. Prose is then joined to paragraphs,
also over the end of a page; verses stay lines. A word broken at a line's end proves prose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stilnovo.reading.headings import CHAPTERS, PARTS
from stilnovo.reading.hyphens import broken
from stilnovo.reading.numerals import PATTERN
from stilnovo.reading.pdf.page_lines import PageLine, width
from stilnovo.reading.verse import is_verse

_STOP = re.compile(r"[.!?:;…][\"'”’»)\]]*\Z|[”»]\Z")
_END = re.compile(r"[.!?…:][\"'”’»)\]]*\Z|[”»]\Z")
_SPEECH = re.compile(r"[—–«“\"‘-]")
_WORDED = re.compile(
    rf"(?:{'|'.join(re.escape(kind) for kind in (*PARTS, *CHAPTERS))})\s+{PATTERN}\b.{{0,70}}|[IVXLCDM]+\.?|\d{{1,3}}\.?",
    re.I,
)
_MARGIN = re.compile(r"\A\d{1,4}  (?=\D)|(?<=\D)  \d{1,4}\Z")
_NUMBERED_VERSE = re.compile(r"(?:(?P<left>\d{1,4})\s+(?P<verse>\D.*)|(?P<words>.*\D)\s+(?P<right>\d{1,4}))")
#: Lines that break early, of those that could: from here on it is verse. Fewer lines than the second say nothing.
_EARLY, _FEW = 0.36, 3
#: Lines as long as this, at the middle of all, are seldom verse.
_LONG = 60
#: So many lines are told to be verse as those of a plain text are.
_POEM = 8
#: A gap between lines this much larger than usual is a blank line; a line filled less than this is the last of its paragraph.
_BLANK, _SHORT = 1.35, 0.86


@dataclass
class Row:
    """A line of the text: where it stands, what stands before it, and how deep a heading it is (None: it is none)."""

    line: PageLine
    page: int
    gap: str = "\n\n"
    heading: bool = False
    large: bool = False
    verse: bool = False
    #: The distance to the line before, in usual lines; None on a new page.
    distance: float | None = None
    #: Its number as a verse, where the edition prints one.
    number: int | None = None


def _words(row: Row) -> str:
    """A line without a number in its margin."""
    return _MARGIN.sub("", row.line.text) or row.line.text


def _fits(before: Row, after: Row, full: float, longest: int) -> bool:
    """Whether the first word of a line would have had room on the line before, by width and by letters."""
    word = _words(after).split()[0]
    wide = width(_words(before)) + 0.6 + width(word) <= 0.95 * full
    return wide and len(_words(before)) + 1 + len(word) <= 0.96 * longest


def _ends(before: Row, after: Row, left: float) -> bool:
    """Whether a paragraph may end between two lines: a stop, and then an indented line or speech."""
    indented = after.line.x > left + 0.5 * after.line.size
    return bool(_STOP.search(before.line.text)) and (indented or bool(_SPEECH.match(after.line.text)))


def _is_verse(rows: Sequence[Row], otherwise: bool) -> bool:
    """Whether a block of lines is verse; `otherwise` where they are too few to tell."""
    left, full = min(row.line.x for row in rows), max(width(_words(row)) for row in rows)
    pairs = [(a, b) for a, b in pairwise(rows) if not _ends(a, b, left) and (b.distance is None or b.distance < _BLANK)]
    if any(broken(a.line.text) and b.line.text[:1].islower() for a, b in pairs):
        return False
    if len(pairs) < _FEW:
        return otherwise
    lengths = sorted(len(_words(row)) for row in rows)
    early = sum(_fits(a, b, full, lengths[-1]) for a, b in pairs) / len(pairs)
    capitals = sum(row.line.text.lstrip("«“\"'‘([—– ")[:1].isupper() for row in rows) / len(rows)
    if len(rows) >= _POEM and is_verse(_stanzas(rows)):
        return True
    # Where all of the text looks like verse, less says so of a part of it.
    return early > _EARLY * (0.5 if otherwise else 1) * (
        2 if lengths[len(lengths) // 2] > _LONG else 1 if capitals < 0.9 else 0.5
    )


def _stanzas(rows: Sequence[Row]) -> str:
    """The lines as a plain text has them, with blank lines between stanzas."""
    return "".join(
        ("\n" if row.distance is not None and row.distance < _BLANK else "\n\n") + _words(row) for row in rows
    ).strip()


def _mark_headings(rows: Sequence[Row], size: float) -> None:
    """Mark lines that are headings by size, words or capitals, so that no paragraph runs over them."""
    for i, row in enumerate(rows):
        text, gap = row.line.text, row.distance is None or row.distance >= _BLANK
        apart = gap and (i + 1 == len(rows) or rows[i + 1].distance is None or (rows[i + 1].distance or 0) >= _BLANK)
        letters = [c for c in text if c.isalpha()]
        row.large = row.line.size >= 1.15 * size and len(letters) > 0
        capitals = len(letters) > 3 and text.isupper()
        row.heading = (
            row.large
            or (bool(_WORDED.fullmatch(text)) and (gap or apart or text[:1].isupper()))
            or (apart and capitals and len(text) < 90)
            or (apart and row.line.bold and len(text) < 90)
        )


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """Cut rows where a heading stands, where the size changes, and at a new page."""
    blocks: list[list[Row]] = []
    for before, row in zip([None, *rows[:-1]], rows, strict=True):
        new = before is None or before.page != row.page or before.heading or row.heading
        if new or (before and abs(before.line.size - row.line.size) > 0.08 * row.line.size):
            blocks.append([])
        blocks[-1].append(row)
    return blocks


def _parts(block: list[Row]) -> list[list[Row]]:
    """Cut a block at its blank lines where what follows is set in another measure: verses quoted in prose."""
    stanzas: list[list[Row]] = []
    for row in block:
        if not stanzas or (row.distance is not None and row.distance >= _BLANK):
            stanzas.append([])
        stanzas[-1].append(row)
    widest = [max(width(row.line.text) for row in stanza) for stanza in stanzas]
    parts: list[list[Row]] = []
    for stanza, full, before in zip(stanzas, widest, [0.0, *widest[:-1]], strict=True):
        if parts and (len(stanza) < 4 or 0.75 < full / max(before, 1) < 1.33):
            parts[-1] += stanza
        else:
            parts.append(list(stanza))
    return parts


def _line_numbers(rows: Sequence[Row]) -> None:
    """Take the numbers of verses that an edition prints in its margin (5, 10, 15 …) out of their lines."""
    verses = [row for row in rows if row.verse]
    numbered: list[tuple[int, Row, re.Match[str] | None, int]] = []
    for place, row in enumerate(verses):
        match = _NUMBERED_VERSE.fullmatch(row.line.text)
        if row.line.number is not None:
            numbered.append((place, row, None, row.line.number))
        elif match:
            numbered.append((place, row, match, int(match.group("left") or match.group("right"))))
    steps = (n for n in (5, 10, 3, 4) if sum(entry[3] % n == 0 for entry in numbered) >= 0.9 * len(numbered))
    step = next(steps, 0)
    numbered = [entry for entry in numbered if step and entry[3] % step == 0]
    counted = sum(b[0] - a[0] == b[3] - a[3] for a, b in pairwise(numbered))
    if counted < 2 or counted * 3 < len(numbered):
        return
    for _, row, match, number in numbered:
        row.number = number
        if match is not None:
            verse = "verse" if match.group("verse") else "words"
            start = match.start(verse)
            notes = tuple((max(0, at - start), mark) for at, mark in row.line.notes)
            row.line = row.line._replace(text=match.group(verse).rstrip(), notes=notes)


def _indented(row: Row, left: dict[int, list[float]]) -> bool:
    """Whether a line begins to the right of its column."""
    edge = max((x for x in left[row.page] if x <= row.line.x + 1), default=row.line.x)
    return row.line.x > edge + 0.6 * row.line.size


def _gaps(rows: Sequence[Row], full: dict[int, float], left: dict[int, list[float]]) -> None:
    """Decide what stands before each line."""
    for before, row in pairwise(rows):
        blank = row.distance is not None and row.distance >= _BLANK
        same = row.distance is None or not blank
        if row.heading or before.heading:
            close = row.distance is not None and row.distance < 2.5
            row.gap = "\n" if row.heading and before.heading and close else "\n\n\n" if row.heading else "\n\n"
        elif row.verse and before.verse:
            row.gap = "\n" if same else "\n\n"
        elif broken(before.line.text) and row.line.text[:1].islower():
            row.gap = " "
        elif row.verse != before.verse or blank:
            row.gap = "\n\n"
        else:
            indented, was = _indented(row, left), _indented(before, left)
            short = width(before.line.text) + 0.6 + width(row.line.text.split()[0]) <= _SHORT * full[before.page]
            ends = bool(_END.search(before.line.text))
            opens = indented and (not was or before.gap.startswith("\n\n"))  # that was a paragraph of one line
            right = was and abs(row.line.x - before.line.x) > row.line.size  # lines that end at the right edge
            new = (ends and (opens or short)) or (indented and short and (opens or right))
            row.gap = "\n\n" if new else " "


def reflow(pages: Sequence[Sequence[PageLine]]) -> list[Row]:
    """Give each line of a text, page after page, what stands before it: a blank in a paragraph, a line's end, a blank line."""
    sizes: Counter[float] = Counter()
    for line in (line for page in pages for line in page):
        sizes[round(line.size, 1)] += len(line.text)
    size = max(sizes, key=lambda s: sizes[s], default=12.0) or 12.0
    usual: Counter[int] = Counter(
        round(a.y - b.y) for page in pages for a, b in pairwise(page) if 0.6 * size < a.y - b.y < 4 * size
    )
    everywhere = max(usual, key=lambda gap: (usual[gap], -gap), default=round(1.2 * size)) or 1
    rows: list[Row] = []
    full: dict[int, float] = {}
    left: dict[int, list[float]] = {}
    for number, page in enumerate(pages):
        gaps = Counter(round(a.y - b.y) for a, b in pairwise(page) if 0.6 * size < a.y - b.y < 4 * size)
        common = max(gaps, key=lambda gap: (gaps[gap], -gap), default=everywhere)
        leading = common if gaps[common] * 2 > len(page) else everywhere
        for before, line in zip([None, *page[:-1]], page, strict=True) if page else ():
            column = before is not None and line.y > before.y + 2 * line.size  # a new one: like a new page
            distance = None if before is None or column else abs(before.y - line.y) / leading
            rows.append(Row(line, number, distance=distance))
        body = [line for line in page if abs(line.size - size) < 0.08 * size] or list(page)
        full[number] = max((width(line.text) for line in body), default=1.0)
        starts = Counter(round(line.x) for line in body)
        usual_starts = sorted(x for x, n in starts.items() if n * 5 >= len(body)) or sorted(starts)[:1]
        # A start far to the right of the first is that of another column.
        left[number] = [float(x) for x in usual_starts if x == usual_starts[0] or x > usual_starts[0] + 100]
    _mark_headings(rows, size)
    text = [row for row in rows if not row.heading]
    verse = bool(text) and _is_verse(text, False)
    for block in _blocks(rows):
        for part in _parts(block) if not block[0].heading else ():
            judged = _is_verse(part, verse)
            for row in part:
                row.verse = judged
    _line_numbers(rows)
    _gaps(rows, full, left)
    return rows
