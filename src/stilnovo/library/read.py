"""Read a file of any supported format: choose its reader, keep licences and colophons apart, find its names.

Italian texts on people's disks are plain text of any age, hard-wrapped, one paragraph a line or one novel a line; or EPUB,
HTML, TEI, Markdown, Word, PDF. What a file is, its first bytes say, not its name alone. What cannot be read is refused
with the reason, before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePath

from stilnovo.errors import InputError, check_types, reported
from stilnovo.reading import licences
from stilnovo.reading.html import epub, markdown, markup
from stilnovo.reading.names import Names, from_file_name, from_title_page, split_header
from stilnovo.reading.pdf import pdf
from stilnovo.reading.plain import plain
from stilnovo.reading.tei import tei
from stilnovo.reading.text_builder import Book, Edit, edited, set_apart
from stilnovo.reading.word import word

MAXIMUM_BYTES = 64 * 2**20


#: The reader of each suffix: bytes and the file's name to a `Book`. A new format is one function and its line here.
READERS: dict[str, Callable[[bytes, str], Book]] = {
    ".txt": plain.parse, ".text": plain.parse, ".md": markdown.parse, ".markdown": markdown.parse, ".xml": tei.parse, ".tei": tei.parse,
    ".html": markup.parse, ".htm": markup.parse, ".xhtml": markup.parse, ".epub": epub.parse, ".docx": word.parse,
    ".pdf": pdf.parse,
}  # fmt: skip
SUFFIXES = frozenset(READERS)
# How files of some suffixes must begin.
_MAGIC = {".pdf": b"%PDF-", ".epub": b"PK\x03\x04", ".docx": b"PK\x03\x04"}


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
    if not suffix and data.startswith(_MAGIC[".pdf"]):
        suffix = ".pdf"
    if not data.startswith(_MAGIC.get(suffix, b"")):
        raise InputError(f"{file} is no {suffix[1:].upper()} file.", f"It begins with {data[:8]!r}.", "Check the file.")
    reader = READERS.get(suffix, plain.parse)
    book = reader(data, file)
    spans, told = licences.surroundings(book.text)
    book = set_apart(book, spans)
    header, rest = split_header(book.text) if book.headings is None else (Names(), book.text)
    book = set_apart(book, [(0, len(book.text) - len(rest), "header")] if len(rest) < len(book.text) else [])
    hint = from_file_name(stem)
    names = (given or Names()).over(header).over(told).over(book.names)
    if suffix not in (".xml", ".tei"):
        names = names.over(from_title_page(book.text, hint))
    names = names.over(hint)
    if reader is plain.parse:
        book = plain.arrange(book, names)
    elif reader in (markup.parse, epub.parse, markdown.parse, word.parse):
        book = plain.complete(book)
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
