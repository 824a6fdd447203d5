"""Write what the walk through a TEI text finds: blocks, headings, lines of verse, and what is kept apart.

Two things come later than they are found. A section without a printed heading begins with its first word, not with the
speaker or the note before it. And words in the middle of a paragraph that are kept apart get their offset when the
paragraph is written.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from stilnovo.reading.headings import Heading
from stilnovo.reading.hyphens import Hyphens
from stilnovo.reading.tei.running_text import RunningText
from stilnovo.reading.tei.tei_divisions import Division, Siblings
from stilnovo.reading.text_builder import Apparatus, ApparatusKind, TextBuilder, VerseLine


@dataclass
class BlockStyle:
    """How the words of a block are written: as prose, a heading, or a line of verse with its number."""

    verse: bool = False
    number: int | None = None
    continued: bool = False  # the line goes on with the verse before
    loose: bool = False  # printed lines end where `lb` says
    heading: Division | None = None


@dataclass
class _Capture:
    """Words that are being kept apart; where there are several pieces (`loose`), each is one."""

    kind: ApparatusKind
    loose: bool
    target: RunningText
    outer: RunningText


class TeiWriter(TextBuilder):
    """Collect text, headings, lines of verse and apparatus; `lines` gives the lines of the whole document."""

    def __init__(self, lines: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self.all_lines = lines
        self.running = RunningText(self.whole)
        self.base = self.running
        self.captures: list[_Capture] = []
        self.styles = [BlockStyle()]
        self.gap = ""
        self.open: list[Division] = []  # sections that have begun and not ended
        self.current: Division | None = None  # the section of the last heading
        self.outside = Division(ET.Element("div"), 1, Siblings(), named=Heading(0, 0, 1, "", None, ""))
        self.waiting: list[Division] = []  # sections without a printed heading, before their first word
        self.held: list[tuple[ApparatusKind, str]] = []  # what stood before that word
        self.headings: list[Heading] = []
        self.continued: set[int] = set()  # lines that go on with the verse before

    @cached_property
    def hyphens(self) -> Hyphens:
        """What tells whether a hyphen at a line's end is the word's own."""
        return Hyphens(self.all_lines())

    def whole(self, line: str, following: str) -> str | None:
        """The end of a line whose word goes on with `following`."""
        return self.hyphens.joined(line, following)

    # words kept apart

    def keep_apart(self, kind: ApparatusKind, loose: bool) -> bool:
        """Begin to keep words apart, until `release`; False where they stay with those around them that are being kept apart.

        `loose`: there will be several pieces, each by itself.
        """
        outer = self.captures[-1] if self.captures else None
        reading = kind in ("reading", "deletion")
        if outer and not outer.loose and not reading:
            return False
        if outer and not reading:
            self.piece()
        self.captures.append(_Capture(kind, loose, self.running if reading else self.base, self.running))
        self.running = RunningText(self.whole)
        return True

    def piece(self) -> None:
        """Hand over what was kept apart so far."""
        capture = self.captures[-1]
        text, marks = self.running.take()
        for kind, said in ((capture.kind, text), *((kind, said) for _, kind, said in marks)):
            if not said:
                continue
            if capture.target or capture.target is not self.base:
                capture.target.mark(kind, said)
            else:
                self.aside(kind, said)

    def release(self) -> None:
        """End what is kept apart."""
        self.piece()
        self.running = self.captures.pop().outer

    def aside(self, kind: ApparatusKind, text: str) -> None:
        """Keep words apart that stand between blocks; before a section's first word they belong to the section."""
        if self.waiting:
            self.held.append((kind, text))
        else:
            self.apart(kind, text)

    def let_go(self) -> list[tuple[ApparatusKind, str]]:
        """Keep apart, here, what was held; nothing is held then."""
        for kind, text in self.held:
            self.apart(kind, text)
        return []

    # blocks

    def close(self, gap: str) -> None:
        """End a block; `gap` at least stands before the next."""
        if self.captures:
            if self.captures[-1].loose:
                self.piece()
            else:
                self.running.new_line()
            return
        text, marks = self.running.take()
        if text:
            start = self.write(text)
            self.gap = ""
        for offset, kind, said in marks:
            if text:
                self.apparatus.append(Apparatus(kind, said, start + offset))
            else:
                self.aside(kind, said)
        self.gap = max(self.gap, gap, key=len)

    def write(self, text: str) -> int:
        """Put a block into the text; returns where it begins."""
        style, gap = self.styles[-1], self.gap
        inner = self.open[-1] if self.open else None
        if not self.waiting and not style.heading and self.headings and self.current is not inner:
            self.waiting = [inner or self.outside]  # text goes on behind a section
        if self.waiting:
            self.put("", "\n\n\n")
            self.headings += filter(None, (division.heading(self.length, self.length) for division in self.waiting))
            self.current = inner
            self.waiting = []
            self.held, gap = self.let_go(), ""
        if style.heading:
            start = self.put(text, gap if style.heading.start >= 0 or not gap else "\n\n\n")
            style.heading.lines.extend(text.split("\n"))
            style.heading.start = start if style.heading.start < 0 else style.heading.start
            style.heading.end = self.length
            return start
        if not style.verse:
            return self.put(text, gap)
        self.line(text, gap, style.number)
        if style.continued:
            self.continued.add(len(self.lines) - 1)
        style.continued = not style.loose  # what else comes in this line
        return self.lines[-1].start

    def heading_ends(self, division: Division) -> None:
        """A printed heading is complete; without words of its own it is none."""
        if not division.lines:
            self.waiting.append(division)
        elif heading := division.heading(division.start, division.end):
            self.headings.append(heading)
            self.current = division

    def numbered(self) -> tuple[VerseLine, ...]:
        """The lines of verse; a verse that several speakers share has one number, and no section has a number twice."""
        lines = list(self.lines)
        starts = [heading.start for heading in self.headings]
        bounds = [bisect_left(lines, (start,)) for start in starts]
        for first, last in pairwise([0, *bounds, len(lines)]):
            said = [number for line in lines[first:last] if (number := line.number)]
            if any(after < before for before, after in pairwise(said)):  # counted anew in each stanza
                lines[first:last] = [line._replace(number=None) for line in lines[first:last]]
            if self.continued.isdisjoint(range(first, last)):
                continue
            new = [i not in self.continued for i in range(first, last)]
            known = next((i for i in range(first, last) if lines[i].number), None)
            number = 0 if known is None else (lines[known].number or 0) - sum(new[: known - first + 1])
            for i in range(first, last):
                number = lines[i].number or number + (new[i - first] or number == 0)
                lines[i] = lines[i]._replace(number=number)
        return tuple(lines)
