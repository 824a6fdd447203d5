"""Find where the chapters, cantos, parts and novellas of a plain text begin.

Old e-texts mark them in every way: `CAPITOLO VIII` on a line of its own, `IV IL DELITTO — Salvatore! —` at the head of
a paragraph, `…disse piano. VIII Erminia migliorò` in the middle of a line. So a heading is found by what it is, not by
its line: *worded* headings (Capitolo, Canto, Parte … and a number) stand alone; *bare* numerals count only when they
chain up 1, 2, 3 …, by dynamic programming over all candidates; *capitals* name the pieces of a collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from stilnovo.library import numerals
from stilnovo.library.numerals import PATTERN, roman
from stilnovo.text.italian import STOP_WORDS, fold


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
CHAPTERS = ("capitolo", "cap.", "canto", "scena", "novella", "lettera", "episodio", "sonetto", "capo")
#: Every kind of section that a numbered label may begin with (*Sonetto I*).
KINDS = (
    *PARTS, *(kind for kind in CHAPTERS if kind.isalpha()), "paragrafo", "articolo", "sezione", "cantica", "quadro", "intermezzo",
    "madrigale", "ballata", "canzone", "sestina", "ode", "inno", "idillio", "elegia", "egloga", "satira", "epistola", "favola",
    "dialogo", "giornale", "notte", "veglia", "ottava", "stanza", "strofa", "epigramma", "poesia", "racconto", "discorso",
)  # fmt: skip
_NAMED = ("introduzione", "prefazione", "prologo", "epilogo", "conclusione", "proemio", "appendice", "glossario")
# A heading begins the text or a line, or follows the end of a sentence. Looking for that at every letter of a novel is
# slow, so patterns look for what is rare (a word, a capital) and `_begins` then looks back.
_SENTENCE_END = frozenset('.!?…»”")]—–―-')
_AFTER = r"(?=\s*(?:\Z|\n|[A-ZÀ-ÖØ-Þ«“\"'‘’(\[—–\-.¿¡]))"
_CASES = "|".join(f"{word.upper()}|{word.capitalize()}" for word in (*PARTS, *CHAPTERS)).replace(".", r"\.")
_WORDED = re.compile(
    rf"[ \t]*(?:(?P<book>[A-ZÀ-Þ][\wà-ÿÀ-Þ]{{3,15}})\s*[•·.,–-]\s*)?(?P<kind>{_CASES})\s+(?P<number>{PATTERN})\b"
    rf"(?:,(?P<inner>\d{{1,3}}))?[.:]?{_AFTER}"
)
_KIND = re.compile(rf"(?:{_CASES})(?=\s)")
_BOOK = re.compile(r"[A-ZÀ-Þ][\wà-ÿÀ-Þ]{3,15}\s*[•·.,–-]\s*\Z")
_NAMED_HEADING = re.compile(
    rf"(?P<name>{'|'.join(f'{n.upper()}|{n.capitalize()}' for n in _NAMED)})\b\.?(?=\s*\n|\s+[\"“«A-ZÀ-Þ])"
)
_BARE = re.compile(rf"(?P<number>[IVXLC]{{1,8}}|\d{{1,3}})(?P<dot>[.)]?)(?P<gap>[ \t]*\n|[ \t]+|\Z){_AFTER}")
_CAPITAL_WORD = r"(?:[A-ZÀ-ÖØ-Þ'’]*[A-ZÀ-ÖØ-Þ]{2}[A-ZÀ-ÖØ-Þ'’]*|[AEIOÈ]|[LD]['’])"
_CAPITALS = rf"{_CAPITAL_WORD}(?:[ \t]*[,:;–—-]?[ \t]+{_CAPITAL_WORD}|['’]{_CAPITAL_WORD})*"
_RUN = re.compile(rf"[ \t\n]*(?P<title>{_CAPITALS})(?:\.{{3}}|[.!?:…]?)(?=\s|\Z)(?!\s+[a-zà-ÿ])")
_GLUED = re.compile(rf"(?P<title>{_CAPITALS})(?:\.{{3}}|[.!?…]?)(?=\s)(?!\s+[a-zà-ÿ])")
# A title on a line: it ends in a full stop or before a blank line, as the first verse of a canto does not.
_LINE = re.compile(r"[ \t.)–—-]*(?:\n\s*)?(?P<line>[^\n]{3,70})(?:(?<=\.)[ \t]*\n|[ \t]*\n[ \t]*\n|\Z)")
_ALONE = re.compile(r"[ \t]*(?P<title>[^\sa-zà-ÿ][^\na-zà-ÿ]{3,80}(?:\n[^\na-zà-ÿ]{4,80})?)(?=\n[ \t]*\n|\Z)")
_DATED = re.compile(
    r"[ \t]*(?P<title>\d{1,2}°? (?:gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre"
    r"|ottobre|novembre|dicembre)(?: \d{4})?)\.?[ \t]*(?=\n)",
    re.I,
)
_LINE_DIGIT = re.compile(r"\n[ \t]*(?=\d)")
#: A table of contents is headings with hardly anything between them.
_INDEX_RUN, _INDEX_BODY = 3, 150
#: Numerals closer than this are sooner stanzas or a list than chapters.
_NEAR = 600


def label_for(kind: str, number: int) -> str:
    """Citation label of a numbered heading: *Capitolo VIII*, *Parte II*."""
    return f"{kind.capitalize()} {roman(number)}"


def number_of(heads: Sequence[str]) -> tuple[int | None, str]:
    """Split a heading given as lines into number and title: (`1`, `Come andò …`), (`II. La trappola`,), (`UN VAMPIRO`,)."""
    first = re.sub(rf"^(?:{_CASES})\s+", "", heads[0])
    number, rest = numerals.leading(first)
    return number, " ".join([*([rest] if rest else []), *heads[1:]]).strip(" .")


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
    ordered = sorted(set(ranks))
    return [ordered.index(rank) + 1 for rank in ranks]


def _begins(text: str, at: int) -> bool:
    """Whether position `at` begins the text, a line or a sentence."""
    back = at
    while back > 0 and text[back - 1] in " \t":
        back -= 1
    return back == 0 or text[back - 1] == "\n" or (back < at and text[back - 1] in _SENTENCE_END)


def _worded_at(text: str, kind: int) -> re.Match[str] | None:
    """Parse the worded heading whose kind (*Capitolo*) is at `kind`, with the book before it if there is one."""
    book = _BOOK.search(text[max(0, kind - 40) : kind])
    starts = [max(0, kind - 40) + book.start()] if book else []
    matches = (_WORDED.match(text, start) for start in [*starts, kind] if _begins(text, start))
    return next((match for match in matches if match and match.start("kind") == kind), None)


def _worded(text: str) -> list[Heading]:
    headings: list[Heading] = []
    for candidate in _KIND.finditer(text):
        match = _worded_at(text, candidate.start())
        number = numerals.value(match.group("number")) if match else None
        if match is None or number is None or (headings and match.start() < headings[-1].end):
            continue
        kind = match.group("kind").lower().replace("cap.", "capitolo")
        level = 1 if kind in PARTS else 2
        label, book = label_for(kind, number), match.group("book")
        if inner := match.group("inner"):
            label, level, number = f"{label}, Capitolo {roman(int(inner))}", 2, int(inner)
        if book and not book.lower().startswith(tuple(CHAPTERS)):
            label = f"{book.capitalize()}, {label}"
        headings.append(Heading(match.start(), match.end(), level, kind, number, label))
    for match in _NAMED_HEADING.finditer(text):
        name = match.group("name")
        if _begins(text, match.start()) and (match.start() == 0 or name.isupper() or text.count(name) == 1):
            headings.append(Heading(match.start("name"), match.end("name"), 2, "nome", None, name.capitalize()))
    return headings


def _alone(text: str) -> list[Heading]:
    """Find lines in capitals between blank lines, each named once."""
    headings: list[Heading] = []
    starts = [0, *(gap.end() for gap in re.finditer(r"(?<=\n)\n", text))]
    for match in filter(None, (_ALONE.match(text, start) for start in starts)):
        title = match.group("title")
        letters = sum(char.isalpha() for char in title)
        if letters >= 4 and letters * 2 > len(title) and numerals.leading(title)[0] is None:
            headings.append(
                Heading(match.start("title"), match.end("title"), 1, "nome", None, " ".join(title.split()).strip(" ."))
            )
    counts = Counter(heading.label for heading in headings)
    return [heading for heading in headings if counts[heading.label] == 1]


@dataclass(frozen=True)
class _Numeral:
    start: int
    end: int
    number: int
    arabic: bool
    weight: float  # how much it looks like a heading: alone on its line, dotted, right after a part


def _bare(text: str, parts: Sequence[Heading]) -> list[_Numeral]:
    ends = [part.end for part in parts if part.level == 1]
    candidates = []
    for match in _BARE.finditer(text):
        number = numerals.value(match.group("number")) if _begins(text, match.start()) else None
        if number is None:
            continue
        arabic = match.group("number").isdigit()
        alone = "\n" in match.group("gap") or not match.group("gap")
        if arabic and not (alone or match.group("dot") or match.start() == 0):
            continue
        # "I Santafusca avevano": the article. "I In una bella sera": the number, since no article follows another.
        after = re.match(r"[^\W\d_]*", text[match.end() : match.end() + 30])
        article = match.group("number") == "I" and (not after or fold(after.group()) not in STOP_WORDS | {""})
        sure = alone or bool(match.group("dot")) or match.start() == 0 or not article
        candidates.append(_Numeral(match.start("number"), match.end("dot"), number, arabic, 1.0 if sure else 0.1))
    # Behind a title page or a part's title no sentence ends: "PARTE SECONDA LE TRIBOLAZIONI I Beatrice rimase".
    for end in [0, *ends]:
        near = re.compile(rf"(?<=[\s]){'(?:I|1)'}\b\.?(?=[ \t\n]+[A-ZÀ-Þ«“\"—–-])").search(text, end, end + 160)
        if near and not re.search(r"[.!?»]\s", text[end : near.start()]):
            candidates.append(_Numeral(near.start(), near.end(), 1, near.group()[0] == "1", 1.0))
    return sorted({numeral.start: numeral for numeral in candidates}.values(), key=lambda n: n.start)


# What the next numeral adds to a chain, by how far it is ahead.
_GAINS = {1: 1.0, 2: 0.2, 3: -0.6}


def _chain(candidates: Sequence[_Numeral], minimum: int = 3) -> list[_Numeral]:
    """Find the best sequence that counts up by one, with rare gaps, and may restart at 1 (a new part, a new novella)."""
    best: list[tuple[float, int]] = []
    for i, here in enumerate(candidates):
        options = [(1.0 if here.number == 1 and here.weight > 0.5 else 0.3 if here.number == 2 else -1.0, -1)]
        for j in range(max(0, i - 400), i):
            before, (score, _) = candidates[j], best[j]
            gain = _GAINS.get(here.number - before.number)
            if gain is None and here.number <= 2 and before.number > here.number:  # the count starts again
                gain = -1.2 if here.number == 2 else -1.0 if here.weight > 0.5 else -2.0
            if gain is None:
                continue
            mixed, near = before.arabic != here.arabic, here.start - before.end < _NEAR
            options.append((score + gain - 0.4 * mixed - 1.0 * near, j))
        score, j = max(options)
        best.append((score + here.weight * 0.5, j))
    chain: list[_Numeral] = []
    i = max(range(len(best)), key=lambda n: best[n][0], default=-1)
    while i >= 0:
        chain.append(candidates[i])
        i = best[i][1]
    return chain[::-1] if len(chain) >= minimum else []


def _glued(text: str) -> list[Heading]:
    """Find titles in capitals at the head of a paragraph, each occurring once: the pieces of a collection.

    What stands in capitals again and again is no title but a signature: *TUO PADRE DICEMBRE* is the title *DICEMBRE*.
    """
    runs = [
        (match.start("title"), match.end(), match.group("title"))
        for match in _GLUED.finditer(text)
        if _begins(text, match.start())
    ]
    counts = Counter(title for _, _, title in runs)
    headings: list[Heading] = []
    for start, end, title in runs:
        signature = next((s for s, n in counts.items() if n > 1 and title.startswith(s + " ")), "")
        start, title = start + len(signature), title[len(signature) :]
        start, title = start + len(title) - len(title.lstrip()), title.strip()
        if title.endswith((" I", " 1")):
            end, title = start + len(title) - 2, title[:-2]
        if counts[title] > 1 or sum(char.isalpha() for char in title) < 5 or numerals.value(title):
            continue
        if headings and start - headings[-1].end < _INDEX_BODY:
            headings.pop()
        headings.append(Heading(start, end, 1, "nome", None, title))
    return headings


def _titled(text: str, headings: Sequence[Heading], starts: Sequence[int]) -> list[Heading]:
    """Give numbered headings the title that follows: capitals, or a short line when most of its kin have one.

    `starts` are the places where headings begin, sorted: a title never reaches into the next heading.
    """
    limits = [next((start for start in starts if start >= heading.end), len(text)) for heading in headings]
    lines = [_LINE.match(text, heading.end, limit) for heading, limit in zip(headings, limits, strict=True)]
    # Only a part may be all heading; any other title leaves words for its section.
    spare = [heading.kind in PARTS and limit < len(text) for heading, limit in zip(headings, limits, strict=True)]
    lines = [
        line if line and _is_title(line.group("line")) and (free or text[line.end() : limit].strip()) else None
        for line, limit, free in zip(lines, limits, spare, strict=True)
    ]
    enough = sum(line is not None for line in lines) >= 0.6 * len(headings)
    titled = []
    for heading, limit, line, free in zip(headings, limits, lines, spare, strict=True):
        run = _RUN.match(text, heading.end, limit)
        if (
            run
            and (free or text[run.end() : limit].strip())
            and sum(char.isalpha() for char in run.group("title")) >= 4
        ):
            heading = replace(heading, end=run.end(), title=run.group("title").strip())
        elif enough and line:
            heading = replace(heading, end=line.end("line"), title=line.group("line").strip(" ."))
        titled.append(heading)
    return titled


def _is_title(line: str) -> bool:
    return line.lstrip(" ¡¿")[:1].isupper() and line.rstrip()[-1] not in "?!:;,»”"


def _without_index(headings: list[Heading], length: int) -> list[Heading]:
    """Drop runs of headings with nothing between them: a table of contents, a numbered list."""
    ends = [*(heading.start for heading in headings[1:]), length][: len(headings)]
    short = [end - heading.end < _INDEX_BODY for heading, end in zip(headings, ends, strict=True)]
    kept: list[Heading] = []
    for brief, group in groupby(zip(short, headings, strict=True), key=lambda pair: pair[0]):
        run = [heading for _, heading in group]
        if not brief or sum(heading.level == 2 for heading in run) < _INDEX_RUN:
            kept += run
    return kept


def find(text: str) -> list[Heading]:
    """Find the headings of a plain text, in order, not overlapping."""
    worded, alone = _worded(text), _alone(text)
    parts = sorted([h for h in worded if h.level == 1] + alone, key=lambda h: h.start)
    numbered = [heading for heading in worded if heading.level == 2 and heading.number]
    lines = [0, *(line.start() + 1 for line in _LINE_DIGIT.finditer(text))]
    dates = filter(None, (_DATED.match(text, line) for line in lines))
    dated = [Heading(m.start("title"), m.end(), 2, "data", None, m.group("title")) for m in dates]
    dated = dated if len(dated) >= 5 else []
    pieces: list[Heading] = []
    if len(numbered) < 2 and not dated:
        pieces = _glued(text)
        chain = _chain(_bare(text, [*parts, *pieces]))
        numbered += [Heading(n.start, n.end, 2, "capitolo", n.number, label_for("capitolo", n.number)) for n in chain]
        collection = len(numbered) < 5 or sum(h.number == 1 for h in numbered) > len(parts) + 2
        pieces = pieces if collection and len(pieces) >= 3 else []
    named = [
        h
        for h in worded
        if not h.number and not any(text[n.end : h.start].strip() == "" for n in numbered if n.end <= h.start)
    ]
    starts = sorted(heading.start for heading in [*numbered, *parts, *named, *dated])
    candidates = _titled(text, numbered, starts) + _titled(text, parts, starts) + named + pieces + dated
    ordered: list[Heading] = []
    for heading in sorted(candidates, key=lambda h: (h.start, h.kind == "nome")):
        if not ordered or heading.start >= ordered[-1].end:
            ordered.append(heading)
    return _without_index(ordered, len(text))
