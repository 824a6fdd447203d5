"""Documents from files: plain text, JSONL and Parquet with the columns of `wikimedia/wikipedia` (id, url, title, text).

Rules: one text file is one document, one JSONL line or Parquet row is one document. Nothing is guessed: UTF-8 with or
without BOM is read, anything else is refused with the place of the bad byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilnovo.data import sample
from stilnovo.errors import InputError


@dataclass(frozen=True)
class Document:
    """One text of a corpus."""

    id: str
    title: str
    text: str


def read_documents(paths: Sequence[str | Path], max_documents: int | None = None) -> list[Document]:
    """Every document of the files, in order; `sample` is the project's encyclopaedia.

    Raises:
        InputError: for a file that is missing, empty, binary, wrongly encoded or broken; with the line.
    """
    documents: list[Document] = []
    for path in _expanded(paths):
        for document in _read_file(path):
            documents.append(document)
            if max_documents is not None and len(documents) >= max_documents:
                return documents
    return documents


def _expanded(paths: Sequence[str | Path]) -> Iterator[Path]:
    for given in paths:
        if str(given) == "sample":
            yield from (sample.path(name) for name in sample.ENCYCLOPAEDIA)
            continue
        path = Path(given).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in _READERS and p.is_file())
            if not files:
                raise InputError(
                    f"No text, JSONL or Parquet files in {path}.", next=f"Suffixes read: {', '.join(_READERS)}."
                )
            yield from files
        elif not path.exists():
            raise InputError(
                f"There is no file {path}.", next="Give text, JSONL or Parquet files, a folder, or `sample`."
            )
        elif path.suffix not in _READERS:
            raise InputError(
                f"{path.name}: unknown kind of file {path.suffix!r}.", next=f"Suffixes read: {', '.join(_READERS)}."
            )
        else:
            yield path


def _read_file(path: Path) -> Iterator[Document]:
    found = False
    for document in _READERS[path.suffix](path):
        if document.text.strip():
            found = True
            yield document
    if not found:
        raise InputError(f"{path} holds no text.", "It is empty, or every text in it is.", "Take it out of --data.")


def decode_utf8(path: Path) -> str:
    """The text of a UTF-8 file, BOM removed, line ends as `\\n`.

    Raises:
        InputError: for an empty or binary file or another encoding, with the byte's place.
    """
    raw = path.read_bytes()
    if not raw.strip():
        raise InputError(f"{path} is empty.", next="Take it out of --data.")
    if b"\0" in raw:
        raise InputError(
            f"{path} is a binary file.", f"A zero byte at offset {raw.index(0)}.", "Give text, JSONL or Parquet."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(raw) - len(error.object)  # the codec counts from behind the BOM
        line = raw[:at].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8.",
            f"Byte 0x{raw[at]:02x} at offset {at}, line {line}.",
            f"If it is Latin-1: iconv -f latin1 -t utf8 {path.name} > {path.stem}.utf8{path.suffix}",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_text(path: Path) -> Iterator[Document]:
    yield Document(path.name, path.stem, decode_utf8(path))


def _read_jsonl(path: Path) -> Iterator[Document]:
    for number, line in enumerate(decode_utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (
            ValueError,
            RecursionError,
        ) as error:  # the second, and a plain ValueError, on absurd nesting and numbers
            why = (
                f"{error.msg} at column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else "Too deep or long"
            )
            raise InputError(
                f"{path}, line {number}: not valid JSON.", f"{why}: {line[:60]!r}", "Mend or remove the line."
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            held = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise InputError(
                f"{path}, line {number}: no `text`.", f"Found: {held}", "Each line is an object with a `text`."
            )
        yield _document(row, f"{path}, line {number}", str(number))


def _document(row: dict[str, Any], where: str, number: str) -> Document:
    # A null id or title is an absent one. JSON's escapes can spell half a character, which no tokeniser takes.
    identity, title = row.get("id"), row.get("title")
    document = Document(number if identity is None else str(identity), "" if title is None else str(title), row["text"])
    try:
        f"{document.id}{document.title}{document.text}".encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: half a character.",
            f"A lone surrogate: {error.object[error.start]!r}.",
            "Mend or remove the line.",
        ) from error
    return document


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise InputError(
                    f"{path} has no column `text`.", f"Found: {', '.join(names)}", "Expected: id, url, title, text."
                )
            kind = file.schema_arrow.field("text").type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise InputError(f"{path}: the column `text` is not text.", f"Its type is {kind}.", "Convert it.")
            columns = [name for name in ("id", "title", "text") if name in names]
            batches = file.iter_batches(batch_size=1024, columns=columns)
            for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                if row["text"]:
                    yield _document(row, f"{path}, row {number}", str(number))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is not a readable Parquet file.", str(error).splitlines()[0][:200], "Fetch it again."
        ) from error


_READERS = {".txt": _read_text, ".md": _read_text, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def training_text(document: Document) -> str:
    """What is learnt of a document: its title as the first line when it has one, then its text."""
    text = document.text.strip()
    return f"{document.title}\n\n{text}" if document.title and not text.startswith(document.title) else text
