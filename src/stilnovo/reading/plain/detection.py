"""Find the headings of a text that marks none: where its parts, chapters, cantos, letters and poems begin.

Headings that say what they are come first, then dates, then chains of numerals, then titles in capitals; each of these
has its own file. Here they are put together: titles are joined to their numbers, what is listed in a row is dropped, and
levels are given.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from stilnovo.reading.headings import PARTS, Heading, label_for
from stilnovo.reading.numerals import roman
from stilnovo.reading.plain.capitals import CAPITALS, alone, glued
from stilnovo.reading.plain.chains import bare, chain
from stilnovo.reading.plain.gaps import above_poem, between_gaps
from stilnovo.reading.plain.letters import dated
from stilnovo.reading.plain.worded import with_ornaments, worded
from stilnovo.reading.verse import is_verse

_RUN = re.compile(rf"[ \t\n:–—-]*(?P<title>{CAPITALS})(?:\.{{3}}|[.!?:…]?)(?=\s|\Z)(?!\s+[a-zà-ÿ])")
# A title on a line: it ends in a full stop or before a blank line, as the first verse of a canto does not.
_LINE = re.compile(r"[ \t.:)–—-]*(?P<below>\n\s*)?(?P<line>[^\n]{3,70})(?:(?<=\.)[ \t]*\n|[ \t]*\n[ \t]*\n|\Z)")
# What may begin below a heading and its stop.
_BELOW = re.compile(r"[ \t.:)–—-]*\n\s*(?=\S)")
_RUBRIC = re.compile(
    r"_?(?:come|dove|nel(?:la)? quale|ne(?:i|lle) quali|in cui|si|di|del(?:l[ao'’])?|de['’i]|che|perch[éè]|quando|qual[ei]|argomento)\b",
    re.I,
)
_INNER_STOP = re.compile(r"[.!?…][»”\"]?[ ]+[A-ZÀ-Þ«“\"—–]")
#: As much stands between a letter's number and its date.
_ADDRESS = 200
#: Where a name comes again if it is a speaker's.
_SPEECHES = 20_000
#: The longest such title in letters and line ends.
_LONGEST, _TITLE_LINES = 400, 4
#: A table of contents, or a list, is headings with hardly anything between them, and no sentence.
_INDEX_RUN, _INDEX_BODY = 3, 150
#: A line above so many headings is the name of their book.
_BOOKS = 3
_SENTENCE = re.compile(r"[.!?…:;][»”\"’')\]]*\s*\Z")


def _titled(text: str, headings: Sequence[Heading], starts: Sequence[int]) -> list[Heading]:
    """Give numbered headings the title that follows: capitals, or a short line when most of its kin have one.

    `starts` are the places where headings begin, sorted: a title never reaches into the next heading.
    """
    starts = [*starts, len(text)]
    limits = [starts[min(bisect_left(starts, heading.end), len(starts) - 1)] for heading in headings]
    lines = [_LINE.match(text, heading.end, limit) for heading, limit in zip(headings, limits, strict=True)]
    # Only a part may be all heading; any other title leaves words for its section.
    spare = [heading.kind in PARTS and limit < len(text) for heading, limit in zip(headings, limits, strict=True)]
    lines = [
        line if line and _is_title(line) and (free or text[line.end() : limit].strip()) else None
        for line, limit, free in zip(lines, limits, spare, strict=True)
    ]
    blocks = _rubrics(text, headings, limits)
    kinds = Counter(heading.kind for heading in headings)
    lined = Counter(heading.kind for heading, line in zip(headings, lines, strict=True) if line)
    titled = []
    for heading, limit, line, free, block in zip(headings, limits, lines, spare, blocks, strict=True):
        run = _RUN.match(text, heading.end, limit)
        if run and _names_speaker(text, run):
            run = None
        if block and not (run and not text[block[0] : block[1]].isupper()):
            title = " ".join(text[block[0] : block[1]].split()).strip(" ._")
            heading = replace(heading, end=block[1], title=title)
        elif (
            run
            and (free or text[run.end() : limit].strip())
            and sum(char.isalpha() for char in run.group("title")) >= 4
        ):
            heading = replace(heading, end=run.end(), title=run.group("title").strip())
        elif line and (
            lined[heading.kind] >= max(2, 0.6 * kinds[heading.kind]) or not line.group().rstrip().endswith(".")
        ):
            heading = replace(heading, end=line.end("line"), title=line.group("line").strip(" ."))
        titled.append(heading)
    return titled


def _names_speaker(text: str, run: re.Match[str]) -> bool:
    """Whether capitals behind a heading are no title but the name that speaks first: it begins other lines, too."""
    name = run.group().strip()
    return (
        text[run.end() : run.end() + 1] != "\n"
        and name[-1:] in ".:"
        and text.count(f"\n{name} ", max(0, run.start() - _SPEECHES), run.end() + _SPEECHES) >= 2
    )


def _block_below(text: str, start: int, limit: int) -> tuple[int, int] | None:
    """The paragraph right below a heading that ends at `start`, if it is short and more stands behind it."""
    match = _BELOW.match(text, start, limit)
    end = text.find("\n\n", match.end(), min(limit, match.end() + _LONGEST + 2)) if match else -1
    if not match or end < 0 or text.count("\n", match.end(), end) > _TITLE_LINES or not text[end:limit].strip():
        return None
    if "\n" in text[match.end() : end] and is_verse(text[start : min(limit, start + 3000)]):  # a stanza
        return None
    return match.end(), end


def _rubrics(text: str, headings: Sequence[Heading], limits: Sequence[int]) -> list[tuple[int, int] | None]:
    """Titles of more than a line: in capitals; or one sentence below each of a kind, *Nel quale si narra …*."""
    blocks = [
        None if heading.kind in (*PARTS, "scena") else _block_below(text, heading.end, limit)
        for heading, limit in zip(headings, limits, strict=True)
    ]
    words = [text[block[0] : block[1]].strip() if block else "" for block in blocks]
    whole = [
        title[-1:] not in "?!:;,»”" and title[:1] not in '—–-«“"(' and not _INNER_STOP.search(title) for title in words
    ]
    counts = Counter(heading.kind for heading in headings)
    sentences = Counter(heading.kind for heading, one in zip(headings, whole, strict=True) if one)
    rubrics = Counter(
        h.kind for h, one, title in zip(headings, whole, words, strict=True) if one and _RUBRIC.match(title)
    )
    titled = {
        kind for kind, n in counts.items()
        if sentences[kind] >= max(2, 0.8 * n) and (rubrics[kind] * 2 >= n or (n >= 3 and sentences[kind] >= 0.9 * n))
    }  # fmt: skip
    return [
        block if (title.isupper() and "\n" in title) or (one and heading.kind in titled) else None
        for heading, block, title, one in zip(headings, blocks, words, whole, strict=True)
    ]


def _is_title(match: re.Match[str]) -> bool:
    line, beside = match["line"], not match["below"]
    return line.lstrip(" ¡¿«“\"'(_")[:1].isupper() and (
        line.rstrip()[-1] not in "?!:;,»”" or (beside and line.rstrip()[-1] in "?!»”")
    )


def _without_index(text: str, headings: list[Heading]) -> list[Heading]:
    """Drop runs of headings with nothing between them: a table of contents, a numbered list."""
    ends = [*(heading.start for heading in headings[1:]), len(text)][: len(headings)]
    brief = [
        end - heading.end < _INDEX_BODY and not _SENTENCE.search(text[heading.end : end])
        for heading, end in zip(headings, ends, strict=True)
    ]
    remaining: list[Heading] = []
    for nothing, group in groupby(zip(brief, headings, strict=True), key=lambda pair: pair[0]):
        run = [heading for _, heading in group]
        if not nothing or sum(heading.level == 2 for heading in run) < _INDEX_RUN:
            remaining += run
    return remaining


def _under_books(text: str, headings: Sequence[Heading]) -> list[Heading]:
    """Headings with the line right above them, where it is the same above several: *Inferno* above *Canto I*."""
    above = []
    for heading in headings:
        before = text.rfind("\n", 0, max(0, text.rfind("\n", 0, heading.start))) + 1
        line = text[before : heading.start]
        above.append(before if heading.start and line.count("\n") == 1 and 3 < len(line.strip()) <= 40 else None)
    lines = [
        None if start is None else text[start : h.start].strip(" \t\n.*_")
        for start, h in zip(above, headings, strict=True)
    ]
    counts = Counter(lines)
    return [
        replace(h, start=start, label=f"{line.capitalize()}, {h.label}")
        if start is not None and line and counts[line] >= _BOOKS
        else h
        for start, line, h in zip(above, lines, headings, strict=True)
    ]


def _levelled(headings: Sequence[Heading]) -> list[Heading]:
    """Give levels: kinds of parts in the order in which they first come, then what stands in them."""
    parts = list(dict.fromkeys(heading.kind for heading in headings if heading.level == 1 and heading.kind in PARTS))
    outer = max(1, len(parts))

    def level(heading: Heading) -> int:
        if heading.level == 1:
            return parts.index(heading.kind) + 1 if heading.kind in PARTS else 1
        return outer + heading.level - 1

    return [replace(heading, level=level(heading)) for heading in headings]


def _chained(text: str, parts: Sequence[Heading]) -> list[Heading]:
    """Headings that are bare numerals: chapters, or poems where what follows them is verse."""
    links = chain(text, bare(text, parts))
    ends = [*(link.start for link in links[1:]), len(text)][: len(links)]
    seen = range(0, len(links), max(1, len(links) // 12))
    poems = sum(is_verse(text[links[i].end : ends[i]]) for i in seen) * 2 > len(seen)
    kind = "poesia" if poems else "capitolo"
    return [
        Heading(
            link.start, link.end, 2, kind, link.number, roman(link.number) if poems else label_for(kind, link.number)
        )
        for link in links
    ]


def _poem(heading: Heading) -> Heading:
    """A numbered poem is called by its number and title: *XII. L'infinito*."""
    if heading.kind != "poesia" or not heading.title:
        return heading
    return replace(heading, label=f"{heading.label}. {heading.title}", title="")


def find(text: str) -> list[Heading]:
    """Find the headings of a plain text, in order, not overlapping."""
    said, lines = worded(text), alone(text)
    parts = [with_ornaments(text, heading) for heading in said if heading.level == 1 and heading.kind != "nome"] + lines
    parts.sort(key=lambda heading: heading.start)
    numbered = _under_books(text, [heading for heading in said if heading.level == 2 and heading.kind != "nome"])
    days = dated(text)
    pieces: list[Heading] = []
    if len(numbered) >= 2:
        days = []
    else:
        pieces = glued(text)
        links = _chained(text, [*parts, *pieces])
        letters = _dated(links, days)
        if letters:
            links = [replace(h, kind="lettera", label=label_for("lettera", h.number or 0)) for h in links]
        if links and (letters or len(days) < max(5, len(links))):
            days = []
        if days:
            pieces = []
        else:
            numbered += links
            collection = len(numbered) < 5 or sum(heading.number == 1 for heading in numbered) > len(parts) + 2
            pieces = pieces if collection and len(pieces) >= 3 else []
    numbered.sort(key=lambda heading: heading.start)
    named = [heading for heading in said if heading.kind == "nome" and not _follows(text, heading, numbered)]
    numbered = [with_ornaments(text, heading) for heading in numbered]
    said = sorted([*numbered, *(part for part in parts if part.kind != "nome")], key=lambda heading: heading.start)
    parts = [part for part in parts if part.kind != "nome" or not _follows(text, part, said)]
    pieces = [piece for piece in pieces if not _follows(text, piece, said)]
    if not (numbered or parts or pieces or days):
        parts = between_gaps(text) or above_poem(text)
    named = [_with_name(text, heading, parts) for heading in named]
    starts = sorted(heading.start for heading in [*numbered, *parts, *named, *days])
    candidates = _titled(text, numbered, starts) + _titled(text, parts, starts) + named + pieces + days
    ordered: list[Heading] = []
    for heading in sorted(candidates, key=lambda h: (h.start, h.kind == "nome")):
        if not ordered or heading.start >= ordered[-1].end:
            ordered.append(heading)
    return _levelled(_with_first_part([_poem(heading) for heading in _without_index(text, ordered)]))


def _with_first_part(headings: Sequence[Heading]) -> list[Heading]:
    """Headings with the first part, where the text names the second and no first: the chapters before stand in it."""
    part = next((heading for heading in headings if heading.kind in PARTS), None)
    if part is None or part.number != 2 or any(h.kind == part.kind and h.number == 1 for h in headings):
        return list(headings)
    first = next((h for h in headings if h.start < part.start and h.number == 1 and h.level == 2), None)
    if first is None:
        return list(headings)
    opened = Heading(first.start, first.start, 1, part.kind, 1, label_for(part.kind, 1))
    at = headings.index(first)
    return [*headings[:at], opened, *headings[at:]]


def _dated(links: Sequence[Heading], days: Sequence[Heading]) -> bool:
    """Whether dates stand right below numerals: letters that are numbered."""
    ends = [link.end for link in links]
    below = sum(
        i > 0 and day.start - ends[i - 1] < _ADDRESS for day in days for i in [bisect_left(ends, day.start + 1)]
    )
    return bool(links) and len(days) >= 2 and below >= 0.8 * len(links)


def _with_name(text: str, heading: Heading, parts: Sequence[Heading]) -> Heading:
    """A heading such as *Dedica* with the capitals right below it: *AL MAGNIFICO LORENZO*."""
    after = next((part for part in parts if part.kind == "nome" and part.start >= heading.end), None)
    if after is None or text[heading.end : after.start].strip(" \t\n._*"):
        return heading
    return replace(heading, end=after.end, title=after.label)


def _follows(text: str, heading: Heading, numbered: Sequence[Heading]) -> bool:
    """Whether a heading stands right behind a numbered one, whose title it then is."""
    at = bisect_left(numbered, heading.start + 1, key=lambda other: other.end) - 1
    return at >= 0 and not text[numbered[at].end : heading.start].strip()
