"""Is this really written there? Every quotation is looked up in the stored source, letter by letter.

The rule, in full:

* **verified**: the words stand in the source verbatim, from a word's beginning to a word's end. Only white space may
  differ (a line break for a space), and ` / ` may mark where the source breaks a line.
* **repaired**: the same words in the same order, but for case, accents, apostrophes, punctuation and small slips: as many
  words as the source, at least three quarters of them equal once folded, each other one within edit distance 1 (words
  of up to five letters) or 2, numbers equal. It is replaced by the source's exact words: what is shown is the source.
* **unverified**: everything else. A word left out, put in or exchanged, or lines joined that do not follow each other,
  is not repaired: it may change the sense.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stilnovo.library.passages import verse_lines
from stilnovo.library.records import Chapter, Passage, citation, verse_range
from stilnovo.library.store import Library
from stilnovo.text.italian import Token, tokens

Status = Literal["verified", "repaired", "unverified"]
#: A repair needs this many words, and this share of them equal.
REPAIR_WORDS, REPAIR_SHARE = 4, 0.75
_WRAPPING = ' \t\n«»“”"„'
_PAIRS = (("«", "»"), ("“", "”"))


@dataclass(frozen=True)
class Quote:
    """A quotation and what the source says of it.

    `text` is the source's own words (the claimed ones when unverified) at `start` to `end` of the work's stored text.
    """

    claimed: str
    status: Status
    text: str
    section: Chapter | None = None
    start: int = 0
    end: int = 0
    verses: str = ""

    @property
    def sound(self) -> bool:
        """Whether the words shown stand in the source."""
        return self.status != "unverified"

    @property
    def citation(self) -> str:
        """Author, work, section and verses; empty when unverified."""
        return citation(self.section, self.verses) if self.section else ""

    @property
    def shown(self) -> str:
        """The words on one line: verses parted by ` / `."""
        lines = [" ".join(line.split()) for line in self.text.split("\n") if line.strip()]
        return (" / " if self.verses else " ").join(lines)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        section = self.section
        return {
            "quote": self.text,
            "status": self.status,
            "work": section.work.title if section else "",
            "author": section.work.author if section else "",
            "section": section.label if section else "",
            "verses": self.verses,
            "start": self.start,
            "end": self.end,
            "citation": self.citation,
        }


def distance(a: str, b: str, limit: int) -> int:
    """Levenshtein distance, or `limit` + 1 when it is larger."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return min(row[-1], limit + 1)


def _verbatim(claimed: str, source: str) -> tuple[int, int] | None:
    chunks = claimed.split()
    pattern, joint = "", ""
    for chunk in chunks:
        if chunk == "/":
            joint = r"[ \t]*\n\s*"
            continue
        pattern += (joint if pattern else "") + re.escape(chunk)
        joint = r"\s+"
    match = re.search(rf"(?<!\w){pattern}(?!\w)" if pattern else r"(?!)", source)
    return match.span() if match else None


def _similar(a: str, b: str) -> bool:
    limit = 1 if max(len(a), len(b)) <= 5 else 2
    if any(char.isdigit() for char in a + b):
        return a == b  # a slip in a number is another number
    return a == b or (min(len(a), len(b)) > 2 and distance(a, b, limit) <= limit)


def _folded(claimed: Sequence[Token], source: Sequence[Token]) -> tuple[int, int] | None:
    """Span of the window of `source` with the same words, but for small slips."""
    words = [token.form for token in claimed]
    wanted = set(words)
    places: dict[str, list[int]] = {}
    for i, token in enumerate(source):
        if token.form in wanted:
            places.setdefault(token.form, []).append(i)
    windows = Counter(i - k for k, word in enumerate(words) for i in places.get(word, ()))
    for first, equal in windows.most_common(20):
        if first < 0 or first + len(words) > len(source) or equal < REPAIR_SHARE * len(words):
            continue
        if len(words) < REPAIR_WORDS and equal < len(words):
            continue
        window = source[first : first + len(words)]
        if all(_similar(word, token.form) for word, token in zip(words, window, strict=True)):
            return window[0].start, window[-1].end
    return None


def _verses(text: str, section: Chapter, start: int, end: int) -> str:
    if not section.verse:
        return ""
    lines = verse_lines(text, section.body, section.end)
    touched = [number for number, (first, last) in enumerate(lines, start=1) if first < end and start < last]
    return verse_range(touched[0], touched[-1]) if touched else ""


def _unwrapped(claimed: str) -> str:
    """A quotation without the marks around it; a mark whose partner stands inside is the source's own and stays."""
    whole, bare = claimed.strip(), claimed.strip(_WRAPPING)
    for left, right in _PAIRS:
        if bare.count(right) > bare.count(left) and whole.startswith(left):
            bare = left + bare
        elif bare.count(left) > bare.count(right) and whole.endswith(right):
            bare = bare + right
    return bare


def verify(claimed: str, section: Chapter, text: str) -> Quote:
    """Look a quotation up in one section of a work whose stored source is `text`."""
    bare = _unwrapped(claimed)
    source = text[section.body : section.end]
    status: Status = "verified"
    span = _verbatim(bare, source)
    if span is None:
        status = "repaired"
        sought = tokens(bare)
        span = _folded(sought, tokens(source)) if sought else None
    if span is None:
        return Quote(claimed, "unverified", bare)
    start, end = section.body + span[0], section.body + span[1]
    return Quote(claimed, status, text[start:end], section, start, end, _verses(text, section, start, end))


def verify_among(claimed: str, library: Library, passages: Iterable[Passage]) -> Quote:
    """Look a quotation up in the sections of several passages, the first ones first; the soundest finding counts."""
    best = Quote(claimed, "unverified", claimed.strip(_WRAPPING))
    seen: set[int] = set()
    for passage in passages:
        section = passage.section
        if section.id in seen:
            continue
        seen.add(section.id)
        found = verify(claimed, section, library.text(section.work))
        if found.status == "verified":
            return found
        best = found if found.sound and not best.sound else best
    return best
