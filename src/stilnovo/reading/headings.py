"""Headings of sections: what one is, which kinds there are, how they nest, how a numbered one is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.reading import numerals
from stilnovo.reading.numerals import ORDINAL, roman
from stilnovo.text.italian import fold


@dataclass(frozen=True)
class Heading:
    """A heading at `text[start:end]`.

    `level` is its depth: a heading stands in those before it with smaller levels (part, book, act); `number` is None
    for a named one; `label` is how it is cited (*Capitolo VIII*), `title` what the author called it.
    """

    start: int
    end: int
    level: int
    kind: str
    number: int | None
    label: str
    title: str = ""


#: Words that name a part, which holds others, and a chapter, which does not.
PARTS = ("parte", "libro", "atto", "giornata", "volume", "tomo")
CHAPTERS = ("capitolo", "cap.", "canto", "scena", "novella", "lettera", "episodio", "sonetto", "capo", "paragrafo")
#: Every kind of section that a numbered label may begin with (*Sonetto I*).
KINDS = (
    *PARTS, *(kind for kind in CHAPTERS if kind.isalpha()), "articolo", "sezione", "cantica", "quadro", "intermezzo",
    "madrigale", "ballata", "canzone", "sestina", "ode", "inno", "idillio", "elegia", "egloga", "satira", "epistola", "favola",
    "dialogo", "giornale", "notte", "veglia", "ottava", "stanza", "strofa", "epigramma", "poesia", "racconto", "discorso",
)  # fmt: skip
#: Words of other languages for some of them.
FOREIGN = {
    "chapter": "capitolo", "chapitre": "capitolo", "book": "libro", "part": "parte", "act": "atto", "acte": "atto", "scene": "scena",
    "scène": "scena", "letter": "lettera", "volume": "volume",
}  # fmt: skip
#: The kinds as they stand at the head of a heading, in capitals or with one.
CASES = "|".join(f"{word.upper()}|{word.capitalize()}" for word in (*PARTS, *CHAPTERS, *FOREIGN)).replace(".", r"\.")


def kind_of(word: str) -> str:
    """The kind that a word of a heading names: *CAP.*, *Chapter* → `capitolo`."""
    kind = word.lower().replace("cap.", "capitolo")
    return FOREIGN.get(kind, kind)


def compared(text: str) -> str:
    """A heading as it is compared with another text: its words and figures in plain small letters."""
    return " ".join(re.findall(r"\w+", fold(text)))


_CASE = re.compile(rf"^(?:{CASES})\s+")
_SURE = re.compile(rf"(?:{CASES})\s|\s*(?:[IVX]+|[IVXLCDM]{{2,}}|\d+|{ORDINAL})(?:\s*[.:)—–-]|\s*\Z)|\s*[LCDM]\.?\s*\Z")
_DAY = re.compile(
    r"\s*\d{1,2}°?\s+(?:gen|feb|mar|apr|mag|giu|lug|ago|set|ott|nov|dic|jan|may|jun|jul|aug|sep|oct|dec|mai|juin|juil|août)\w*",
    re.I,
)


def label_for(kind: str, number: int) -> str:
    """Citation label of a numbered heading: *Capitolo VIII*, *Parte II*."""
    return f"{kind.capitalize()} {roman(number)}"


def number_of(heads: Sequence[str]) -> tuple[int | None, str]:
    """Split a heading given as lines into number and title: (`1`, `Come andò …`), (`II. La trappola`,), (`UN VAMPIRO`,)."""
    first = _CASE.sub("", heads[0])
    number, rest = numerals.leading(first)
    return number, " ".join([*([rest] if rest else []), *heads[1:]]).strip(" .")


def _style(head: str) -> str:
    """How a heading writes its number: after its kind, in Roman or Arabic figures, in words."""
    start = head.lstrip()[:1]
    return "kind" if _CASE.match(head) else "arabic" if start.isdigit() else "roman" if start in "IVXLCDM" else "word"


def numbers_of(headings: Sequence[Sequence[str]]) -> list[tuple[int | None, str]]:
    """Split headings that stand in one text into numbers and titles.

    What may be a number may also be a word or a name (*I lupini*, *Primo amore*, *C. Rossi*, *12 maggio*): it is a number
    when it stands alone, after its kind, before a stop, or beside a heading with the number before or after it.
    """
    split = [number_of(heads) for heads in headings]
    styles = [_style(heads[0]) for heads in headings]
    present = {(style, number) for style, (number, _) in zip(styles, split, strict=True)}
    numbers: list[tuple[int | None, str]] = []
    for heads, style, (number, title) in zip(headings, styles, split, strict=True):
        sure = _SURE.match(heads[0]) and not _DAY.match(heads[0])
        beside = number and not _DAY.match(heads[0]) and {(style, number - 1), (style, number + 1)} & present
        whole = " ".join(heads).strip(" .")
        numbers.append((number, title) if number and (sure or beside) else (None, whole))
    return numbers


def levels(depths: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """Levels of headings, 1 for the outermost.

    Args:
        depths: How deep the source marks each.
        kinds: What each is; empty for one that is only named. Where all headings are marked alike, a part (or book, act)
            holds what follows it; of two such kinds, the one that comes first holds the other.
    """
    inside = {(depth, kind) for depth, below, kind in zip(depths, depths[1:], kinds, strict=False) if below > depth}
    flat = {depth for depth, kind in zip(depths, kinds, strict=True) if kind and kind not in PARTS}
    parts = list(dict.fromkeys(kind for kind in kinds if kind in PARTS))
    ranks = []
    for depth, kind in zip(depths, kinds, strict=True):
        holds = kind in PARTS and (depth in flat or (depth, kind) not in inside)
        ranks.append((depth, parts.index(kind) if holds else len(parts)))
    order = {rank: level for level, rank in enumerate(sorted(set(ranks)), start=1)}
    return [order[rank] for rank in ranks]
