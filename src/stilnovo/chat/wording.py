"""Words and marks of a text, for comparing a quotation with its source word by word, mark by mark.

Unusual: a source is folded to a text of plain letters (`folded`), its words become one character each, and a quotation is
found by `str.find`: linear in both, whatever they hold. Only where the same words stand, the two are parsed (`parsed`) and
compared in full: spelling, and the marks in each gap between two words. Marks are compared by what they are, not by their
shape: «“”» are one quotation mark, – and — one dash; a hyphen inside a word and the point of 1.500 are no punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from stilnovo.chat.marks import APHAERESIS, CLIPPED
from stilnovo.text.italian import ELIDED, modern

APOSTROPHES = "'’‘ʼʹ′＇`´‛"
DASHES = "-‐‑‒–—―−"
_HYPHENS = "-‐‑"
INVISIBLE = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069"
_MARKS = '«»“”„‟"＂‹›〈〉「」'
#: Raised figures and signs that \w holds but no word does.
_NO_LETTERS = "_ºª¹²³⁰⁴-⁹₀-₉ʼʹ"
LETTER = rf"[^\W{_NO_LETTERS}]"
_INSIDE = rf"\u0300-\u036f{INVISIBLE}"
_PLAIN_WORD = re.compile(rf"{LETTER}+")
_WORD = re.compile(rf"{LETTER}+(?:[{_INSIDE}]+{LETTER}*)*")
UNSEEN = re.compile(f"[{INVISIBLE}]+")
#: The number of a note that an edition prints behind a word: it is none of the author's words.
_NOTE = re.compile(r"(?:(?<=[^\W\d_]{2})|(?<=[.,;:!?»”…’)]))(?:\[\d{1,3}\]|\{\d{1,4}\})")
_RAISED = re.compile(r"(?:(?<=[^\W\d_]{2})|(?<=[.,;:!?»”…’)]))[¹²³⁰⁴-⁹]+")
_MARK = re.compile(
    rf"(?P<dots>…\.*|\.(?:[ \u00a0]?\.)+…?)|(?P<quote><<|>>|[{APOSTROPHES}]{{2}}|[{_MARKS}])|(?P<apostrophe>[{APOSTROPHES}])"
    rf"|(?P<dash>[{DASHES}]+)|(?P<other>[^\s_*{_INSIDE}])"
)
#: Letters of other alphabets that look like Latin ones; used only to recognise, never to print.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁԛԝһΑΒΕΖΗΙΚΜΝΟΡΤΥΧαορνιτᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢı",
    "ABESIJKMHOPCTXYaesijopcyxdqwhABEZHIKMNOPTYXaopvitabcdefghijklmnoprstuvwyzi",
)
_FEW_SYMBOLS = frozenset("%‰&§@#/\\ª")


def skeleton(text: str) -> str:
    """Normalize a text by appearance: compatibility forms resolved, invisible characters removed, lookalike letters made Latin."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(c for c in plain if unicodedata.category(c) != "Cf").translate(_LOOKALIKES)


class _Folding(dict[str, str]):
    """From a character to the plain small letters it stands for; empty for accents and invisible characters."""

    def __missing__(self, char: str) -> str:
        kind = unicodedata.category(char)
        if char in APOSTROPHES:
            plain = "'"
        elif kind in ("Cf", "Mn"):
            plain = ""
        elif char == "ª" or re.fullmatch(LETTER, char) is None:
            plain = char
        else:
            apart = unicodedata.normalize("NFKD", char.translate(_LOOKALIKES).lower())
            letters = "".join(c for c in apart if not unicodedata.combining(c)).lower().translate(_LOOKALIKES)
            plain = {"æ": "ae", "œ": "oe", "ß": "ss", "ø": "o"}.get(letters, letters)
            plain = plain if plain.isalnum() else char
        self[char] = plain.replace("j", "i")
        return self[char]


_folding = _Folding()


def folded(text: str) -> tuple[str, array[int] | None]:
    """A text in plain small letters (no accents, i for j), notes' numbers blank; and where each character stood, if it moved."""
    if "[" in text or "{" in text:
        text = _NOTE.sub(lambda note: " " * len(note.group()), text)
    plain = text.lower()
    strange = {char: _folding[char] for char in set(plain) if char == "j" or not char.isascii()}
    if len(plain) == len(text) and all(len(form) == 1 for form in strange.values()):
        for char, form in strange.items():
            if char != form:
                plain = plain.replace(char, form)
        return plain, None
    pieces, places = [], array("I")
    for at, char in enumerate(text):
        form = _folding[char]
        pieces.append(form)
        places.extend([at] * len(form))
    return "".join(pieces), places


class Mark(NamedTuple):
    """A mark of punctuation: what it is, and its place."""

    key: str
    start: int
    end: int


@dataclass
class Parsed:
    """Words of a text and the marks between them: `gaps[i]` stands before word `i`, the last gap behind the last word.

    `broken[i]` is whether gap `i` breaks a line (or holds ` / `); `marked[i]` whether word `i` ends in an apostrophe that joins
    it to nothing: *po'*, *E'*, *citta'*.
    """

    text: str
    words: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[list[Mark]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    broken: list[bool] = field(default_factory=list)
    marked: list[bool] = field(default_factory=list)

    def keys(self, gap: int) -> list[str]:
        """What the marks of a gap are, in an order of their own: `,»` is `»,`."""
        marks = self.gaps[gap]
        return sorted(mark.key for mark in marks) if marks else []


_KEYS = {"dots": "…", "quote": '"', "apostrophe": '"', "dash": "—"}
#: More marks between two words are no punctuation.
_MARKS_IN_A_GAP = 64


def _joint(bare: str, before: str, after: str) -> str:
    """What joins two words, or two figures of a number, into one; empty where nothing does."""
    figures = before[-1].isdigit() and after[0].isdigit()
    if bare in _HYPHENS or (figures and bare in DASHES):
        return "-"
    if bare[0] in _HYPHENS and after[0].islower() and "\n" in bare and not bare[1:].strip():
        return "-"
    if figures and len(bare) == 1 and bare in ".,:/·" + APOSTROPHES:
        return "#" + ("'" if bare in APOSTROPHES else bare)
    if bare[0] in APOSTROPHES and (len(bare) == 1 or (before.lower() in ELIDED and not bare[1:].strip())):
        return "'"
    return ""


def _gap_marks(raw: str, at: int, before: str, after: str) -> tuple[list[Mark], bool]:
    """The marks between two words and whether a line ends there; a joint (hyphen, apostrophe, point in a number) has a key of its own."""
    if raw.isspace():
        return [], "\n" in raw
    bare = UNSEEN.sub("", raw)
    if before and after and bare and (joint := _joint(bare, before, after)):
        return [Mark(joint, at, at + len(raw))], "\n" in raw
    text = before[-2:] + raw
    for pattern in (_NOTE, _RAISED):
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    text = text[len(before[-2:]) :]
    broken = "\n" in text
    if ("/" in text or "|" in text) and (slash := re.search(r"(?:^|(?<=\s))(?:/{1,2}|\|{1,2})(?=\s|$)", text)):
        broken = True
        text = text[: slash.start()] + " " * len(slash.group()) + text[slash.end() :]
    marks = []
    for match in islice(_MARK.finditer(text), _MARKS_IN_A_GAP):
        sign = match.group().replace("º", "°")
        plain = unicodedata.normalize("NFKC", sign)
        key = _KEYS.get(match.lastgroup or "") or (sign if plain.isalnum() else plain)
        marks.append(Mark(key, at + match.start(), at + match.end()))
    return marks, broken


def parsed(text: str) -> Parsed:
    """Parse a text into words (composed, without invisible characters) and the marks between them."""
    out = Parsed(text)
    matches = list(_WORD.finditer(text))
    if "[" in text or "{" in text:
        notes = {at for note in _NOTE.finditer(text) for at in range(*note.span())}
        matches = [match for match in matches if match.start() not in notes]
    last, before, opened = 0, "", False
    for match in [*matches, None]:
        start, after = (match.start(), match.group()) if match else (len(text), "")
        raw = text[last:start]
        marks, broken = _gap_marks(raw, last, before, after)
        seen = UNSEEN.sub("", raw)
        if before:
            joined = bool(marks) and marks[0].key == "'"
            out.marked.append(bool(seen) and seen[0] in APOSTROPHES and not joined and not (opened and seen[0] == "’"))
            opened = opened and not (seen[:1] == "’" and not joined)
        opened = opened or "‘" in raw
        out.gaps.append(marks)
        out.raw.append(raw)
        out.broken.append(broken)
        if match:
            out.words.append(unicodedata.normalize("NFC", UNSEEN.sub("", after)))
            out.spans.append(match.span())
            last, before = match.end(), after
    return out


def significant(key: str) -> bool:
    """Whether a mark is part of what is said, as a figure is: %, °, +, the point in 1.500; punctuation is not."""
    return (
        (key[0] == "#" and len(key) > 1)
        or key in _FEW_SYMBOLS
        or unicodedata.category(key[0]) in ("Sc", "Sm", "So", "No")
    )


#: A single mark that opens a quotation, and one that closes it; looked for within so many characters.
_SINGLE_OPENS, _SINGLE_CLOSES = (
    re.compile(r"(?<![\w.,;:!?…»”])['‘’](?=[^\W\d_])"),
    re.compile(r"(?<=[\w.,;!?…])['’](?!\w)"),
)
_SINGLE_REACH = 1500
#: More different words than characters to write them with: the rest is not found.
_CODES = 0x10FFFF


@dataclass
class IndexedText:
    """The words of a source in their order, to find others in: built once for a section, then each search is linear."""

    text: str

    @cached_property
    def _plain(self) -> tuple[str, array[int] | None]:
        return folded(self.text)

    @cached_property
    def _index(self) -> tuple[dict[str, str], str]:
        """A character for each different word, whose old spelling has the same one as today's, and the text written with them."""
        forms = _PLAIN_WORD.findall(self._plain[0])
        codes, written = dict[str, str](), dict[str, str]()
        for form in dict.fromkeys(forms):
            code = codes.get(modern(form)) or chr(min(len(codes) + 1, _CODES))
            written[form] = code
            if code != chr(_CODES):
                codes[modern(form)] = code
        return codes, "".join([written[form] for form in forms])

    @cached_property
    def _edges(self) -> tuple[array[int], array[int]]:
        """Where the words begin, and where they end."""
        plain, places = self._plain
        starts, ends = array("I"), array("I")
        for match in _PLAIN_WORD.finditer(plain):
            starts.append(match.start())
            ends.append(match.end())
        if places is not None:
            starts, ends = array("I", (places[at] for at in starts)), array("I", (places[at - 1] + 1 for at in ends))
        return starts, ends

    @cached_property
    def ascii(self) -> bool:
        """Whether the source has no accented letter: it writes accents as apostrophes, or not at all."""
        return re.search("[àèéìíòóùúÀÈÉÌÍÒÓÙÚ\u0300\u0301]", self.text) is None

    def closes_quotation(self, at: int) -> bool:
        """Whether the apostrophe at `at` closes a quotation in single marks, and cuts no word short: *‘Vieni a casa’*."""
        if self.ascii or CLIPPED.search(self.text, max(0, at - 12), at):
            return False
        first = max(0, at - _SINGLE_REACH)
        opened = [
            m.end() for m in _SINGLE_OPENS.finditer(self.text, first, at) if not APHAERESIS.match(self.text, m.end())
        ]
        closing = _SINGLE_CLOSES.finditer(self.text, opened[-1], at) if opened else ()
        return bool(opened) and all(CLIPPED.search(self.text, max(0, m.start() - 12), m.start()) for m in closing)

    def __contains__(self, form: str) -> bool:
        return modern(form) in self._index[0]

    def places(self, forms: list[str]) -> Iterator[int]:
        """Indices of the words from which on all of these folded words stand, in order."""
        codes, coded = self._index
        spelt = [modern(form) for form in forms]
        if not spelt or any(form not in codes for form in spelt):
            return
        wanted = "".join(map(codes.__getitem__, spelt))
        at = coded.find(wanted)
        while at >= 0:
            yield at
            at = coded.find(wanted, at + 1)

    def window(self, first: int, count: int) -> tuple[int, str, int] | None:
        """`count` words from `first` on, with a word before and behind: offset, text, how many words stand before (0 or 1)."""
        starts, ends = self._edges
        if first < 0 or count < 1 or first + count > len(starts):
            return None
        start = starts[first - 1] if first else 0
        end = ends[first + count] if first + count < len(starts) else len(self.text)
        return start, self.text[start:end], int(first > 0)
