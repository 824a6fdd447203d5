"""Find headings that are nothing but a numeral: *IV*, *4.*, *— IV —*, *§ 4*.

A numeral is a heading only in a chain that counts up 1, 2, 3 …, found by dynamic programming over all candidates: so that
the article *I*, kings, years and lists are none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.reading import numerals
from stilnovo.reading.headings import Heading
from stilnovo.reading.numerals import ORDINAL
from stilnovo.reading.plain.worded import AFTER, begins
from stilnovo.text.italian import STOP_WORDS, fold

_BARE = re.compile(rf"(?P<number>[IVXLC0-9]{{1,8}})(?P<dot>[.):]?)(?P<gap>[ \t]*\n|[ \t]+|\Z){AFTER}")
_ORNATE = re.compile(
    r"^[ \t]*(?:[\[({*~§=_]+|[—–-]+(?=[ \t]*[IVXLC]))[ \t]*(?P<number>[IVXLC]{1,8}|\d{1,3})[ \t]*(?P<dot>[.\])}*~=_—–-]*)(?P<gap>[ \t]*)$",
    re.M,
)
#: Chapters that are counted in words, on lines of their own: *Primo*, *DUE*.
_CARDINALS = (
    "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "undici", "dodici", "tredici", "quattordici",
    "quindici", "sedici", "diciassette", "diciotto", "diciannove", "venti",
)  # fmt: skip
_WORD = re.compile(
    rf"\n\n[ \t*_=—–-]*(?P<number>(?i:{ORDINAL}(?:[ ]{ORDINAL})?|{'|'.join(sorted(_CARDINALS, key=len, reverse=True))}))"
    r"(?P<dot>[.:]?)[ \t*_=—–-]*(?=\n[ \t]*\n)"
)
# 2 is no chapter in «Uova, n. 2.»
_ABBREVIATED = re.compile(
    r"\b(?:n|nn|num|p|pp|pag|pagg|vol|cap|capp|art|v|vv|fig|tav|ediz|lib|sec|san)\.[ \t]*\Z", re.I
)
#: Numerals closer than this, with fewer lines between them, are sooner stanzas or a list than chapters.
_NEAR, _NEAR_LINES = 600, 12
#: The shortest chapter.
_SHORTEST = 100
#: Some line of prose is longer than this.
_PROSE = 56
_SHORT_LINE = re.compile(r"[^\n]{0,80}(?:\n[ \t]*\n|\n?\Z)")
#: How many candidates a chain looks back to, and over how many in all.
_BACK, _STEPS = 400, 8_000_000


@dataclass(frozen=True)
class Numeral:
    """A numeral at `text[start:end]`; `weight` is how much it looks
    like a heading: alone on its line, dotted, right after a part."""

    start: int
    end: int
    number: int
    arabic: bool
    weight: float
    part: int  # how many parts began before
    apart: bool  # on a line of its own, with at most a title, after a blank line


# Behind a title page or a part's title no sentence ends: "PARTE SECONDA LE TRIBOLAZIONI I Beatrice rimase".
_FIRST = re.compile(r"(?<=[\s])(?:I|1)\b\.?(?=[ \t\n]+[A-ZÀ-Þ«“\"—–-])")


def bare(text: str, parts: Sequence[Heading]) -> list[Numeral]:
    """Numerals that might be headings, in order; `parts` are headings behind which a chapter may begin."""
    starts = [part.start for part in parts]
    numerals_at: dict[int, Numeral] = {}

    def add(start: int, end: int, numeral: str, weight: float) -> None:
        word = numeral.lower()
        number = _CARDINALS.index(word) + 1 if word in _CARDINALS else numerals.value(numeral)
        if number and not (numeral.isdigit() and len(numeral) > 3):
            apart = _SHORT_LINE.match(text, end) is not None and text[max(0, start - 40) : start].rstrip(" \t[(§*—–-")[
                -2:
            ] in ("\n\n", "")
            numerals_at[start] = Numeral(
                start,
                end,
                number,
                numeral.isdigit(),
                weight,
                bisect_right(starts, start),
                apart,
            )

    for match in _BARE.finditer(text):
        if not begins(text, match.start()) or _ABBREVIATED.search(text[max(0, match.start() - 8) : match.start()]):
            continue
        arabic = match["number"].isdigit()
        alone = "\n" in match["gap"] or not match["gap"]
        if arabic and not (alone or match["dot"] or match.start() == 0):
            continue
        # "I Santafusca avevano": the article. "I In una bella sera": the number, since no article follows another.
        after = re.match(r"[^\W\d_]*", text[match.end() : match.end() + 30])
        article = match["number"] == "I" and (not after or fold(after.group()) not in STOP_WORDS | {""})
        sure = alone or bool(match["dot"]) or match.start() == 0 or not article
        add(match.start("number"), match.end("dot"), match["number"], 1.0 if sure else 0.1)
    for match in _ORNATE.finditer(text):
        if match["dot"] or not match.group().strip()[0].isalnum():
            add(
                match.start() + len(match.group()) - len(match.group().lstrip()), match.end("dot"), match["number"], 1.0
            )
    for match in _WORD.finditer("\n\n" + text):
        add(match.start("number") - 2, match.end("dot") - 2, match["number"], 1.0)
    for end in [0, *(part.end for part in parts if part.level == 1)]:
        near = _FIRST.search(text, end, end + 160)
        if near and not re.search(r"[.!?»]\s", text[end : near.start()]):
            add(near.start(), near.end(), near.group().rstrip("."), 1.0)
    return sorted(numerals_at.values(), key=lambda numeral: numeral.start)


# What the next numeral adds to a chain, by how far it is ahead.
_GAINS = {1: 1.0, 2: 0.2, 3: -0.6}


def _crowded(text: str, before: Numeral, here: Numeral) -> bool:
    """Whether two numerals stand as near as those of stanzas or of a list do, without a short chapter between them."""
    body = text[before.end : here.start].strip()
    if len(re.findall(r"\n+", body)) + 2 > _NEAR_LINES:
        return False
    if here.part > before.part:
        return False
    if not (before.apart and here.apart) or here.start - before.end < _SHORTEST:
        return True
    return body[-1:] not in '.!?…»”"' or max(map(len, body.split("\n"))) < _PROSE


def chain(text: str, candidates: Sequence[Numeral], minimum: int = 3) -> list[Numeral]:
    """Find the best sequence that counts up by one, with rare gaps, and may restart at 1 (a new part, a new novella)."""
    best: list[tuple[float, int]] = []
    back = min(_BACK, max(8, _STEPS // max(1, len(candidates))))
    for i, here in enumerate(candidates):
        options = [(1.0 if here.number == 1 and here.weight > 0.5 else 0.3 if here.number == 2 else -1.0, -1)]
        for j in range(max(0, i - back), i):
            before, (score, _) = candidates[j], best[j]
            gain = _GAINS.get(here.number - before.number)
            if gain is None and here.number <= 2 and before.number > here.number:  # the count starts again
                gain = -1.2 if here.number == 2 else -1.0 if here.weight > 0.5 else -2.0
                if here.part > before.part and here.number == 1 and here.weight > 0.5:
                    gain = 0.5  # as it does in a new part
            if gain is None:
                continue
            mixed = before.arabic != here.arabic
            near = here.start - before.end < _NEAR and _crowded(text, before, here)
            options.append((score + gain - 0.4 * mixed - 1.8 * near, j))
        score, j = max(options)
        best.append((score + here.weight * 0.5, j))
    links: list[Numeral] = []
    i = max(range(len(best)), key=lambda n: best[n][0], default=-1)
    while i >= 0:
        links.append(candidates[i])
        i = best[i][1]
    pair = len(links) == minimum - 1 and links[-1].number == 1 and all(link.apart for link in links)
    return links[::-1] if pair or len(links) >= minimum else []
