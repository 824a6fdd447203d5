"""Tell verse from prose in a text that does not say which it is, by what the ends of its lines do.

A line of prose ends where the next word would not have gone into it: in wrapped prose, however narrow, hardly a line has
room for the first word of the next. A line of verse ends where the poet ended it. That alone parts nearly all; capitals
at the heads of lines, hyphens at their ends, full stops and syllables decide the rest, so that long lines (martelliani,
free verse) are verse and short ones (a narrow page, a rapid dialogue) are prose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

#: Verse has at least this many lines, and half of them at most that long.
_LINES, _LONGEST = 4, 85
#: A tenth of the lines longer than this are paragraphs.
_PARAGRAPH = 110
_STOP = re.compile(r"(?:[.!?…]|[»”])[»”\"’')\]_]*\Z")
_LETTER = re.compile(r"[^\W_]")
_BLANK = re.compile(r"\n[ \t]*\n")
_ELISION = re.compile(r"(?<=[aeiouàèéìòù])['’,;:.]?\s+(?=h?[aeiouàèéìòù])")
_VOWELS = re.compile(r"[aeiouàèéìíòóùúâîôûäëïöüy]+")
#: An indent as deep as this places a line by itself.
_DEEP = 24
#: A line that was broken once more is this full, its rest no longer than this; and so few lines were there before.
_FULL, _REST, _ALTERNATE = 0.8, 0.5, 0.9
_OPENING = "«“\"'‘’—–-( [_"
#: Characters looked at: a poem of 20,000 verses is like its beginning.
_SEEN = 60_000


class _Lines(NamedTuple):
    """Shares over the lines of a text, each between 0 and 1.

    `room` and `capital` are of the `running` lines, which end no sentence: whether they have room for the first word of
    the next line, and whether that begins with a capital; `stop`: lines that end one; `hyphen`: lines that end in a broken
    word, but for one; `regular`: lines as long in syllables as most, give or take one; `number`: lines that end in a figure.
    """

    middle: float
    room: float
    capital: float
    running: int
    stop: float
    hyphen: float
    regular: float
    number: float


def _paragraphs(text: str) -> list[list[str]]:
    """Lines with words in them, by paragraph; where nearly every line is a paragraph, all are one.

    Their indents are kept, for a line's room is that on its right; but deep ones, of a signature, say nothing.
    """
    text = text.expandtabs(4)
    blocks = [
        [line.rstrip() if line[:_DEEP].strip() else line.strip() for line in block.split("\n") if _LETTER.search(line)]
        for block in _BLANK.split(text)
    ]
    blocks = [block for block in blocks if block]
    if sum(len(block) == 1 for block in blocks) >= 0.9 * len(blocks):
        return [[line for block in blocks for line in block]]
    return blocks


def _unwrapped(blocks: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Paragraphs with the lines that a narrower page has broken once more (a word or two behind each full line) made whole.

    The last line of a paragraph is short anyway, and so may be one that ends a sentence; they say nothing.
    """
    lengths = sorted(len(line) for block in blocks for line in block)
    full = lengths[int((len(lengths) - 1) * 0.97)]
    whole = []
    for block in blocks:
        lines = list(block[:1])
        for n, (before, line) in enumerate(pairwise(block), 2):
            rest = n < len(block) and len(line) < _REST * full and not _STOP.search(line)
            if rest and len(before) >= _FULL * full:
                lines[-1] += " " + line.strip()
            else:
                lines.append(line)
        whole.append(lines)
    return whole if sum(map(len, whole)) <= _ALTERNATE * len(lengths) else blocks


def _syllables(line: str) -> int:
    return len(_VOWELS.findall(_ELISION.sub("", line.lower())))


def _measure(blocks: Sequence[Sequence[str]]) -> _Lines:
    lines = [line for block in blocks for line in block]
    pairs = [pair for block in blocks for pair in pairwise(block)]
    lengths, edges = sorted(len(line.strip()) for line in lines), sorted(map(len, lines))
    width = edges[int((len(edges) - 1) * 0.97)]
    running = [pair for pair in pairs if not _STOP.search(pair[0])]
    counts = Counter(map(_syllables, lines))
    usual = max(counts, key=lambda n: counts[n])
    within = sum(counts[n] for n in (usual - 1, usual, usual + 1))

    def share(hits: int, of: int) -> float:
        return hits / of if of else 0.0

    return _Lines(
        median(lengths),
        share(sum(len(a) + 1 + len(b.split(maxsplit=1)[0]) <= width for a, b in running), len(running)),
        share(sum(line.lstrip(_OPENING)[:1].isupper() for _, line in running), len(running)),
        len(running),
        share(sum(bool(_STOP.search(line)) for line in lines), len(lines)),
        share(sum(a[-1] in "-\u00ad¬" and a[-2:-1].isalpha() and b.strip()[:1].islower() for a, b in pairs) - 1, len(pairs)),
        share(within, len(lines)),
        share(sum(line[-1].isdigit() for line in lines), len(lines)),
    )  # fmt: skip


def is_verse(text: str) -> bool:
    """Whether a text is verse, as a whole."""
    blocks = _paragraphs(text[:_SEEN])
    lengths = sorted(len(line.strip()) for block in blocks for line in block)
    if len(lengths) < _LINES or lengths[len(lengths) // 2] > _LONGEST or lengths[int(len(lengths) * 0.9)] > _PARAGRAPH:
        return False
    lines = _measure(_unwrapped(blocks))
    if lines.hyphen > 0.06 or lines.number > 0.4:
        return False
    if lines.stop >= 0.8 or lines.running < 2:  # a rapid dialogue, unless its lines are measured
        return lines.regular >= 0.85 and 16 <= lines.middle <= 60
    if lines.capital >= 0.7 and lines.running >= 3 and lines.room >= 0.1:
        return True
    if (
        lines.room >= 0.5
        or (lines.room >= 0.3 and lines.regular >= 0.6)
        or (lines.room >= 0.1 and lines.regular >= 0.8)
    ):
        return True
    # Lines of one length leave no room; but prose does not fill the last line of its paragraphs.
    full = all(len(block[-1].strip()) >= 0.8 * lines.middle for block in blocks)
    return full and lines.running < 16 and lines.regular >= 0.85 and lines.middle <= 48


def verse_spans(text: str, body: int, end: int) -> list[tuple[int, int]]:
    """Find the lines of verse in `text[body:end]`, given that it is verse. Rules and asterisks do not count."""
    return [
        (body + match.start(), body + match.end())
        for match in re.finditer(r"[^\s][^\n]*[^\s]|[^\s]", text[body:end])
        if any(char.isalnum() for char in match.group())
    ]
