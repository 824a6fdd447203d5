"""Read a file of any supported format: choose its reader, keep licences and colophons apart, find its names.

Italian texts on people's disks are plain text of any age, hard-wrapped, one paragraph a line or one novel a line; or EPUB,
HTML, TEI, Markdown, Word, PDF. What a file is, its first bytes say, not its name alone. What cannot be read is refused
with the reason, before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

from stilnovo.errors import InputError, check_types, reported
from stilnovo.reading import licences
from stilnovo.reading.html import epub, markdown, markup
from stilnovo.reading.names import Names, from_file_name, from_title_page, split_header
from stilnovo.reading.pdf import pdf
from stilnovo.reading.plain import plain, unmarked
from stilnovo.reading.tei import tei
from stilnovo.reading.text_builder import Book, Edit, edited, set_apart
from stilnovo.reading.word import word

MAXIMUM_BYTES = 64 * 2**20


class Format(NamedTuple):
    """How files of a format are read: `parse` makes a `Book` of the bytes and the file's name.

    `begins` is how every such file begins. `rules`: what is not marked is found by rules: *all* there is, where nothing is
    marked; the *rest* (letters by their dates, speakers, numbers beside verses); or nothing. `names` says that the file
    itself gives the work's names, so that they are not looked for on a title page.
    """

    parse: Callable[[bytes, str], Book]
    begins: bytes = b""
    rules: Literal["all", "rest", ""] = "rest"
    names: bool = False


_PLAIN, _MARKDOWN, _HTML = Format(plain.parse, rules="all"), Format(markdown.parse), Format(markup.parse)
_TEI = Format(tei.parse, rules="", names=True)
#: The format of each suffix. A new one is a function and its line here.
FORMATS: dict[str, Format] = {
    ".txt": _PLAIN, ".text": _PLAIN, ".md": _MARKDOWN, ".markdown": _MARKDOWN, ".xml": _TEI, ".tei": _TEI, ".html": _HTML, ".htm": _HTML,
    ".xhtml": _HTML, ".epub": Format(epub.parse, b"PK\x03\x04"), ".docx": Format(word.parse, b"PK\x03\x04"),
    ".pdf": Format(pdf.parse, b"%PDF-", rules=""),
}  # fmt: skip
SUFFIXES = frozenset(FORMATS)


def understand(data: bytes, name: str, given: Names | None = None) -> Book:
    """Parse the bytes of a file called `name` (only the last part of the path is used).

    Raises:
        InputError: empty, binary, damaged, or of a kind that is not read.
        MissingExtra: the package that reads this kind is not installed.
    """
    file = PurePath(name.replace("\\", "/")).name or "file"
    suffix, stem = PurePath(file).suffix.lower(), PurePath(file).stem
    if suffix not in SUFFIXES | {""}:
        raise InputError(
            f"{file}: files of this kind are not read.", f"Read are {', '.join(sorted(SUFFIXES))}.", "Save it as .txt."
        )
    if not suffix and data.startswith(FORMATS[".pdf"].begins):
        suffix = ".pdf"
    reader = FORMATS.get(suffix, _PLAIN)
    if not data.startswith(reader.begins):
        raise InputError(f"{file} is no {suffix[1:].upper()} file.", f"It begins with {data[:8]!r}.", "Check the file.")
    book = reader.parse(data, file)
    spans, told = licences.surroundings(book.text)
    book = set_apart(book, spans)
    header, rest = split_header(book.text) if book.headings is None else (Names(), book.text)
    book = set_apart(book, [(0, len(book.text) - len(rest), "header")] if len(rest) < len(book.text) else [])
    hint = from_file_name(stem)
    names = (given or Names()).over(header).over(told).over(book.names)
    if not reader.names:
        names = names.over(from_title_page(book.text, hint))
    names = names.over(hint)
    if reader.rules:
        book = plain.arrange(book, names) if reader.rules == "all" else unmarked.complete(book)
    end = len(book.text.rstrip("\n"))
    start = end - len(book.text[:end].lstrip("\n"))
    book = edited(book, [edit for edit in (Edit(0, start), Edit(end, len(book.text))) if edit.end > edit.start])
    if not book.text.strip():
        raise InputError(f"{file} is empty.", "It holds no words but names and notices.", "Choose another file.")
    return replace(book, names=names, source=file, data=data, given=given or Names())


def read(path: Path | str, given: Names | None = None) -> Book:
    """Read one file. Names `given` by the user win over the file's own, those over the file's name.

    Raises:
        InputError: absent, unreadable, too large, empty, binary, damaged, or of a kind that is not read.
        MissingExtra: the package that reads this kind is not installed.
    """
    check_types(Path, str, path=path)
    path = Path(path)
    with reported(f"Cannot read {path}.", "Check the path.", errors=OSError):
        if (size := path.stat().st_size) > MAXIMUM_BYTES:
            raise InputError(
                f"{path.name} is too large.", f"{size / 2**20:.0f} MiB; the limit is {MAXIMUM_BYTES >> 20} MiB."
            )
        data = path.read_bytes()
    return understand(data, path.name, given)


def files_in(paths: Iterable[Path]) -> list[Path]:
    """Expand folders to the supported files inside them, sorted.

    Raises:
        InputError: a path that does not exist, or a folder without any readable file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"No such file: {path}.", "", "Check the path.")
        inside = sorted(filter(_is_text, path.rglob("*"))) if path.is_dir() else [path]
        if not inside:
            raise InputError(
                f"No text in the folder {path}.", f"Looked for {', '.join(sorted(SUFFIXES))}.", "Name a file or folder."
            )
        files += inside
    return files


def _is_text(path: Path) -> bool:
    hidden = "readme" in path.stem.lower() or path.name.startswith(".")
    return path.is_file() and path.suffix.lower() in SUFFIXES and not hidden
