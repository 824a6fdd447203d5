"""Read Word documents: every word of the file, once, in order.

The XML is walked, for words stand not only in paragraphs: in tables, text boxes (written twice over, for old and new
programs), content controls, links, fields, tracked changes. What was inserted counts, what was deleted is kept apart, so
that the text is what a reader sees who accepts all changes. Notes, comments, heads, tables of contents and captions are
apparatus. Automatic numbers stand nowhere in the file and are no text; those of headings are cited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

from stilnovo.errors import reported
from stilnovo.reading.archive import open_archive
from stilnovo.reading.names import Names
from stilnovo.reading.note_marks import is_note_mark
from stilnovo.reading.text_builder import ApparatusKind, Book, TextBuilder, tag_of
from stilnovo.reading.word.numbering import Numbering, looks
from stilnovo.reading.word.word_blocks import WordBlock, WordPiece, mark_titles, tidied, with_gaps
from stilnovo.reading.word.word_parts import WordParts, attribute_of, child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml.etree import _Element

#: Properties hold no words; the code of a field is none either.
_SILENT = frozenset([
    "pPr", "rPr", "tblPr", "tblGrid", "trPr", "tcPr", "sectPr", "sdtPr", "sdtEndPr", "instrText", "delInstrText", "fldData",
])  # fmt: skip
_CHARACTERS = {"tab": " ", "ptab": " ", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_FIELDS: dict[str, ApparatusKind] = {
    "TOC": "contents", "INDEX": "contents", "TOA": "contents", "RD": "contents", "PAGE": "page", "NUMPAGES": "page",
    "SECTIONPAGES": "page", "NOTEREF": "note",
}  # fmt: skip
_CONTENTS = re.compile(r"(?:indice|sommario|(?:table of )?contents|tavola|inhalt\w*|índice)\b[^\n]{0,30}\Z", re.I)
_GREEK = "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", "αβχδεφγηιϕκλμνοπθρστυϖωξψζ"
#: A longer paragraph in the style of a heading is none.
_LONGEST_HEADING = 400


@dataclass
class _Walk:
    """The walk over one part: paragraphs as they close, the state of fields and of tracked changes."""

    parts: WordParts
    notes: dict[tuple[str, str], _Element]
    blocks: list[WordBlock] = field(default_factory=list)
    pieces: list[WordPiece] = field(default_factory=list)
    kind: ApparatusKind | None = None
    fields: list[tuple[str, bool]] = field(default_factory=list)
    closed: dict[_Element, str] = field(default_factory=dict)
    after: list[WordBlock] = field(default_factory=list)
    worded: bool = False
    inside: int = 0
    tables: int = 0

    @cached_property
    def numbering(self) -> Numbering:
        """The automatic numbers of the headings."""
        return Numbering(self.parts)

    def part(self, root: _Element) -> list[WordBlock]:
        """Walk a whole part."""
        waiting: list[tuple[_Element, list[str]]] = []
        for element in root.iter("{*}fldChar", "{*}instrText"):
            if tag_of(element) == "instrText":
                if waiting:
                    waiting[-1][1].append(element.text or "")
            elif attribute_of(element, "fldCharType") == "begin":
                waiting.append((element, []))
            elif attribute_of(element, "fldCharType") == "end" and waiting:
                begin, code = waiting.pop()  # a field that is never closed is none: it would swallow the document
                self.closed[begin] = "".join(code)
        self.walk(root)
        self.flush()
        return self.blocks

    def say(self, text: str, kind: ApparatusKind | None = None) -> None:
        """Add words to the paragraph, of the kind that holds here if none is given."""
        state = self.kind
        for code, shown in self.fields:
            name = code.split(maxsplit=1)[0].upper() if code.strip() else ""
            state = state or (_FIELDS.get(name) if shown else "other")
        self.pieces.append(WordPiece(state or kind, text))
        self.worded = self.worded or not (state or kind or text.isspace())

    def walk(self, element: _Element) -> None:
        """Walk the children of an element."""
        for inner in element:
            tag = tag_of(inner)
            if tag in _SILENT or not tag:
                continue
            visit = getattr(self, f"on_{tag}", None)
            if visit:
                visit(inner)
            elif tag in _CHARACTERS:
                self.say(_CHARACTERS[tag])
            else:
                self.walk(inner)

    def within(self, kind: ApparatusKind | None, element: _Element) -> None:
        """Walk an element whose words are all of one kind; None: of the kind that holds around it."""
        outer = self.kind
        self.kind = outer or kind
        self.walk(element)
        self.kind = outer

    def on_t(self, element: _Element) -> None:
        """Words; those inside a drawing are its own."""
        self.say(element.text or "", "figure" if "drawingml" in str(element.tag) else None)

    def on_delText(self, element: _Element) -> None:
        """Deleted words."""
        self.say(element.text or "", "deletion")

    def on_del(self, element: _Element) -> None:
        """What was deleted, or moved away."""
        self.within("deletion", element)

    on_moveFrom = on_del

    def on_rt(self, element: _Element) -> None:
        """The reading printed above a word."""
        self.within("other", element)
        self.pieces.append(WordPiece(None, ""))  # what follows is no part of it

    def on_sym(self, element: _Element) -> None:
        """A character by its number in a font."""
        code = (
            int(attribute_of(element, "char") or "0", 16)
            if re.fullmatch(r"[0-9A-Fa-f]{1,4}", attribute_of(element, "char"))
            else 0
        )
        code -= 0xF000 if code >= 0xF000 else 0
        letter = chr(code) if code >= 32 and not 0xD800 <= code < 0xE000 else ""
        if attribute_of(element, "font").lower() == "symbol" and letter.isascii() and letter.isalpha():
            letter = _GREEK[letter.islower()][ord(letter.lower()) - ord("a")]
        elif re.match(r"wingdings|webdings|symbol|zapf", attribute_of(element, "font"), re.I):
            letter = ""  # an ornament
        self.say(letter)

    def on_r(self, element: _Element) -> None:
        """A run: hidden words and the numbers of notes are no text."""
        properties = child(element, "rPr")
        if child(properties, "vanish") is not None and attribute_of(child(properties, "vanish")) not in ("0", "false"):
            return self.within("other", element)
        if child(element, "footnoteReference") is not None or child(element, "endnoteReference") is not None:
            return self.within("note", element)  # with a mark of its own, if it has one
        if attribute_of(child(properties, "vertAlign")) == "superscript" or self.parts.marks_note(properties):
            mark = "".join(e.text or "" for e in element if tag_of(e) == "t").strip()
            before = "".join(piece.text for piece in self.pieces[-8:] if not piece.kind)
            if is_note_mark(mark, before):
                return self.within("note", element)
        return self.walk(element)

    def _note(self, sort: str, element: _Element) -> None:
        note = self.notes.pop((sort, attribute_of(element, "id")), None)
        if note is not None:
            for piece in _note_words(self.parts, note):
                self.say(piece.text, piece.kind)

    def on_footnoteReference(self, element: _Element) -> None:
        """A footnote, the first time that it is called."""
        self._note("footnote", element)

    def on_endnoteReference(self, element: _Element) -> None:
        """An endnote."""
        self._note("endnote", element)

    def on_commentReference(self, element: _Element) -> None:
        """A comment."""
        self._note("comment", element)

    def on_fldChar(self, element: _Element) -> None:
        """The code of a field begins, its result, its end."""
        kind = attribute_of(element, "fldCharType")
        if kind == "begin" and element in self.closed:
            self.fields.append((self.closed[element], False))
        elif kind == "separate" and self.fields:
            self.fields[-1] = (self.fields[-1][0], True)
        elif kind == "end" and self.fields:
            self.fields.pop()

    def on_fldSimple(self, element: _Element) -> None:
        """A field with its result."""
        self.fields.append((attribute_of(element, "instr"), True))
        self.walk(element)
        self.fields.pop()

    def on_sdt(self, element: _Element) -> None:
        """A content control: perhaps a table of contents, or a prompt that nobody replaced."""
        properties = child(element, "sdtPr")
        gallery = attribute_of(child(properties, "docPartObj", "docPartGallery"))
        prompt = child(properties, "showingPlcHdr") is not None
        self.within("contents" if gallery == "Table of Contents" else "other" if prompt else None, element)
        self.pieces.append(WordPiece(None, ""))

    def on_AlternateContent(self, element: _Element) -> None:
        """The same thing written for several programs: the first that has words counts."""
        worded = (form for form in element if next(form.iter("{*}t", "{*}delText"), None) is not None)
        form = next(worded, next(iter(element), None))
        if form is not None:
            self.walk(form)

    def on_altChunk(self, element: _Element) -> None:
        """Another file inside this one."""
        target = self.parts.related.get(attribute_of(element, "id"), ("", ""))[1]
        self.parts.warnings.append(f"Another document inside this one was not read: {target or 'its file is missing'}.")

    def on_subDoc(self, element: _Element) -> None:
        """Another file beside this one."""
        self.parts.warnings.append("A subdocument, which is a file of its own, was not read.")

    def on_tr(self, element: _Element) -> None:
        """A row of a table."""
        self.within("deletion" if child(element, "trPr", "del") is not None else None, element)

    def on_tbl(self, element: _Element) -> None:
        """A table: every cell is a paragraph of its own, or several."""
        self.flush()
        self.tables += 1
        self.walk(element)
        self.flush()
        self.tables -= 1

    def flush(self) -> None:
        """End a paragraph whose mark was deleted, before something that it cannot join."""
        if not self.inside and self.pieces:
            self.blocks.append(WordBlock(tidied(self.pieces)))
            self.pieces, self.worded = [], False

    def on_p(self, element: _Element) -> None:
        """A paragraph; one of a text box stands before the words that it is anchored to, or after their paragraph."""
        properties = child(element, "pPr")
        outer, after, worded = self.pieces, self.after, self.worded
        if self.inside:
            self.pieces, self.worded = [], False
        self.after = []
        self.inside += 1
        self.walk(element)
        self.inside -= 1
        pieces, level = tidied(self.pieces), self.parts.level(properties)
        initial = attribute_of(child(properties, "framePr"), "dropCap") in ("drop", "margin")
        block = WordBlock(pieces, self.parts.kind(properties), level, initial)
        if level and block.words:
            block.number = self.numbering.number(properties)
        elif level is None and not self.tables and not self.inside:
            block.looks = looks(element, block.words)
        blocks = [block] if pieces or not self.tables else []
        if not self.inside and any(child(properties, "rPr", tag) is not None for tag in ("del", "moveFrom")):
            self.pieces.append(WordPiece(None, " "))  # its end was deleted: the next one goes on here
            blocks, self.worded = [], False
        else:
            self.pieces, self.worded = (outer, worded) if self.inside else ([], False)
        blocks += self.after
        self.after = after
        (self.after if self.inside and worded else self.blocks).extend(blocks)


def _note_words(parts: WordParts, note: _Element) -> list[WordPiece]:
    """The words of a note as one piece, and what was deleted in it; notes that it calls itself wait for the end."""
    blocks = _Walk(parts, {}).part(note)
    words = " ".join(block.words.strip() for block in blocks if block.words.strip())
    return [WordPiece("note", words), *(piece for block in blocks for piece in block.pieces if piece.kind)]


def _write(writer: TextBuilder, blocks: Sequence[WordBlock]) -> None:
    shown = list(with_gaps(blocks))
    for block, following in zip_longest(shown, shown[1:]):
        words, gap = block.words, block.gap
        contents = following is not None and "contents" in (following.kind, following.pieces[0].kind)
        kind = block.kind or ("contents" if contents and _CONTENTS.match(words) else None)
        heading = words and not kind and block.level is not None and len(words) <= _LONGEST_HEADING
        if heading:
            writer.heading([line for line in words.split("\n") if line.strip()], block.level or 0)
            if block.number:
                start, end, depth, lines = writer.heading_marks[-1]
                writer.heading_marks[-1] = (start, end, depth, [block.number, *lines])
        elif kind:
            writer.apart(kind, words)
        for piece in block.pieces:
            if piece.kind:
                writer.apart(piece.kind, piece.text)
            elif words and not heading and not kind:
                writer.put(piece.text, gap)
                gap = ""


def _running(writer: TextBuilder, parts: WordParts, root: _Element) -> None:
    """Keep the words of a page's head or foot apart."""
    pieces = [piece for block in _Walk(parts, {}).part(root) for piece in block.pieces]
    writer.apart("running head", " ".join(piece.text for piece in pieces))


def parse(data: bytes, name: str) -> Book:
    """Read a Word document (.docx).

    Raises:
        InputError: damaged, or too large once unpacked.
        MissingExtra: lxml is not installed.
    """
    archive = open_archive(data, name)
    with reported(f"{name} is damaged.", "Save it anew, or as .txt."):
        parts, writer = WordParts(archive, name), TextBuilder()
        main, notes = parts.tree(parts.main), parts.notes()
        heads, feet = parts.parts("header"), parts.parts("footer")
        for root in heads:
            _running(writer, parts, root)
        blocks = _Walk(parts, notes).part(main) if main is not None else []
        mark_titles(blocks)
        _write(writer, blocks)
        for note in notes.values():
            for kind, text in _note_words(parts, note):
                writer.apart(kind or "note", text)
        for root in feet:
            _running(writer, parts, root)
    writer.warnings += parts.warnings
    title = next((" ".join(block.words.split()) for block in blocks if block.level == 0), "")
    return writer.book(parts.names().over(Names(title if len(title) <= 120 else "")))
