"""Put a line of running text together from the pieces in which XML holds it: white space, broken words, where notes stood.

A printed line may end inside a word; the break that marks it then says so, or a hyphen does. Two phrases may touch in the
file that no one would print without a space. And what is kept apart leaves its place: the offset of a note in its
paragraph is known only when the paragraph is written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from stilnovo.reading.hyphens import broken
from stilnovo.reading.text_builder import ApparatusKind

#: As much of a line's end as may be a broken word.
_WORD = 80
_HYPHENS = frozenset("-‐‑¬\u00ad")
_CLOSING = frozenset('.,;:!?…»”")]')
_OPENING = frozenset('«“"„‘([¿¡')

#: Apparatus inside a line: its offset there, its kind, its words.
_Placed = tuple[int, ApparatusKind, str]


class RunningText:
    """A line that is being collected; `whole` makes a word of its two halves, as `Hyphens.joined` does."""

    def __init__(self, whole: Callable[[str, str], str | None]) -> None:
        self.whole = whole
        self._begin()

    def _begin(self) -> None:
        self.pieces: list[str] = []
        self.marks: list[_Placed] = []
        self.space = False  # white space was read since the last word
        self.gap = " "  # what white space becomes: a blank, or a line end
        self.broken = ""  # a printed line ended: "no" inside a word, "yes" after one, "maybe"
        self.joined = False  # what follows goes on here, whatever white space is between
        self.seam = False  # two phrases of whole words meet here
        self.ended = False  # a phrase of whole words has just ended

    def __bool__(self) -> bool:
        return bool(self.pieces)

    @property
    def end(self) -> str:
        """The end of what was said."""
        return "".join(self.pieces[-3:])[-_WORD:]

    def say(self, text: str | None) -> None:
        """Add text; its white space counts as one blank."""
        if text and self.marks and self.marks[-1][0] == len(self.pieces):
            text = self._without_brackets(text)
        if not text:
            return
        words = text.split()
        if not words:
            self.space = True
            return
        self._join(words[0], text[0].isspace())
        self.pieces.append(" ".join(words))
        self.space = text[-1].isspace()
        self.joined = self.seam = self.ended = False

    def _without_brackets(self, text: str) -> str:
        """What follows words kept apart, without the bracket that closed round nothing but them; that before them goes, too."""
        before, after = self.pieces[-1] if self.pieces else "", text.lstrip()
        if not before or before[-1] + after[:1] not in ("()", "[]"):
            return text
        self.pieces[-1] = before[:-1].rstrip()
        return after[1:]

    def _join(self, following: str, spaced: bool) -> None:
        """Decide what stands between what was said and a piece that begins with the word `following`."""
        first, last = following[0], self.pieces[-1][-1:] if self.pieces else ""
        if self.broken and last:
            if self._made_whole(following):
                self.broken, self.space, self.gap = "", False, " "
                return
            spaced = True
        if self.seam and (last.isalnum() or last in _CLOSING) and (first.isalnum() or first in _OPENING):
            spaced = True
        if last and not self.joined and (spaced or self.space or self.gap == "\n"):
            self.pieces.append(self.gap)
        self.broken, self.gap = "", " "

    def _made_whole(self, following: str) -> bool:
        """Whether the printed line ended inside a word, which is then put together."""
        alone = self.pieces[-1] in _HYPHENS and len(self.pieces) > 1  # a hyphen in an element of its own
        end = (self.pieces[-2] if alone else "")[-_WORD:] + self.pieces[-1][-_WORD:]
        if self.broken == "yes" or (self.broken == "maybe" and not broken(end)):
            return False
        joined = self.whole(end, following)
        if joined is not None and joined[-1] != end[-1]:
            self.pieces[-1] = self.pieces[-1][:-1]
        return joined is not None or self.broken == "no"

    def end_line(self, broken: str) -> None:
        """A line, page or column of the printed source ends: `broken` is *no* inside a word, *yes* after one, or *maybe*."""
        if self.broken != "no":
            self.broken = broken

    def new_line(self) -> None:
        """What follows begins a new line."""
        self.gap = "\n" if self.pieces else " "

    def phrase(self, begins: bool) -> None:
        """A phrase of whole words begins or ends."""
        self.seam = self.seam or (begins and self.ended)
        self.ended = self.ended or not begins

    def mark(self, kind: ApparatusKind, text: str) -> None:
        """Note that words stood here which are kept apart. Only a reading or a printer's mark may stand inside a word."""
        self.marks.append((len(self.pieces), kind, text))
        self.seam = self.seam or kind not in ("reading", "deletion", "running head", "page", "line number")

    def take(self) -> tuple[str, list[_Placed]]:
        """The line and the marks in it by their offsets; the next begins empty."""
        pieces = [unicodedata.normalize("NFC", piece.replace("\u00ad", "")) for piece in self.pieces]
        text, marks = unicodedata.normalize("NFC", "".join(pieces)).strip(), []
        done = offset = 0
        for count, kind, words in self.marks:
            offset += sum(map(len, pieces[done:count]))
            done = count
            marks.append((min(offset, len(text)), kind, words))
        self._begin()
        return text, marks
