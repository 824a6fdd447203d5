"""Read a text whose quotations are to be checked: a file of any kind that the library reads, with the notes apart.

Unusual: what a file only lays out as a quotation is put between « and » before it is read, as the library's readers keep words
and not their layout: `blockquote` and `q` of HTML, paragraphs of Word in a style for quotations or indented on both sides. Plain
text and Markdown are taken as they are typed, with their own signs. Italics of four words or more stand between asterisks, and items of
lists of HTML behind a bullet, as in Markdown.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePath
from typing import NamedTuple

from stilnovo.chat.essay import NoteText
from stilnovo.library.read import understand
from stilnovo.reading.decoding import decoded
from stilnovo.reading.text_builder import Book

_TYPED = frozenset(["", ".txt", ".text", ".md", ".markdown"])
_HTML = frozenset([".html", ".htm", ".xhtml"])
_OPENS = re.compile(rb"(?i)(<(?:blockquote|q)\b[^<>]{0,500}>(?:\s|<(?:p|div|span|em|i)\b[^<>]{0,500}>){0,8})")
_CLOSES = re.compile(rb"(?i)((?:\s|</(?:p|div|span|em|i)\s*>){0,8}</(?:blockquote|q)\s*>)")
_ITALIC = re.compile(rb"(?i)<(em|i)((?:\s[^<>]{0,200})?)>((?:[^<>\s]+\s+){3}[^<>]{1,600}?)(\s{0,8})</\1\s*>")
_ITEM = re.compile(rb"(?i)(<li(?:\s[^<>]{0,200})?>)")
#: A run of Word in italics, and some of them in a row.
_ITALIC_RUN = (
    r'<w:r(?: [^<>]*)?>(?:(?!</?w:r[ >]).){0,1500}?<w:i(?: w:val="(?:1|true|on)")?/>(?:(?!</?w:r[ >]).){0,9999}</w:r>'
)
_ITALIC_RUNS = re.compile(rf"(?:{_ITALIC_RUN})+", re.S)
_WORD_PART, _PART_BYTES = "word/document.xml", 50_000_000
_PARAGRAPH = re.compile(r"<w:p(?: [^<>]*)?>(?:(?!</?w:p[ >]).)*</w:p>", re.S)
_QUOTATION_STYLE = re.compile(r'<w:pStyle w:val="[^"]*(?:quot|citaz|blocktext)[^"]*"', re.I)
_INDENT = re.compile(r"<w:ind [^<>]*/>")
#: Twentieths of a point: a centimetre has 567.
_INDENTED = 280


class EssayText(NamedTuple):
    """A text to be checked: the file's name, the text, its notes, and what could not be read."""

    name: str
    text: str
    notes: tuple[NoteText, ...] = ()
    warnings: tuple[str, ...] = ()


def read_essay(data: bytes, name: str) -> EssayText:
    """Read the bytes of a file called `name`.

    Raises:
        InputError: empty, binary, damaged, or of a kind that is not read.
        MissingExtra: the package that reads this kind is not installed.
    """
    file = PurePath(name.replace("\\", "/")).name
    suffix = PurePath(file).suffix.lower()
    if suffix in _TYPED and not data.startswith(b"%PDF-"):
        text, warnings = decoded(data, file or "The text")
        return EssayText(file, text, (), warnings)
    if suffix in _HTML:
        data = _ITEM.sub("\\1• ".encode(), _ITALIC.sub(rb"<\1\2>*\3*\4</\1>", data))
        data = _CLOSES.sub(rb"&raquo;\1", _OPENS.sub(rb"\1&laquo;", data))
    elif suffix == ".docx":
        data = _marked_word(data)
    book = understand(data, file)
    return EssayText(file, *_text_and_notes(book), tuple(book.warnings))


def _text_and_notes(book: Book) -> tuple[str, tuple[NoteText, ...]]:
    """The text of a document, with what was set apart: notes by themselves, everything else where it stood.

    What a book's reader takes for a title page, an argument or a speaker may be any part of an essay.
    """
    pieces, notes, at, length = list[str](), list[NoteText](), 0, 0
    for item in book.apparatus:
        if item.at > at:
            pieces.append(book.text[at : item.at])
            length, at = length + item.at - at, item.at
        if item.kind == "note":
            notes.append(NoteText(item.text, length))
        elif item.kind not in ("page", "running head", "line number"):
            piece = f"\n{item.text}\n\n"
            pieces.append(piece)
            length += len(piece)
    return "".join([*pieces, book.text[at:]]), tuple(notes)


def _marked_word(data: bytes) -> bytes:
    """A Word file whose block quotations stand between « and »; any other file unchanged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(_WORD_PART).file_size > _PART_BYTES:
                return data
            document = archive.read(_WORD_PART).decode("utf-8")
            marked = _PARAGRAPH.sub(lambda match: _marked_paragraph(match.group()), document)
            if marked == document:
                return data
            made = io.BytesIO()
            with zipfile.ZipFile(made, "w") as copy:
                for item in archive.infolist():
                    if item.file_size > _PART_BYTES:
                        return data
                    copy.writestr(item.filename, marked if item.filename == _WORD_PART else archive.read(item))
            return made.getvalue()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, EOFError, RuntimeError):
        return data  # the reader says what is wrong with it


def _marked_italics(runs: re.Match[str]) -> str:
    said = "".join(re.findall(r"<w:t(?: [^<>]*)?>([^<>]*)</w:t>", runs.group()))
    mark = "<w:r><w:t>*</w:t></w:r>"
    return f"{mark}{runs.group()}{mark}" if len(said.split()) > 3 and said == said.strip() else runs.group()


def _marked_paragraph(paragraph: str) -> str:
    properties, end, rest = paragraph.partition("</w:pPr>")
    indent = _INDENT.search(properties)
    sides = (
        [int(size) for size in re.findall(r'w:(?:left|start|right|end)="(\d{1,5})"', indent.group())] if indent else []
    )
    quoted = _QUOTATION_STYLE.search(properties) or (len(sides) == 2 and min(sides) >= _INDENTED)
    if not end or not quoted or "<w:t" not in rest:
        return _ITALIC_RUNS.sub(_marked_italics, paragraph) if "<w:i" in paragraph else paragraph
    left, right = (f"<w:r><w:t>{mark}</w:t></w:r>" for mark in "«»")
    return f"{properties}{end}{left}{rest.removesuffix('</w:p>')}{right}</w:p>"
