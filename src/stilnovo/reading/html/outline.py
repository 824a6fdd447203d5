"""Sections of a book as its table of contents names them.

A book names its chapters in `toc.ncx` (EPUB 2) or a `nav` (EPUB 3), often only there: a section then begins where the
pages reach the place that an entry leads to, whether or not its label is printed there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from stilnovo.reading import numerals
from stilnovo.reading.headings import CHAPTERS, PARTS, compared, number_of
from stilnovo.reading.html.html_tree import Element
from stilnovo.reading.html.notes import Place, place
from stilnovo.reading.html.roles import marks
from stilnovo.reading.text_builder import HeadingMark, TextBuilder, VerseLine
from stilnovo.reading.verse import is_verse, verse_spans

# A paragraph of a number alone; no more headings than that are missing in a row.
_ALONE = re.compile(r"(?<=\n\n)[ \t]*(\d{1,3}|[IVXLC]{1,8})\.?[ \t]*(?=\n\n)")
_MISSING = 200
#: A label printed farther below than this where its section begins is not its heading.
_NEAR = 300
_NAMED = re.compile(
    rf"\W*(?:{'|'.join((*PARTS, *CHAPTERS))}|introduzione|prefazione|prologo|epilogo|conclusione|proemio|appendice|nota)\b",
    re.I,
)


@dataclass(frozen=True)
class ContentsEntry:
    """A line of the table of contents: a label, how deep it stands (1 outermost), and the page and id it leads to."""

    label: str
    depth: int
    page: str
    fragment: str


class Outline:
    """The sections of a book as its table of contents names them, each begun where the pages reach its place."""

    def __init__(self, entries: Sequence[ContentsEntry] = (), apart: Collection[str] = ()) -> None:
        self.places: dict[Place, list[ContentsEntry]] = defaultdict(list)
        self.fragments: dict[str, list[str]] = defaultdict(list)
        entries = _without(entries, apart)
        for entry in entries:
            self.places[entry.page, entry.fragment].append(entry)
            self.fragments[entry.page].append(entry.fragment)
        self.nested = len({entry.depth for entry in entries}) > 1
        self.waiting: list[ContentsEntry] = []
        self.current = 0
        self.named: set[int] = set()  # where headings begin that the table of contents names
        # The label that the last block began to print, and what of it; where a section began whose label is not printed yet.
        self.printing: tuple[ContentsEntry, str] | None = None
        self.unprinted: tuple[ContentsEntry, int] | None = None

    def settle(self, page: str, ids: Collection[str]) -> None:
        """Let entries whose id is not on the page begin with the page."""
        for fragment in self.fragments.get(page, ()):
            if fragment and fragment not in ids and (page, fragment) in self.places:
                self.places[page, ""] += self.places.pop((page, fragment))

    def reach(self, page: str, fragment: str) -> None:
        """The pages have come to a place; sections named there begin with the next words."""
        for entry in self.places.pop((page, fragment), ()):
            self.waiting = [other for other in self.waiting if other.depth < entry.depth] + [entry]

    def picture(self, label: str) -> None:
        """A heading is only a picture of its words: a section without a printed heading begins, if none does already."""
        self.waiting = self.waiting or [ContentsEntry(label, max(1, self.current), "", "")]

    def depth(self, entry: ContentsEntry, level: int) -> int:
        """Depth of a section's heading; 0: as the others. `level`: that of the printed heading, 0 when it is none."""
        self.current = entry.depth
        return 10 * (entry.depth if self.nested else level)

    def begin(self, builder: TextBuilder, words: Sequence[str], start: int, level: int) -> HeadingMark | None:
        """Say whether the block that was put last is a heading: its mark with an open end, which is the text's end.

        Args:
            builder: What the block was put into. Sections whose label is not printed are marked there.
            words: The block's lines.
            start: Where it begins.
            level: 1 to 6 for a heading, 0 for other text.
        """
        asked = self.waiting or self.printing or self.unprinted
        said = compared(" ".join(words)) if asked and (level or len(words[0]) < 300) else ""
        waiting, self.waiting = self.waiting, []
        printing, self.printing = self.printing, None
        unprinted, self.unprinted = self.unprinted, None
        if waiting:
            *outer, entry = waiting
            self.named.add(start)
            builder.heading_marks += [(start, start, self.depth(other, 0), [other.label]) for other in outer]
            label = compared(entry.label)
            if level or (said and (label == said or label.startswith(said + " "))):
                self.printing = None if level or label == said else (entry, said)
                return start, start, self.depth(entry, level), words
            builder.heading_marks.append((start, start, self.depth(entry, 0), [entry.label]))
            self.unprinted = entry, len(builder.heading_marks)
            return None
        if printing and said and not level:
            label, whole = compared(printing[0].label), f"{printing[1]} {said}"
            if label == whole or label.startswith(whole + " "):
                self.printing = (printing[0], whole) if label != whole else None
                begun, _, depth, lines = builder.heading_marks.pop()
                return begun, start, depth, [*lines, *words]
        if (
            unprinted
            and said
            and len(builder.heading_marks) == unprinted[1]
            and start - builder.heading_marks[-1][0] < _NEAR
        ):
            entry = unprinted[0]
            if compared(entry.label) == said or (level and said in compared(entry.label)):
                begun = builder.heading_marks.pop()[0]
                return begun, start, self.depth(entry, level), words
            self.unprinted = unprinted
        return (
            (start, start, (10 * self.current if self.nested else 0) + (level if self.nested else 10 * level), words)
            if level
            else None
        )

    def finish(self, builder: TextBuilder) -> None:
        """Give sections without a printed heading the depth of the others, and headings their second lines."""
        least = min((depth for _, _, depth, _ in builder.heading_marks if depth), default=10)
        builder.heading_marks = [
            (start, end, depth or least, lines) for start, end, depth, lines in builder.heading_marks
        ]
        _mark_missing(builder)
        join_titles(builder, self.named)
        _mark_verse(builder)


def _mark_missing(builder: TextBuilder) -> None:
    """Mark the headings that are missing among headings of a number alone: a paragraph of that number, where all are there."""
    text, added = builder.text, list[HeadingMark]()
    numbers = [
        numerals.value(lines[0].strip(" .")) if len(lines) == 1 and start < end else None
        for start, end, _, lines in builder.heading_marks
    ]
    for (first, second), (mark, following) in zip(pairwise(numbers), pairwise(builder.heading_marks), strict=True):
        if not first or not second or not 1 < second - first <= _MISSING or mark[2] != following[2]:
            continue
        at, between = mark[1], list[HeadingMark]()
        for alone in _ALONE.finditer(text, mark[1], following[0]):
            if numerals.value(alone[1]) == first + 1 + len(between) and alone.start() >= at:
                between.append((alone.start(1), alone.end(1), mark[2], [alone[1]]))
        added += between if len(between) == second - first - 1 else []
    builder.heading_marks = sorted([*builder.heading_marks, *added], key=lambda mark: mark[:2])


def _mark_verse(builder: TextBuilder) -> None:
    """Mark the lines of sections that are verse though the source, which marks others, does not say so."""
    if not builder.lines:
        return
    text = builder.text
    starts = [0, *(end for _, end, _, _ in builder.heading_marks)]
    ends = [*(start for start, *_ in builder.heading_marks), len(text)]
    for start, end in zip(starts, ends, strict=True):
        first, last = bisect_left(builder.lines, (start,)), bisect_left(builder.lines, (end,))
        if first == last and is_verse(text[start:end]):
            builder.lines[first:first] = [VerseLine(*span, None) for span in verse_spans(text, start, end)]


def _without(entries: Sequence[ContentsEntry], apart: Collection[str]) -> list[ContentsEntry]:
    """The entries whose pages are text; what stands below one of the others (a half title) moves up to its depth."""
    left, above = [], list[int]()
    for entry in entries:
        above = [depth for depth in above if depth < entry.depth]
        if entry.page in apart:
            above.append(entry.depth)
        else:
            left.append(replace(entry, depth=entry.depth - len(above)))
    return left


def join_titles(builder: TextBuilder, named: Collection[int]) -> None:
    """Join a heading and the one right below it that is its title: *Capitolo I* and *La fornace*.

    Two that the table of contents names, each by itself (`named`: where they begin), are two. A title has no number of its
    own; smaller headings are titles where they never stand but right below larger ones.
    """
    marks, text = builder.heading_marks, builder.text
    if not marks:
        return
    follows = [False] + [
        before[0] < before[1] and after[0] < after[1] and not text[before[1] : after[0]].strip()
        for before, after in pairwise(marks)
    ]
    free = {mark[2] for mark, right in zip(marks, follows, strict=True) if not right}
    joined: list[HeadingMark] = []
    for mark, right in zip(marks, follows, strict=True):
        before = joined[-1] if joined else None
        fits = before and (mark[2] == before[2] or (mark[2] > before[2] and mark[2] not in free))
        two = before and before[0] in named and mark[0] in named
        if before and right and fits and not two and number_of(before[3])[0] and _is_title(mark[3]):
            joined[-1] = (before[0], mark[1], before[2], [*before[3], *mark[3]])
        else:
            joined.append(mark)
    builder.heading_marks = joined


def _is_title(lines: Sequence[str]) -> bool:
    """Whether a heading neither has a number nor says what it is (*Parte seconda*, *Prologo*)."""
    return number_of(lines)[0] is None and not _NAMED.match(lines[0])


def _depth(element: Element, tag: str) -> int:
    depth, here = 0, element.parent
    while here is not None:
        depth += here.tag == tag
        here = here.parent
    return depth


def from_ncx(root: Element, path: str) -> list[ContentsEntry]:
    """The entries of a `toc.ncx` at `path`."""
    entries = []
    for point in root.find("navpoint"):
        children = [child for child in point.children if isinstance(child, Element)]
        label = next((child.words() for child in children if child.tag == "navlabel"), "")
        source = next((child.get("src") for child in children if child.tag == "content"), "")
        if label and (target := place(path, source)):
            entries.append(ContentsEntry(label, _depth(point, "navpoint") + 1, *target))
    return entries


def from_nav(root: Element, path: str) -> list[ContentsEntry]:
    """The entries of the table of contents on a navigation page at `path`."""
    tables = root.find("nav")
    named = [nav for nav in tables if {"toc", "doc-toc"} & set(marks(nav)[0])]
    table = (named or tables or [root])[0]
    return [
        ContentsEntry(label, max(1, _depth(link, "ol")), *target)
        for link in table.find("a")
        if (label := link.words()) and (target := place(path, link.get("href")))
    ]


def landmarks(root: Element, path: str) -> dict[str, str]:
    """What the landmarks of a navigation page, or an EPUB 2 guide, say the pages are: the word of each page."""
    words: dict[str, str] = {}
    for nav in root.find("nav"):
        if "landmarks" in marks(nav)[0]:
            for link in nav.find("a"):
                if target := place(path, link.get("href")):
                    words[target[0]] = " ".join(marks(link)[0])
    for reference in root.find("reference"):
        if target := place(path, reference.get("href")):
            words.setdefault(target[0], reference.get("type").lower())
    return words
