"""Tell the lines of a printed page that are not its text: running heads, page numbers, catchwords, notes at its foot.

Nothing marks them, so several signs must agree. A page number counts on with its page: numbers whose difference from
the page is the same all over are page numbers, and what shares a line with one is a running head. Without a number a
head comes back on neighbouring pages, at a height where no page has a line of its text, set off by space, size,
capitals or because it names the work or a chapter. A line of the text that comes back (a refrain at the head of a page)
fails one of these, and the title of a chapter is its heading the first time.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from stilnovo.reading.headings import CHAPTERS, PARTS, compared
from stilnovo.reading.numerals import value as numeral_value
from stilnovo.reading.pdf.page_lines import PageLine, width
from stilnovo.reading.text_builder import ApparatusKind
from stilnovo.text.italian import fold

_NUMBER = r"(?:\d{1,4}|[ivxlc]{1,8}|[IVXLC]{1,8})"
_WHOLE = re.compile(
    rf"[\W_]*(?:(?:pag|pg|p|page|seite|s)(?:ina)?\.?\s*)?({_NUMBER})(?:\s*(?:/|di|of|von|sur)\s*\d+)?[\W_]*", re.I
)
_FIRST = re.compile(rf"({_NUMBER})(?P<gap>[\s.|·•–—-]+)(?P<rest>\D.*)", re.S)
_LAST = re.compile(
    rf"(?P<rest>.+?)(?P<gap>[\s.|·•–—-]+(?:(?:pag(?:ina|\.)?|p\.|page|seite)\s*)?)({_NUMBER})(?:\s?(?:/|di|of|von|sur)\s?\d+)?",
    re.S | re.I,
)
_NOTE = re.compile(r"[\[(]?(?:\d{1,3}|\*{1,3}|[†‡§]|[a-z](?=[).]))[\])]?[.\s]?\s*\S")
_KINDS = frozenset(fold(kind).strip(". ") for kind in (*PARTS, *CHAPTERS)) | {"cap", "chapter", "kapitel", "chapitre"}
_NUMBERED = re.compile(rf"(?:{'|'.join(sorted(_KINDS))})\.? (?:\d+|[ivxlc]+|\w+[oa])\b.*")
_LED = re.compile(r"(?:\.{4,}|(?: \.){3,}|…{2,})\s*(?:\d{1,4}|[ivxlc]{1,8})\Z", re.I)
_CONTENTS = re.compile(
    r"(?:(?:indice|tavola|sommario|table of contents|contents|inhalt|inhaltsverzeichnis|table des matieres)\b.{0,30})"
)
#: Of how many lines at each end of a page a head may consist.
_ROUNDS = 3
#: Set off: this much more than the usual distance of two lines. Small: this much of the usual size.
_GAP, _SMALL = 1.3, 0.93


class _Reading(NamedTuple):
    """A line read as a number and the words beside it, if there are any; `wide`: number and words stand far apart."""

    number: int
    roman: bool
    rest: str
    wide: bool


@dataclass
class _Sheet:
    """A page: its lines, their order from top to bottom, and what was taken from its text."""

    lines: Sequence[PageLine]
    order: list[int]
    kinds: dict[int, ApparatusKind] = field(default_factory=dict)

    def edge(self, top: bool) -> int | None:
        """The outermost line that is still text."""
        return next((i for i in (self.order if top else reversed(self.order)) if i not in self.kinds), None)

    def inner(self, line: int, top: bool) -> int | None:
        """The next line inward."""
        order = self.order if top else self.order[::-1]
        rest = iter(order[order.index(line) + 1 :])
        return next(rest, None)


def _readings(text: str) -> Iterator[_Reading]:
    """The ways in which a line can be read as a page number with or without words beside it."""
    whole, first, last = _WHOLE.fullmatch(text), _FIRST.fullmatch(text), _LAST.fullmatch(text)
    for match, number in ((whole, 1), (first, 1), (last, 3)):
        if match is None:
            continue
        digits, rest = match.group(number), "" if match is whole else match.group("rest").strip()
        parsed = numeral_value(digits.upper())
        if parsed is None or (rest and fold(rest).strip(" .") in _KINDS):
            continue
        wide = bool(rest) and (len(match.group("gap")) > 1 or not match.group("gap").isspace())
        yield _Reading(parsed, not digits.isdigit(), rest, wide)


def _downwards(lines: Sequence[PageLine]) -> list[int]:
    return sorted(range(len(lines)), key=lambda i: (-lines[i].y, i))


@dataclass
class _Head:
    """A line at the edge of a page that may be a running head, and what speaks for it."""

    page: int
    line: int
    key: str
    numbered: bool
    wide: bool
    gap: float
    size: float
    text: str


class _Pages:
    """The search over all pages."""

    def __init__(self, pages: Sequence[Sequence[PageLine]], known: Iterable[str]) -> None:
        self.sheets = [_Sheet(lines, _downwards(lines)) for lines in pages]
        sizes: Counter[float] = Counter()
        gaps: Counter[float] = Counter()
        for sheet in self.sheets:
            for line in sheet.lines:
                sizes[round(line.size, 1)] += len(line.text)
            ordered = [sheet.lines[i].y for i in sheet.order]
            gaps.update(round(above - below, 0) for above, below in pairwise(ordered) if above - below > 2)
        self.size = max(sizes, key=lambda size: sizes[size], default=12.0) or 12.0
        self.leading = max(gaps, key=lambda gap: gaps[gap], default=14.0)
        self.known = {fold(words).strip() for words in known} - {""}
        self.titles = Counter(key for sheet in self.sheets for key in self.set_off(sheet))
        self.widest = [max((width(line.text) for line in sheet.lines), default=1.0) for sheet in self.sheets]

    def set_off(self, sheet: _Sheet) -> Iterator[str]:
        """Words of lines inside a page that look like titles: larger, or in capitals, or between blank lines."""
        for above, i, below in zip(sheet.order, sheet.order[1:], sheet.order[2:], strict=False):
            line = sheet.lines[i]
            gaps = sheet.lines[above].y - line.y, line.y - sheet.lines[below].y
            larger = line.size > 1.08 * self.size or line.text.isupper()
            if len(line.text) < 80 and (larger or min(gaps) >= _GAP * self.leading):
                yield compared(line.text)

    def offsets(self) -> set[tuple[bool, int]]:
        """Differences between printed numbers and pages that hold all over: what counts on with the pages.

        Of two counts on the same pages the one with more pages is that of the pages: a poem numbered IX on page 9 is not.
        """
        where: dict[tuple[bool, int], dict[int, bool]] = defaultdict(dict)
        for page, sheet in enumerate(self.sheets):
            for top in (True, False):
                for i in (sheet.order if top else sheet.order[::-1])[:2]:
                    for reading in _readings(sheet.lines[i].text):
                        if not (reading.roman and not reading.rest and top and not sheet.lines[i].text.islower()):
                            where[reading.roman, reading.number - page].setdefault(page, top)
        chosen: set[tuple[bool, int]] = set()
        taken: set[int] = set()
        for key in sorted(where, key=lambda key: (-len(where[key]), sum(where[key].values()), key)):
            pages = where[key]
            enough = len(pages) >= max(2, 0.05 * len(self.sheets)) and any(
                b - a <= 2 for a, b in pairwise(sorted(pages))
            )
            if enough and len(taken & set(pages)) * 4 <= len(pages):
                chosen.add(key)
                taken |= set(pages)
        return chosen

    def page_numbers(self, offsets: set[tuple[bool, int]]) -> None:
        """Set apart edge lines that are nothing but their page's number."""
        for page, sheet in enumerate(self.sheets):
            for top in (True, False):
                i = sheet.edge(top)
                for reading in _readings(sheet.lines[i].text) if i is not None else ():
                    if not reading.rest and (reading.roman, reading.number - page) in offsets:
                        sheet.kinds[i or 0] = "page"

    def candidates(self, offsets: set[tuple[bool, int]], top: bool) -> list[_Head]:
        """The edge lines of all pages, with what speaks for their being heads."""
        heads = []
        for page, sheet in enumerate(self.sheets):
            i = sheet.edge(top)
            if i is None:
                continue
            line, inner = sheet.lines[i], sheet.inner(i, top)
            gap = abs(line.y - sheet.lines[inner].y) / self.leading if inner is not None else 9.0
            match = next((r for r in _readings(line.text) if r.rest and (r.roman, r.number - page) in offsets), None)
            words = match.rest if match else line.text
            heads.append(
                _Head(page, i, compared(words), match is not None, bool(match and match.wide), gap, line.size, words)
            )
        return heads

    def take(self, offsets: set[tuple[bool, int]], top: bool) -> bool:
        """Set apart the running heads among the outermost lines; whether there were any."""
        heads = self.candidates(offsets, top)
        groups: dict[str, list[_Head]] = defaultdict(list)
        for head in heads:
            if head.key:
                groups[head.key].append(head)
        by_page = {head.page: head for head in heads}
        repeated = {key for key, group in groups.items() if len(group) > 1 or group[0].numbered}
        taken = False
        for group in groups.values():
            for head in self.heads_in(group, by_page, repeated):
                self.sheets[head.page].kinds[head.line] = "running head"
                taken = True
        return taken

    def heads_in(self, group: list[_Head], by_page: dict[int, _Head], repeated: set[str]) -> list[_Head]:
        """Those of the edge lines with the same words that are running heads."""
        size = median(head.size for head in group)
        alike = [head for head in group if head.size <= 1.08 * size]  # a larger one is the title itself
        first, text = alike[0], alike[0].text
        set_off = median(head.gap for head in alike) >= _GAP or abs(size / self.size - 1) > 0.06
        caps, known = text.isupper(), first.key in self.known or self.titles[first.key] > 0
        counted = sum(head.numbered for head in alike)
        if counted:
            surely = set_off or caps or known or len(alike) > 1 or first.wide
            return alike if surely and (counted * 3 >= len(alike) or self.exclusive(alike, by_page, repeated)) else []
        near = sum(
            b.page - a.page <= 3 or all(_is_known(by_page.get(p), repeated) for p in range(a.page + 1, b.page))
            for a, b in pairwise(alike)
        )
        if near < max(1, len(alike) // 3) or text[:1].islower() or not self.exclusive(alike, by_page, repeated):
            return []
        if _NUMBERED.fullmatch(first.key) and not self.titles[first.key]:
            return alike[1:]  # the chapter's own heading, and then its running head
        many = len(alike) >= max(3, len(self.sheets) // 3)
        short = all(head.text[-1:] not in ".!?;:," for head in alike) and all(
            width(head.text) < 0.6 * self.widest[head.page] for head in alike
        )
        enough = (known or caps) or len(alike) > 2
        heights = [self.sheets[head.page].lines[head.line].y for head in alike]
        opens = first.gap > 1.5 * median(head.gap for head in alike) and len(alike) > 2
        opens = opens and abs(heights[0] - median(heights)) > 0.5 * size
        shown = alike[1:] if opens and not known else alike
        named = caps or (known and short)
        return shown if (set_off and enough and (named or short)) or (many and short) or named else []

    def exclusive(self, group: list[_Head], by_page: dict[int, _Head], repeated: set[str]) -> bool:
        """Whether hardly any page between the first and the last has a line of its text at the height of these."""
        height = median(self.sheets[head.page].lines[head.line].y for head in group)
        others = [
            head
            for page in range(group[0].page, group[-1].page + 1)
            if (head := by_page.get(page)) and head.key != group[0].key
        ]
        same = sum(
            abs(self.sheets[head.page].lines[head.line].y - height) <= 2 and not _is_known(head, repeated)
            for head in others
        )
        return same * 4 <= len(group)

    def catchwords(self) -> None:
        """Set apart a last line that is the first word of the next page, printed at the right."""
        for sheet, following in pairwise(self.sheets):
            last, first = sheet.edge(False), following.edge(True)
            if last is None or first is None or len(sheet.order) < 4:
                continue
            line, words = sheet.lines[last], following.lines[first].text.split()
            ends = max(other.x + width(other.text) * other.size * 0.45 for other in sheet.lines)
            left = min(other.x for other in sheet.lines)
            if words and line.text == words[0] and line.x > left + 0.5 * (ends - left):
                sheet.kinds[last] = "page"

    def notes(self) -> None:
        """Set apart lines in smaller type at the foot, from the first that begins with a number or a mark."""
        before = False
        for sheet in self.sheets:
            body = [i for i in sheet.order if i not in sheet.kinds]
            foot: list[int] = []
            while body and sheet.lines[body[-1]].size <= _SMALL * self.size:
                foot.append(body.pop())
            foot.reverse()
            start = (
                0 if before else next((n for n, i in enumerate(foot) if _NOTE.match(sheet.lines[i].text)), len(foot))
            )
            marked = any(_NOTE.match(sheet.lines[i].text) for i in foot)
            before = bool(body) and start < len(foot) and (marked or before)
            if before:
                sheet.kinds.update(dict.fromkeys(foot[start:], "note"))


def _contents(sheet: _Sheet) -> None:
    """Set a table of contents apart: lines that lead to a page by dots, with its title and what stands between them."""
    led = [n for n, i in enumerate(sheet.order) if i not in sheet.kinds and _LED.search(sheet.lines[i].text)]
    if len(led) < 3 or led[-1] - led[0] > 3 * len(led):
        return
    first = led[0]
    while first and len(sheet.lines[sheet.order[first - 1]].text) < 60 and led[0] - first < 3:
        first -= 1
        if _CONTENTS.fullmatch(fold(sheet.lines[sheet.order[first]].text).strip()):
            led[0] = first
            break
    for i in sheet.order[led[0] : led[-1] + 1]:
        sheet.kinds.setdefault(i, "contents")


def _is_known(head: _Head | None, repeated: set[str]) -> bool:
    """Whether the first line of a page comes back on others, opens a chapter or stands apart: it is no line of the text."""
    if head is None:
        return False
    return head.key in repeated or bool(_NUMBERED.fullmatch(head.key)) or head.gap >= 1.8 or head.text.isupper()


def starts_note(text: str) -> bool:
    """Whether a line at the foot of a page begins a note: it opens with a number or a mark."""
    return bool(_NOTE.match(text))


def apparatus(pages: Sequence[Sequence[PageLine]], known: Iterable[str] = ()) -> list[dict[int, ApparatusKind]]:
    """Find what is not text on printed pages: for each page, lines (by their place in it) and what they are.

    Args:
        pages: The lines of each page.
        known: Title and author of the work, which running heads repeat.
    """
    search = _Pages(pages, known)
    offsets = search.offsets()
    for _ in range(_ROUNDS):
        search.page_numbers(offsets)
        taken = [search.take(offsets, top) for top in (True, False)]
        if not any(taken):
            break
    for sheet in search.sheets:
        _contents(sheet)
    search.catchwords()
    search.notes()
    return [sheet.kinds for sheet in search.sheets]
