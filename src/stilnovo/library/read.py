"""A file of any age to a document: encoding found out, covers and licences taken off, names read.

Italian texts on people's disks are UTF-8 (with and without byte-order mark), Latin-1 or cp1252, hard-wrapped, one
paragraph a line or one novel a line. What is not text is refused with the reason, before anything is stored.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.library import tei
from stilnovo.library.headings import Heading
from stilnovo.library.names import Names, from_file_name, from_header, from_title_page, split_header
from stilnovo.text.italian import fold

MAXIMUM_BYTES = 64 * 2**20
SUFFIXES = frozenset([".txt", ".text", ".md", ".xml"])

_MAGIC = {b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive (EPUB, Word)", b"\x1f\x8b": "gzip", b"{\\rtf": "RTF"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\x80-\x9f]")
_GUTENBERG_START = re.compile(r"\*{3} ?START OF TH(?:IS|E) PROJECT GUTENBERG EBOOK.*?\*{3}", re.I | re.S)
_GUTENBERG_END = re.compile(r"(?:End of (?:the )?Project Gutenberg|\*{3} ?END OF TH(?:IS|E) PROJECT GUTENBERG)", re.I)
_PRODUCED_BY = re.compile(r"\s*(?:Produced by|E-text prepared by|Transcribed by).*?(?:\n\s*\n|\Z)", re.I | re.S)


@dataclass(frozen=True)
class Document:
    """A work as it will be stored: its names, its text, the file it came from.

    `headings` are given where the format marks them (TEI); None means: find them in the text.
    """

    names: Names
    text: str
    source: str
    headings: tuple[Heading, ...] | None = None


def decode(data: bytes, name: str) -> str:
    """Bytes to text with `\\n` line ends, NFC, no byte-order mark.

    Raises:
        InputError: binary, empty, or UTF-8 with stray bytes (a damaged file, which must not be read as Latin-1).
    """
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise InputError(
                f"{name} is not plain text.", f"It is {kind}.", "Save it as plain text (.txt) and add that."
            )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    elif b"\x00" in data:
        raise InputError(
            f"{name} is not plain text.", "It holds binary data.", "Save it as plain text (.txt) and add that."
        )
    else:
        text = _decode_8_bit(data, name)
    text = (
        text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x85", "\n")
    )
    if not text.strip():
        raise InputError(f"{name} is empty.", "It holds no text.", "Choose another file.")
    strange = len(_CONTROL.findall(text))
    if strange * 200 > len(text):
        raise InputError(
            f"{name} is not plain text.", f"It holds {strange} control characters.", "Save it as UTF-8 text."
        )
    return unicodedata.normalize("NFC", text)


def _decode_8_bit(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        good = len(re.findall(rb"[\xc3\xe2][\x80-\xbf]", data))
        high = sum(byte >= 0x80 for byte in data)
        if good * 2 > high * 0.8:
            raise InputError(
                f"{name} is damaged: it is UTF-8 with bytes that do not belong.",
                f"Byte 0x{data[error.start]:02x} at offset {error.start}.",
                "Save it again as UTF-8, or take another copy.",
            ) from error
    windows = any(0x80 <= byte <= 0x9F for byte in set(data))
    try:
        return data.decode("cp1252" if windows else "latin-1")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def without_gutenberg(text: str) -> tuple[str, Names]:
    """The text between Project Gutenberg's marks, and the names its header gives; other texts come back unchanged."""
    start = _GUTENBERG_START.search(text, 0, 20_000)
    if not start:
        return text, Names()
    names = from_header(text[: start.start()])
    body = text[start.end() :]
    end = _GUTENBERG_END.search(body)
    body = body[: end.start()] if end else body
    credit = _PRODUCED_BY.match(body)
    return (body[credit.end() :] if credit else body), names


def without_liber_liber(text: str) -> tuple[str, Names]:
    """The text after Liber Liber's colophon and table of contents, and the names the colophon gives."""
    if not re.search(r"^QUESTO E-BOOK:", text[:5000], re.M):
        return text, Names()
    names = from_header(text[:5000])
    title = fold(names.title)
    position, cut = 0, 0
    for line in text[:12_000].splitlines(keepends=True):
        if position > 0 and title and fold(line).strip() == title:
            cut = position
        position += len(line)
    return text[cut:], Names(names.title, names.author)


def read(path: Path, given: Names | None = None) -> Document:
    """Read one file. Names `given` by the user win over the file's own, those over the file's name.

    Raises:
        InputError: absent, unreadable, too large, empty, binary, damaged, or of a kind that is not read yet.
    """
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            size = path.stat().st_size / 2**20
            raise InputError(f"{path.name} is too large.", f"{size:.0f} MiB; the limit is {MAXIMUM_BYTES >> 20} MiB.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}.", str(error.strerror or error), "Check the path.") from error
    if path.suffix.lower() not in SUFFIXES | {""}:
        kinds = ", ".join(sorted(SUFFIXES))
        raise InputError(f"{path.name}: files of this kind are not read.", f"Read are {kinds}.", "Save it as .txt.")
    given = given or Names()
    if path.suffix.lower() == ".xml":
        book = tei.parse(data, path.name)
        return Document(given.over(book.names).over(from_file_name(path.stem)), book.text, path.name, book.headings)
    text = decode(data, path.name)
    text, from_mark = without_gutenberg(text)
    text, colophon = without_liber_liber(text)
    header, text = split_header(text)
    text = text.strip("\n")
    if not text.strip():
        raise InputError(f"{path.name} is empty.", "Nothing is left without its header.", "Choose another file.")
    hint = from_file_name(path.stem)
    names = given.over(header).over(from_mark).over(colophon).over(from_title_page(text, hint)).over(hint)
    return Document(names, text, path.name)


def files_in(paths: Iterable[Path]) -> list[Path]:
    """The files to read: folders give the readable files inside them, sorted; files stay as they are.

    Raises:
        InputError: a path that does not exist, or a folder without any readable file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES - {".md"})
            if not inside:
                raise InputError(
                    f"No text in the folder {path}.", "Looked for .txt and .xml files.", "Name a file or folder."
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"No such file: {path}.", "", "Check the path.")
    return found
