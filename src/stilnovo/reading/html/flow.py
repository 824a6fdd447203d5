"""Running text as it comes out of a page: pieces gathered until a block ends, then put as lines, words kept whole.

What stands apart inside a sentence (a note's mark, a page number in the middle of a word) is taken out and remembers
where it stood; white space is the source's, so that nothing is glued or split. A large initial joins its word.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stilnovo.reading.headings import number_of
from stilnovo.reading.text_builder import Apparatus, ApparatusKind, HeadingMark, TextBuilder

#: Stand in the text of a block for what stands apart and for the image of an initial; no page can hold them.
_ASIDE, _INITIAL = "\x00", "\x01"
_BLANKS = re.compile(r"\s+")
_SPACES = re.compile(r"[^\S\n]+")
_LONE_INITIAL = re.compile(r"[«“\"„‘’'(—–-]*\s*[^\W\d_a-zß-ÿ]['’]?")
_NUMERAL = re.compile(r"[\[(]?(?:\d{1,3}|[IVXLC]{1,8})[\])]?\.?")
_BROKEN = re.compile(r"[^\W\d_]-\Z")
#: Says whether the block of these lines, which begins there, is a heading (level 0: not marked as one), and which.
Begin = Callable[[TextBuilder, Sequence[str], int, int], HeadingMark | None]
#: A line of more characters is no verse, whatever the source calls it.
_LONGEST_VERSE = 240
#: Lines of prose that are broken where they are full are longer than this, as those of verse seldom are.
_FULL = 48
_VOWELS = frozenset("aeiouèéò")


@dataclass
class Aside:
    """Words that stand apart: their kind and text, and the number they say of a verse.

    `spaced`: blanks stood around them. `letter`: the image of an initial that may begin the line is that letter.
    """

    kind: ApparatusKind
    text: str
    number: int | None = None
    spaced: bool = False
    letter: str = ""


@dataclass
class _Line:
    text: str
    asides: list[tuple[int, Aside]] = field(default_factory=list)

    def put_before(self, text: str, asides: Sequence[tuple[int, Aside]] = ()) -> None:
        """Put text before the line, with what stood apart in it."""
        self.asides = [*asides, *((at + len(text), aside) for at, aside in self.asides)]
        self.text = text + self.text


@dataclass
class _Pending:
    line: _Line
    sure: bool
    image: Aside | None


class Flow(ABC):
    """Collect a block's pieces; `close` ends it and hands its lines to `put`."""

    def __init__(self, vocabulary: Callable[[], Counter[str]]) -> None:
        self.pieces: list[str] = []
        self.asides: list[Aside] = []
        self.initials: list[Aside] = []
        self.gap, self.marked_initial = "\n\n", False
        self.pending: _Pending | None = None
        self.vocabulary = vocabulary

    def say(self, text: str, plain: bool) -> None:
        """Add running text; `plain` keeps its line breaks."""
        if _ASIDE in text or _INITIAL in text:
            text = text.replace(_ASIDE, "\ufffd").replace(_INITIAL, "\ufffd")
        self.pieces.append(text if plain else _BLANKS.sub(" ", text))

    def apart(self, aside: Aside) -> None:
        """Add words that stand apart."""
        self.asides.append(aside)
        self.pieces.append(f" {_ASIDE} " if aside.spaced else _ASIDE)

    def initial(self, letter: str, aside: Aside) -> None:
        """Add the image of a letter: `aside` if it turns out to begin no word."""
        self.initials.append(Aside("figure", aside.text))
        self.asides.append(Aside("other", letter))
        self.pieces.append(_INITIAL)

    def last_words(self) -> str:
        """The end of the block so far, without what stands apart."""
        return "".join(self.pieces[-4:]).replace(_ASIDE, "")[-40:]

    def lines(self) -> list[_Line]:
        """The lines of the block so far, which is ended by that."""
        if not self.asides:
            text = "".join(self.pieces)
            self.pieces.clear()
            return [_Line(_collapsed(line).strip(" \t")) for line in text.split("\n")]
        asides, initials = iter(self.asides), iter(self.initials)
        lines = []
        for raw in "".join(self.pieces).split("\n"):
            parts = re.split(f"([{_ASIDE}{_INITIAL}])", _collapsed(raw))
            line, built, length, end = _Line(""), list[str](), 0, " "
            after_initial: Aside | None = None
            for part in parts:
                if part == _ASIDE:
                    line.asides.append((length, next(asides)))
                elif part == _INITIAL:
                    letter, image = next(asides).text, next(initials)
                    line.asides.append((length, image))
                    image.letter = "" if built else letter
                    after_initial = image
                elif part:
                    if after_initial:
                        after_initial.spaced, after_initial = part[0] == " ", None
                    piece = part.lstrip(" \t") if end in " \t" else part
                    if piece:
                        built.append(piece)
                        length, end = length + len(piece), piece[-1]
            line.text = "".join(built).rstrip(" \t")
            line.asides = [(min(at, len(line.text)), aside) for at, aside in line.asides]
            lines.append(line)
        self.pieces.clear()
        self.asides.clear()
        self.initials.clear()
        return lines

    def joins(self, letter: str, following: str, sure: bool, spaced: bool = False) -> bool:
        """Whether an initial and the text after it are one word. `sure`: the source marks it; `spaced`: a blank is between."""
        letter = letter.lstrip("«“\"„‘’'(—–- ")
        first, vowel = following[:1], letter[:1].lower() in _VOWELS
        if first in ("'", "’") or letter.endswith(("'", "’")):
            return bool(following)
        if not first.isalpha() or first.lower() == letter.lower() or (first.isupper() and not sure):
            return False
        word = re.match(r"[^\W\d_]+", following)
        rest = word.group() if word else first
        if first.isupper() and len(rest) > 1 and not rest.isupper():
            return False
        if not vowel:
            return True
        words = self.vocabulary()
        return words[(letter + rest).lower()] > 0 or (not spaced and words[rest.lower()] < 2)

    def begun(self, lines: list[_Line]) -> list[_Line]:
        """The lines with images of initials joined to their words, and with the initial that stood before the block."""
        first = next((line for line in lines if line.text), None)
        image = next(((line, at, aside) for line in lines for at, aside in line.asides if aside.letter), None)
        if image and (image[0] is first or first is None):
            line, at, aside = image
            if first is None:
                line.asides.remove((at, aside))
                self.pending = _Pending(_Line(aside.letter), True, aside)
            elif before := self.before(aside.letter, line.text, True, aside.spaced):
                line.asides.remove((at, aside))
                line.put_before(before)
        if self.pending and first is not None:
            pending, self.pending = self.pending, None
            if before := self.before(
                pending.line.text, first.text, pending.sure, False, pending.sure or pending.image is not None
            ):
                first.put_before(before, pending.line.asides)
            elif pending.image:
                lines = [_Line("", [(0, pending.image)]), *lines]
            else:
                lines = [pending.line, _Line(""), *lines]
        return lines

    def before(self, letter: str, following: str, sure: bool, spaced: bool, image: bool = True) -> str:
        """What an initial puts before a text: a letter of its first word, or a word of one letter; nothing if it is neither."""
        if self.joins(letter, following, sure, spaced):
            return letter
        return f"{letter} " if image and following[:1].islower() and letter.lower() != following[:1] else ""

    def close(self, gap: str, verse: bool = False, heading: int = 0) -> None:
        """End a line or paragraph; `gap` is put before the next."""
        if not self.pieces or (len(self.pieces) == 1 and self.pieces[0].isspace()):
            self.pieces.clear()
            self.gap = gap if len(gap) > len(self.gap) else self.gap
            return
        lines = self.lines()
        full = [line for line in lines if line.text]
        sure, self.marked_initial = self.marked_initial, False
        lone = len(full) == 1 and not heading and not self.pending and _LONE_INITIAL.fullmatch(full[0].text)
        if lone and (sure or full[0].text[-1].lower() not in _VOWELS):
            self.pending = _Pending(full[0], sure, None)
            return
        lines = self.begun(lines)
        if not verse:
            lines = _joined(lines)
        if any(line.text or line.asides for line in lines):
            self.put(lines, self.gap, verse, heading)
        # The widest gap since the last words counts.
        self.gap = gap if full or len(gap) > len(self.gap) else self.gap

    def end(self) -> None:
        """End the last block, and put an initial that nothing followed."""
        self.close("\n\n")
        if pending := self.pending:
            self.pending = None
            self.put([pending.line] if not pending.image else [_Line("", [(0, pending.image)])], self.gap, False, 0)

    @abstractmethod
    def put(self, lines: list[_Line], gap: str, verse: bool, heading: int) -> None:
        """Take in the lines of a block."""


def _collapsed(line: str) -> str:
    """A line with each run of blanks made one, a tab (the gap between cells) when there is one in it."""
    if "\t" in line:
        return _SPACES.sub(lambda run: "\t" if "\t" in run.group() else " ", line)
    return _SPACES.sub(" ", line)


def _joined(lines: list[_Line]) -> list[_Line]:
    """The lines, with words that a hyphen breaks at the end of one made whole, where the lines are full ones of prose."""
    lengths = [len(line.text) for line in lines[:-1] if line.text]
    if not lengths or max(lengths) < _FULL or min(lengths) < 0.7 * max(lengths):
        return lines
    joined: list[_Line] = []
    for line in lines:
        before = joined[-1] if joined else None
        if before and _BROKEN.search(before.text) and line.text[:1].islower():
            cut = len(before.text) - 1
            before.asides = [(min(at, cut), a) for at, a in before.asides] + [(at + cut, a) for at, a in line.asides]
            before.text = before.text[:-1] + line.text
        else:
            joined.append(line)
    return joined


class ApartFlow(Flow):
    """The flow of what stands apart: its text is kept whole, what stands apart inside it follows it."""

    def __init__(self, kind: ApparatusKind, vocabulary: Callable[[], Counter[str]], element: object = None) -> None:
        super().__init__(vocabulary)
        self.kind, self.element, self.texts, self.inner, self.spaced = kind, element, list[str](), list[Aside](), False
        self.notes: int | None = None  # how many notes stand in the element

    def put(self, lines: list[_Line], gap: str, verse: bool, heading: int) -> None:
        """Take in the lines of a block."""
        text = "\n".join(line.text for line in lines).strip("\n")
        if text:
            self.texts.append((gap if self.texts else "") + text)
        self.inner += [aside for line in lines for _, aside in line.asides]

    def result(self) -> list[Aside]:
        """All that stood apart: the text itself, then what stood apart in it."""
        raw = "".join(self.pieces)
        self.end()
        self.spaced = self.spaced or raw != raw.strip()
        text = "".join(self.texts)
        return ([Aside(self.kind, text, spaced=self.spaced)] if text else []) + self.inner


class MainFlow(Flow):
    """The flow of the author's text, put into a builder; sections that a table of contents names begin where they are due."""

    def __init__(self, builder: TextBuilder, vocabulary: Callable[[], Counter[str]], begin: Begin) -> None:
        super().__init__(vocabulary)
        self.builder, self.begin = builder, begin
        self.numeral: tuple[_Line, str] | None = None
        self.opens, self.numeral_opens = True, False  # no words were put yet; nor before the numeral

    def put(self, lines: list[_Line], gap: str, verse: bool, heading: int) -> None:
        """Put the lines of a block; what stands apart in them keeps its place.

        A number alone before a stanza, under the heading of a section, is the stanza's, and stands apart; one that opens
        a page, before a heading without a number, belongs to the heading.
        """
        opens, self.opens = self.opens, self.opens and not any(line.text for line in lines)
        if self.numeral:
            (before, wide), self.numeral = self.numeral, None
            words = [line.text for line in lines if line.text]
            if heading and self.numeral_opens and words and number_of(words)[0] is None:
                self.put_lines([before, *lines], wide, verse, heading)
                return
            if verse and any(line.text for line in lines):
                before.asides.append((0, Aside("line number", before.text)))
                before.text = ""
            self.put_lines([before], wide, False, 0)
        full = [line for line in lines if line.text]
        if (
            len(full) == 1
            and not heading
            and (opens or self.builder.heading_marks)
            and _NUMERAL.fullmatch(full[0].text)
        ):
            self.numeral, self.numeral_opens = (full[0], gap), opens
        else:
            self.put_lines(lines, gap, verse, heading)

    def end(self) -> None:
        """End the last block, and put what waited for the next."""
        super().end()
        if self.numeral:
            (before, wide), self.numeral = self.numeral, None
            self.put_lines([before], wide, False, 0)

    def put_lines(self, lines: list[_Line], gap: str, verse: bool, heading: int) -> None:
        """Put the lines of a block; what stands apart in them keeps its place."""
        words = [line.text for line in lines if line.text]
        builder, first, blank = self.builder, True, False
        mark: HeadingMark | None = None
        for line in lines:
            if not line.text:
                start, blank = builder.length, blank or not first
            else:
                wide = "\n\n\n" if first and heading else gap if first else "\n\n" if blank else "\n"
                number = next((a.number for _, a in line.asides if a.kind == "line number"), None)
                if verse and not heading and len(line.text) <= _LONGEST_VERSE:
                    builder.line(line.text, wide, number)
                    start = builder.lines[-1].start
                else:
                    start = builder.put(line.text, wide)
                if first:
                    mark = self.begin(builder, words, start, heading)
                first, blank = False, False
            for at, aside in line.asides:
                offset = len(unicodedata.normalize("NFC", line.text[:at])) if not line.text.isascii() else at
                builder.apparatus.append(
                    Apparatus(aside.kind, unicodedata.normalize("NFC", aside.text), min(start + offset, builder.length))
                )
        if mark:
            builder.heading_marks.append(
                (mark[0], builder.length, mark[2], [unicodedata.normalize("NFC", word) for word in mark[3]])
            )
