"""Read TEI (P4 and P5): every word of the text once, in order, with what the edition says about it.

The tree is walked as it is, whatever stands in whatever: no element is known that would have to be known to be read
(`tei_elements` says what is kept apart). Divisions become headings (`tei_divisions`), lines of verse keep the
edition's numbers. Unusual: the walk keeps its own stack, as a file may nest deeper than Python calls.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from stilnovo.errors import InputError
from stilnovo.reading import numerals
from stilnovo.reading.names import Names
from stilnovo.reading.note_marks import is_note_mark
from stilnovo.reading.tei.tei_divisions import (
    POEMS,
    Division,
    Siblings,
    arranged,
    division_kind,
    is_poem,
    leading_heads,
    poems,
)
from stilnovo.reading.tei.tei_elements import (
    ATTRIBUTE_READINGS,
    BLOCKS,
    BREAKS,
    CHOICES,
    METADATA,
    RUNNING,
    apart,
    is_division,
    is_figure,
    is_raised,
    is_whole,
    readings,
    type_of,
    with_known_names,
    words,
)
from stilnovo.reading.tei.tei_names import header_names
from stilnovo.reading.tei.tei_writer import BlockStyle, TeiWriter
from stilnovo.reading.tei.xml_tree import parse_tree
from stilnovo.reading.text_builder import ApparatusKind, Book, tag_of
from stilnovo.text.italian import fold

#: An `l` longer than this is a paragraph: some editions mark the lines of a letter so.
_LONG_LINE = 250
_HYPHENATED = re.compile(r"hyph|inword|nobreak|^-", re.I)
_NUMBER = re.compile(r"(\d+)[a-z]?\s*(?:[-–]\s*(\d+))?\Z")
#: Where divisions are no sections, as the text around them goes on.
_EMBEDDING = frozenset(["floatingText", "quote", "q", "said", "cit", "note", "p", "item", "cell", "figure", "sp"])
#: Elements that hold several pieces of apparatus.
_SEVERAL = frozenset(["titlePage", "castList", "listApp", "noteGrp", "list", "app", "table"])
#: Empty elements that mark a point, which may be in a word.
_POINTS = frozenset(
    ["anchor", "ptr", "xptr", "graphic", "handShift", "addSpan", "delSpan", "damageSpan", "index", "link"]
)
_CLOSING = frozenset([*".,;:!?)]»”…", "..."])
_OUTER = frozenset(["TEI", "TEI.2", "text"])


@dataclass
class _Frame:
    """An element on the way down, and what has to be done when it ends."""

    element: ET.Element
    tag: str
    children: Iterator[ET.Element]
    gap: str = ""  # of a block
    style: bool = False
    capture: bool = False
    whole: bool = False
    embeds: bool = False
    division: Division | None = None
    heading: Division | None = None
    inline: bool = False  # a phrase in a line
    joins: bool = False  # to what follows, whatever white space is between
    after: str = ""  # words that follow it
    reading: dict[ET.Element, ApparatusKind] = field(default_factory=dict)

    @cached_property
    def running(self) -> bool:
        """Whether text runs on in the element, so that phrases in it stand in a line."""
        if self.inline or self.tag in RUNNING:
            return True
        own = [self.element.text, *(child.tail for child in self.element)]
        return any(text and not text.isspace() for text in own)

    @cached_property
    def siblings(self) -> Siblings:
        """What the divisions in it say of each other."""
        return Siblings.of(self.element)

    @cached_property
    def poems(self) -> set[ET.Element]:
        """The groups of lines in it that are poems of their own."""
        if not (self.tag in ("body", "front", "back", "text") or is_division(self.tag)):
            return set()
        return poems(self.element, division_kind(self.element) if is_division(self.tag) else "")

    @cached_property
    def paragraphs(self) -> bool:
        """Whether its `l` are paragraphs."""
        lines = [child for child in self.element if tag_of(child) == "l"]
        return any(len(words(line)) > _LONG_LINE for line in lines) and not any(line.get("n") for line in lines)


class _Walker(TeiWriter):
    """Walk the tree of a document."""

    def __init__(self, root: ET.Element) -> None:
        super().__init__(root.itertext)
        self.root = root
        self.depth = self.embedded = 0
        self.heads: dict[ET.Element, Division] = {}
        self.tokens_touch = _tokens_touch(root)

    def walk(self) -> None:
        """Write the whole tree."""
        stack = [_Frame(self.root, tag_of(self.root), iter(self.root), gap="\n\n")]
        while stack:
            parent = stack[-1]
            child = next(parent.children, None)
            if child is None:
                self.leave(stack.pop())
                if stack:
                    self.tail(parent.element, stack[-1])
                continue
            frame = self.enter(child, parent)
            if frame is None:
                self.tail(child, parent)
            else:
                if not (frame.tag in CHOICES and not (child.text or "").strip()):
                    self.running.say(child.text)
                stack.append(frame)
        self.close("\n\n")

    def tail(self, element: ET.Element, parent: _Frame) -> None:
        """Write what follows an element in its parent."""
        if not (parent.tag in CHOICES and not (element.tail or "").strip()):
            self.running.say(element.tail)

    # entering and leaving elements

    def enter(self, element: ET.Element, parent: _Frame) -> _Frame | None:
        """Begin an element; None: it has no words of the text."""
        tag = tag_of(element)
        if tag in METADATA or (tag == "sourceDoc" and self.root.find(".//{*}text") is not None):
            return None
        if tag == "include" and "XInclude" in element.tag:
            self.warnings.append(f"The text includes the file {element.get('href') or '?'}, which was not read.")
        if tag in BREAKS:
            self.line_ends(element, tag)
        elif tag == "space":
            self.running.say(" ")
        elif tag == "gap" and parent.running:
            self.running.say("[…]")
        frame = _Frame(element, tag, iter(element))
        if tag in CHOICES:
            frame.reading = readings(element)
            self.running.seam = self.running.seam or (tag == "app" and (element.text or "").isspace())
        kind = parent.reading.get(element) or apart(element, parent.element)
        if kind is None and tag in BREAKS and (element.text or len(element)):
            kind = "page"
        if kind is None and tag == "head" and parent.tag == "lg" and element not in self.heads and is_figure(element):
            kind = "line number"  # of a stanza
        if kind is None and is_raised(element) and is_note_mark((element.text or "").strip(), self.running.end):
            kind = "note"
        self.open_block(frame, parent, kind is not None)
        if kind:
            frame.capture = self.keep_apart(kind, is_division(tag) or tag in _SEVERAL)
        elif tag in ATTRIBUTE_READINGS and parent.tag not in CHOICES:
            self.two_readings(frame)
        if frame.gap:
            return frame
        if is_whole(tag) and not (element.text or len(element) or tag in _POINTS):
            self.running.seam = True  # an unknown empty element may well be a break
        elif is_whole(tag) or (tag == "w" and self.tokens_touch):
            frame.whole = True
            self.running.phrase(begins=True)
        joined = element.get("join") if tag in ("w", "pc") else None
        frame.joins = joined in ("right", "both")
        if joined in ("left", "both") or (tag == "pc" and element.text in _CLOSING):
            self.running.joined = True
        return frame

    def leave(self, frame: _Frame) -> None:
        """End an element."""
        if frame.capture:
            self.release()
        if frame.gap:
            self.close(frame.gap)
        if frame.style:
            self.styles.pop()
        if frame.embeds:
            self.embedded -= 1
        if frame.whole:
            self.running.phrase(begins=False)
        if frame.tag == "app" and (frame.element.text or "").isspace():
            self.running.seam = True  # variants are of words: the white space in it is between them
        if frame.after:
            self.running.say(frame.after)
        if frame.joins:
            self.running.joined = True
        if frame.heading and frame.element is frame.heading.heads[-1]:
            self.heading_ends(frame.heading)
        if frame.division:
            self.depth -= 1
            self.open.pop()
            if frame.division in self.waiting:  # it has no words
                self.waiting.remove(frame.division)
                self.held = self.held if self.waiting else self.let_go()

    def open_block(self, frame: _Frame, parent: _Frame, kept_apart: bool) -> None:
        """Begin a new line where the element is a block, in the style it asks for."""
        tag, division = frame.tag, is_division(frame.tag)
        if parent.running or tag in BREAKS:
            block = division or (tag in BLOCKS and not kept_apart)
        else:
            block = kept_apart or tag in BLOCKS or tag not in RUNNING or tag in ("label", "title", "gap") or division
        if not block:
            frame.inline = parent.running and frame.tag not in CHOICES
            return
        frame.gap = "\n\n" if tag == "l" and parent.paragraphs else BLOCKS.get(tag, "\n\n")
        goes_on = (frame.element.get("part") or "").upper()[:1] in ("M", "F") or bool(frame.element.get("prev"))
        self.close("\n" if tag == "l" and goes_on else frame.gap)
        if tag in _EMBEDDING:
            frame.embeds = True
            self.embedded += 1
        if self.captures or kept_apart:
            return
        frame.style = True
        self.styles.append(self.style_of(frame, parent, goes_on))
        if tag == "head" and frame.element in self.heads:
            frame.heading = self.heads.pop(frame.element)
            self.styles[-1] = BlockStyle(heading=frame.heading)
        elif not self.embedded and (division or tag in _OUTER or (tag == "lg" and frame.element in parent.poems)):
            self.open_division(frame, parent)

    def style_of(self, frame: _Frame, parent: _Frame, part: bool) -> BlockStyle:
        """The style in which the words of a block are written."""
        if frame.tag == "l" and not parent.paragraphs:
            return BlockStyle(True, verse_number(frame.element.get("n") or ""), part)
        if frame.tag == "lg":
            return BlockStyle(True, loose=True)
        poem = type_of(frame.element) in ("verse", "versi", "poem", "poetry") or division_kind(parent.element) in POEMS
        if frame.tag in ("ab", "p") and poem and frame.element.find("{*}lb") is not None:
            return BlockStyle(True, loose=True)
        return BlockStyle()

    def line_ends(self, element: ET.Element, tag: str) -> None:
        """A printed line, column or page ends."""
        said = element.get("break") or ""
        hyphenated = _HYPHENATED.search(f"{element.get('rend') or ''} {type_of(element)}")
        self.running.end_line(said if said in ("no", "yes") else "no" if hyphenated else "maybe")
        style = self.styles[-1]
        if tag == "lb" and not self.captures and said != "no":
            if style.loose:
                self.close("\n")
                self.styles[-1] = BlockStyle(True, verse_number(element.get("n") or ""), loose=True)
            elif style.heading:
                self.running.new_line()

    def two_readings(self, frame: _Frame) -> None:
        """P4's `<sic corr="…">`: the content is one reading, an attribute the other."""
        attribute, is_text = ATTRIBUTE_READINGS[frame.tag]
        other = frame.element.get(attribute)
        if other is None or (is_text and not other.strip() and attribute != "corr"):
            return
        if is_text:
            frame.capture = self.keep_apart("reading" if other.strip() else "deletion", loose=False)
            frame.after = other
        elif other.strip():
            self.running.mark("reading", " ".join(other.split()))

    # sections

    def open_division(self, frame: _Frame, parent: _Frame) -> None:
        """Begin a division: its heads become one heading; without one it begins with its first word."""
        element, label = frame.element, ""
        top: ET.Element | None = element
        if frame.tag in _OUTER:
            if parent.tag not in ("group", "teiCorpus", "teiCorpus.2") and (
                frame.tag == "text" or parent.tag not in _OUTER
            ):
                return
            top = element.find("{*}body") if frame.tag == "text" else None
            label = header_names(element).title if top is None else words_of_title(element)
        run, heads = leading_heads(top) if top is not None else ([], [])
        later = [words(head) for head in heads[len(run) :]]
        run = [head for head in run if words(head)]
        if not run and not label and not (is_division(frame.tag) or frame.tag == "lg"):
            return
        division = Division(
            element, self.depth + 1, parent.siblings, is_poem(element), "" if run else label, run, later
        )
        self.heads.update(dict.fromkeys(run, division))
        if not run:
            if division.heading(0, 0) is None:
                return
            self.waiting.append(division)
        self.open.append(division)
        frame.division = division
        self.depth += 1

    def document(self, names: Names) -> Book:
        """The document, with everything that the edition says."""
        headings = arranged(self.headings)
        if len(headings) > 1 and headings[0].level < min(heading.level for heading in headings[1:]):
            first = headings[0]  # the work's own title is no section of it
            headings = headings[1:] if fold(first.label).strip(" .") == fold(names.title).strip(" .") else headings
        divided = headings or any(is_division(tag_of(element)) for element in self.root.iter())
        return Book(
            names,
            self.text,
            headings=tuple(headings) if divided else None,
            apparatus=tuple(self.apparatus),
            lines=self.numbered(),
            warnings=tuple(self.warnings),
        )


def words_of_title(text: ET.Element) -> str:
    """The title of one of several texts: as its title page gives it, else its `n`."""
    part = text.find(".//{*}front//{*}titlePart")
    return words(part)[:120] if part is not None else text.get("n") or ""


def verse_number(n: str) -> int | None:
    """The number of a verse: *119*, *119a*, *26.119*, *26-119*, *119-120*; None where there is none."""
    match = _NUMBER.search(n.strip())
    if match is None:
        return numerals.value(n.strip())
    first, last = int(match[1]), int(match[2] or 0)
    return (first if not last or first < last < first + 10 else last) or None


def _tokens_touch(root: ET.Element) -> bool:
    """Whether the text is marked up word by word, with no white space anywhere between two words."""
    tokens = False
    for parent in root.iter():
        for child, following in pairwise(parent):
            if tag_of(child) == "w" and tag_of(following) in ("w", "c", "space"):
                if child.tail or tag_of(following) != "w":
                    return False
                tokens = True
    return tokens


def parse(data: bytes, name: str) -> Book:
    """Read a TEI document.

    Raises:
        InputError: not well-formed, with entities that are declared or unknown, or not TEI (no `text` element).
    """
    root = with_known_names(parse_tree(data, name))
    known = tag_of(root).upper().startswith("TEI")
    if not known or not any(tag_of(element) in ("text", "sourceDoc") for element in root.iter()):
        raise InputError(f"{name} is XML, but not TEI.", f"Its root element is <{tag_of(root)}>.", "Save it as .txt.")
    writer = _Walker(root)
    writer.walk()
    return writer.document(header_names(root))
