"""Quotation checking: verify that claimed quotations stand verbatim in the stored source.

The rule, in full:

* **verified**: the claimed words stand in the source in this order, with nothing between them, from a word's beginning to a
  word's end, with the same letters, accents, capitals and punctuation. These alone are no differences in wording:
  white space (a line break for a space; any or none beside a quotation mark, a dash, an ellipsis), ` / ` where the source breaks a line,
  the shape of apostrophes (' ’), quotation marks (« » “ ” „ "), dashes (- – —) and ellipses (… ...), the Unicode form of
  accented letters, and characters nobody sees (zero-width, soft hyphen). The quoter's own marks at the ends are not the
  source's: an ellipsis at either end, and a last full stop, comma, semicolon or colon, may be missing there.
* **repaired**: the same words in the same order, but for case, accents, punctuation, letters of other alphabets that look
  alike, and small slips: as many words as the source; all equal once folded or, from four words on, three quarters of
  them, each other one a slip (`_slip`: never in an ending, a number, a name, a function word, a negation, or a word that the
  section itself uses). Also: pieces joined by `[…]` that stand verbatim in this order within `OMISSION` characters. It is
  replaced by the source's exact words (those left out included): what is shown is always the source.
* **unverified**: everything else. A word left out, put in or exchanged, or lines joined that do not follow each other,
  is not repaired: it may change the sense.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from stilnovo.library.records import Chapter, Passage, citation
from stilnovo.library.store import Library
from stilnovo.text.italian import STOP_WORDS, Word, tokens

Status = Literal["verified", "repaired", "unverified"]
#: A repair needs this many words, and this share of them equal.
REPAIR_WORDS, REPAIR_SHARE = 4, 0.75
#: Pieces joined by `[…]` stand within this many characters, and have at least so many words each.
OMISSION, OMISSION_WORDS = 600, 3
_NEGATIONS = frozenset([
    "non", "ne", "mai", "mica", "niente", "nulla", "nessun", "nessuno", "nessuna", "senza", "neanche", "neppure", "nemmeno",
])  # fmt: skip
_WRAPPING = ' \t\n«»“”"„'
_PAIRS = (("«", "»"), ("“", "”"))


@dataclass(frozen=True)
class Quote:
    """A quotation with its verification status and its place in the source.

    `text` is the source's own words (the claimed ones when unverified) at `start` to `end` of the work's stored text.
    `answer_start` to `answer_end` is where it stands in the text of the answer, with its marks and its citation. All offsets
    count characters as Python does (Unicode code points, not UTF-16 units).
    """

    claimed: str
    status: Status
    text: str
    section: Chapter | None = None
    start: int = 0
    end: int = 0
    verses: str = ""
    answer_start: int = 0
    answer_end: int = 0

    @property
    def sound(self) -> bool:
        """Whether the quoted words stand in the source."""
        return self.status != "unverified"

    @property
    def citation(self) -> str:
        """Author, work, section and verses; empty when unverified."""
        return citation(self.section, self.verses) if self.section else ""

    @property
    def shown(self) -> str:
        """The words on one line: verses separated by ` / `."""
        lines = [" ".join(line.split()) for line in self.text.split("\n") if line.strip()]
        return (" / " if self.verses else " ").join(lines)

    def printed(self, midway: str = "") -> str:
        """*«…» (Autore, Opera, cap. I)*, `midway` before its first word."""
        left, right = "“”" if set("«»") & set(self.shown) else "«»"
        return f"{left}{midway}{self.shown}{right} ({self.citation})"

    def at(self, start: int, length: int) -> Quote:
        """The quotation placed in an answer: `length` characters from `start` on."""
        return replace(self, answer_start=start, answer_end=start + length)

    def moved(self, by: int) -> Quote:
        """The quotation with its offset shifted, for an answer that became part of a longer one."""
        return replace(self, answer_start=self.answer_start + by, answer_end=self.answer_end + by)

    def as_dict(self) -> dict[str, object]:
        """The quotation as a JSON object."""
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
            "shown": self.shown,
            "claimed": self.claimed,
            "sha256": section.work.sha256 if section else "",
            "answer_start": self.answer_start,
            "answer_end": self.answer_end,
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


_APOSTROPHES, _MARKS, _DASHES = "'’‘ʼʹ′＇`´‛", '«»“”„‟"', "-‐‑‒–—―−"
_HYPHENS = "-‐‑"
_INVISIBLE = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069"
#: Letters of other alphabets that look like Latin ones; used only to recognise, never to print.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁԛԝһΑΒΕΖΗΙΚΜΝΟΡΤΥΧαορνιτ",
    "ABESIJKMHOPCTXYaesijopcyxdqwhABEZHIKMNOPTYXaopvit",
)
_UNSEEN = re.compile(f"[{_INVISIBLE}]+")
_UNIT = re.compile(
    rf"(?P<slash>\s+/\s+)|(?P<loose>\s*[{_DASHES}{_MARKS}]\s*)|(?P<dots>\s*(?:…|\.\.\.))|(?P<space>\s+)|(?P<char>.)",
    re.S,
)
_ENDS = re.compile(r"^(?:\s*(?:…|\.\.\.|\[…\]|\[\.\.\.\]))+\s*|\s*(?:…|\.\.\.|\[…\]|\[\.\.\.\])+\s*$")
_OMITTED = re.compile(r"\s*(?:\[\s*(?:…|\.\.\.)\s*\]|\(\s*(?:…|\.\.\.)\s*\))\s*")


def skeleton(text: str) -> str:
    """Normalize a text by appearance: compatibility forms resolved, invisible characters removed, lookalike letters made Latin."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(c for c in plain if unicodedata.category(c) != "Cf").translate(_LOOKALIKES)


def _unit(match: re.Match[str], composed: bool) -> str:
    """The pattern of one unit of a claimed quotation; `composed` is whether the source has no decomposed accents."""
    kind, text = match.lastgroup, match.group()
    if kind == "slash":
        return r"[ \t]*\n\s*"
    if kind == "space":
        return r"\s+"
    if kind == "dots":
        return r"\s*(?:…|\.\.\.)\s*"
    if kind == "loose":
        bare = text.strip()
        room = "" if bare in _HYPHENS and text == bare else r"\s*"  # a hyphen between letters is part of a word
        return f"{room}[{re.escape(_MARKS if bare in _MARKS else _DASHES)}]{room}"
    if text in _APOSTROPHES:
        return f"[{re.escape(_APOSTROPHES)}]"
    if composed or (apart := unicodedata.normalize("NFD", text)) == text:
        return re.escape(text)
    return f"(?:{re.escape(text)}|{re.escape(apart)})"


def _pattern(claimed: str, source: str) -> str:
    """Regular expression for the claimed words that allows insignificant differences; empty for no words."""
    seen = unicodedata.normalize("NFC", _UNSEEN.sub("", claimed)).strip()
    if not any(char.isalnum() for char in seen):
        return ""
    parts = [
        _unit(match, source.isascii() or unicodedata.is_normalized("NFC", source)) for match in _UNIT.finditer(seen)
    ]
    between = f"[{_INVISIBLE}]*" if _UNSEEN.search(source) else ""
    first, last = (r"(?<!\w)" if seen[0].isalnum() else ""), (r"(?!\w)" if seen[-1].isalnum() else "")
    return first + between.join(parts) + last


def _verbatim(claimed: str, source: str, start: int = 0) -> tuple[int, int] | None:
    """Span of the claimed words in the source from `start` on, by the rule for *verified*."""
    bare = _ENDS.sub("", claimed)
    whole = [claimed, bare, bare[:-1] if bare.endswith((".", ",", ";", ":")) else bare]
    for form in dict.fromkeys(whole):
        pattern = _pattern(form, source)
        if pattern and (match := re.compile(pattern).search(source, start)):
            left = len(match.group()) - len(match.group().lstrip())
            return match.start() + left, match.start() + len(match.group().rstrip())
    return None


def _with_omissions(claimed: str, source: str) -> tuple[int, int] | None:
    """Span from the first to the last piece around `[…]`; None where one of them does not occur in order."""
    pieces = [piece for piece in _OMITTED.split(claimed) if piece.strip()]
    if len(pieces) < 2 or any(len(tokens(piece)) < OMISSION_WORDS for piece in pieces):
        return None
    begin = 0
    while first := _verbatim(pieces[0], source, begin):
        end = first[1]
        for piece in pieces[1:]:
            span = _verbatim(piece, source, end)
            if span is None:
                return None
            end = span[1]
        if end - first[0] <= OMISSION:
            return first[0], end
        begin = first[0] + 1
    return None


def _slip(claimed: str, word: str, name: bool, used: frozenset[str]) -> bool:
    """Whether a claimed word differs from the source's word by a typing slip only; both are folded and different.

    One letter, or two in words of nine letters and more; words of four letters at least; never where the sense may turn:
    the first letter and the ending (*amavo* is not *amava*), numbers, names, negations, function words, and words that the
    section itself has.
    """
    if claimed[0] != word[0] or claimed[-2:] != word[-2:]:
        return False
    if name or min(len(claimed), len(word)) < 4 or any(char.isdigit() for char in claimed + word):
        return False
    if claimed in used or claimed in STOP_WORDS or word in _NEGATIONS:
        return False
    limit = 2 if min(len(claimed), len(word)) >= 9 else 1
    return distance(claimed, word, limit) <= limit


@lru_cache(maxsize=32)
def _analysed(source: str) -> tuple[tuple[Word, ...], frozenset[str]]:
    analysed = tuple(tokens(source))
    return analysed, frozenset(token.form for token in analysed)


def _folded(claimed: Sequence[str], text: str) -> tuple[int, int] | None:
    """Span of source words equal to the claimed (folded) words, small typing slips allowed."""
    source, used = _analysed(text)
    wanted = set(claimed)
    places: dict[str, list[int]] = {}
    for i, token in enumerate(source):
        if token.form in wanted:
            places.setdefault(token.form, []).append(i)
    windows = Counter(i - k for k, word in enumerate(claimed) for i in places.get(word, ()))
    needed = len(claimed) if len(claimed) < REPAIR_WORDS else REPAIR_SHARE * len(claimed)
    for first, equal in windows.most_common(20):
        window = source[max(first, 0) : first + len(claimed)]
        if first < 0 or len(window) < len(claimed) or equal < needed:
            continue
        pairs = zip(claimed, window, strict=True)
        if all(word == t.form or _slip(word, t.form, text[t.start].isupper(), used) for word, t in pairs):
            return window[0].start, window[-1].end
    return None


def _unwrapped(claimed: str) -> str:
    """Remove the quotation marks around a quotation; a mark whose partner stands inside belongs to the source and stays."""
    whole, bare = claimed.strip(), claimed.strip(_WRAPPING)
    for left, right in _PAIRS:
        if bare.count(right) > bare.count(left) and whole.startswith(left):
            bare = left + bare
        elif bare.count(left) > bare.count(right) and whole.endswith(right):
            bare = bare + right
    return bare


def verify(claimed: str, section: Chapter, text: str) -> Quote:
    """Verify a quotation against one section of a work whose stored source is `text`."""
    bare = _unwrapped(claimed)
    source = text[section.body : section.end]
    status: Status = "verified"
    span = _verbatim(bare, source)
    if span is None:
        status = "repaired"
        sought = [token.form for token in tokens(skeleton(_UNSEEN.sub("", _ENDS.sub("", bare))))]
        span = _folded(sought, source) if sought else None
        span = span or _with_omissions(bare, source)
    if span is None:
        return Quote(claimed, "unverified", bare)
    start, end = section.body + span[0], section.body + span[1]
    return Quote(claimed, status, text[start:end], section, start, end, section.verses(start, end))


def verify_among(claimed: str, library: Library, passages: Iterable[Passage]) -> Quote:
    """Verify a quotation against the sections of several passages, in order; the best status counts."""
    best = Quote(claimed, "unverified", claimed.strip(_WRAPPING))
    for section in {passage.section.id: passage.section for passage in passages}.values():
        quote = verify(claimed, section, library.text(section.work))
        if quote.status == "verified":
            return quote
        best = quote if quote.sound and not best.sound else best
    return best
