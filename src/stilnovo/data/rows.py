"""Rows of any corpus as numbered blocks: read as a stream, held a few megabytes at a time, in an order that never changes.

A block is what one worker gets: raw lines, or records already taken out of a container that only one process can read
(Parquet, a MediaWiki dump, a JSON array). Parsing a block's rows is the worker's business, and a row that cannot be read
is a `BadRow` that says where it stands: what becomes of it is for the caller to decide and to count.

Files: text and Markdown (one file, one row), JSONL, a JSON array, Parquet, MediaWiki XML; each also as `.gz` or `.bz2`,
Parquet excepted.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stilnovo.data import mediawiki, sample
from stilnovo.data.streams import open_stream, unreadable
from stilnovo.errors import InputError

Kind = Literal["lines", "records", "text", "wikitext"]
Row = dict[str, Any]
BLOCK_BYTES = 4 << 20  # a block ends with the row that passes this
LONGEST_ROW = 256 << 20  # bytes; a longer line is no row but a file without line ends


@dataclass(frozen=True)
class RowBlock:
    """Some rows of one file, in order.

    Attributes:
        number: Place among all blocks of the corpus.
        source: Path of the file, as reports name it.
        first: Number of the first row in its file, from 1; for JSONL the line.
        payload: Lines of JSON (also for records and pages taken out of a container), or the bytes of a text file.
    """

    number: int
    source: str
    kind: Kind
    first: int
    payload: bytes


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: a reason that is counted, and what was found."""

    reason: str
    found: str = ""


def files_of(paths: Sequence[str | Path]) -> list[Path]:
    """Every file that the paths name, folders in sorted order; `sample` is the project's own encyclopaedia.

    Raises:
        InputError: for a path that does not exist, holds nothing, or is of a kind that is not read.
    """
    found: list[Path] = []
    for given in paths:
        if str(given) == "sample":
            found += [sample.path(name) for name in sample.ENCYCLOPAEDIA]
            continue
        path = Path(given).expanduser()
        known = f"Kinds read: {', '.join(SUFFIXES)}; all but Parquet also as .gz or .bz2."
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and suffix_of(p) in SUFFIXES)
            if not inside:
                raise InputError(f"{path} holds no file that can be read.", next=known)
            found += inside
        elif not path.exists():
            raise InputError(f"There is no file {path}.", next="Give files, a folder, or the name of a known corpus.")
        elif suffix_of(path) not in SUFFIXES:
            raise InputError(f"{path.name}: unknown kind of file {suffix_of(path)!r}.", next=known)
        else:
            found.append(path)
    return found


def suffix_of(path: Path) -> str:
    """The suffix that tells a file's kind, looking through `.gz` and `.bz2`."""
    return Path(path.stem).suffix if path.suffix in (".gz", ".bz2") else path.suffix


def blocks(paths: Sequence[Path], block_bytes: int = BLOCK_BYTES) -> Iterator[RowBlock]:
    """The blocks of the files, one after another.

    Raises:
        InputError: for a file that is empty, cut short, or not what its name says.
    """
    number = 0
    for path in paths:
        kind, reader = _READERS[suffix_of(path)]
        empty = True
        for first, payload in reader(path, block_bytes):
            empty = False
            yield RowBlock(number, str(path), kind, first, payload)
            number += 1
        if empty:
            raise InputError(f"{path} is empty.", next="Take it out of the list.")


def rows_of(block: RowBlock) -> Iterator[tuple[int, Row | BadRow]]:
    """The rows of a block with their numbers; blank lines are passed over."""
    if block.kind == "text":
        yield block.first, _text_row(block)
        return
    for number, line in enumerate(block.payload.split(b"\n"), block.first):
        if line.strip():
            yield number, _json_row(line)


def _text_row(block: RowBlock) -> Row | BadRow:
    name = Path(block.source).name
    if b"\0" in block.payload:
        return BadRow("binary file", f"a zero byte at offset {block.payload.index(0)}")
    try:
        text = block.payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _bad_bytes(error)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return {"id": name, "title": Path(name).stem, "text": text}


def _json_row(line: bytes) -> Row | BadRow:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _bad_bytes(error)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep or long"
        return BadRow("invalid JSON", f"{why}: {line[:40]!r}")
    return row if isinstance(row, dict) else BadRow("not an object", type(row).__name__)


def _bad_bytes(error: UnicodeDecodeError) -> BadRow:
    return BadRow("invalid UTF-8", f"byte 0x{error.object[error.start]:02x} at offset {error.start}")


def _read_lines(path: Path, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    try:
        with open_stream(path) as file:
            lines: list[bytes] = []
            size, first = 0, 1
            while line := file.readline(LONGEST_ROW):
                if first == 1 and not lines:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # a BOM is passed over
                if len(line) == LONGEST_ROW:
                    raise InputError(
                        f"{path}, line {first + len(lines)} is longer than {LONGEST_ROW >> 20} MiB.",
                        "It is no JSONL.", "Write one object a line.",
                    )  # fmt: skip
                lines.append(line)
                size += len(line)
                if size >= block_bytes:
                    yield first, b"".join(lines)
                    first, lines, size = first + len(lines), [], 0
            if any(line.strip() for line in lines):
                yield first, b"".join(lines)
    except (EOFError, OSError, gzip.BadGzipFile) as error:
        raise unreadable(path, error) from error


def _read_text(path: Path, _block_bytes: int) -> Iterator[tuple[int, bytes]]:
    try:
        with open_stream(path) as file:
            raw = file.read()
    except (EOFError, OSError) as error:
        raise unreadable(path, error) from error
    if raw.strip():
        yield 1, raw


def in_blocks(records: Iterator[Row], block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Records taken out of a container, written as lines of JSON, so that one row is one line for everybody."""
    lines: list[bytes] = []
    size, first = 0, 1
    for record in records:
        # "surrogatepass" would hide half characters: they are left to the worker, escaped, as JSON writes them.
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n"
        lines.append(line)
        size += len(line)
        if size >= block_bytes:
            yield first, b"".join(lines)
            first, lines, size = first + len(lines), [], 0
    if lines:
        yield first, b"".join(lines)


def _read_json(path: Path, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    try:
        with open_stream(path) as file:
            raw = file.read()
        found = json.loads(raw.decode("utf-8-sig")) if raw.strip() else []
    except (EOFError, OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(found, list):
        raise InputError(f"{path} is not a list of rows.", f"Found: {type(found).__name__}", "Give JSONL or an array.")
    yield from in_blocks(iter(found), block_bytes)


def _read_parquet(path: Path, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def records() -> Iterator[Row]:
        with pq.ParquetFile(path) as file:
            fields = [f for f in file.schema_arrow if not pa.types.is_binary(f.type)]
            for batch in file.iter_batches(batch_size=256, columns=[f.name for f in fields]):
                yield from json_ready(batch.to_pylist())

    try:
        yield from in_blocks(records(), block_bytes)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def json_ready(rows: list[Row]) -> Iterator[Row]:
    """Rows whose dates and decimals are text, as JSON knows neither."""
    for row in rows:
        yield {key: value if isinstance(value, _PLAIN) else str(value) for key, value in row.items()}


_PLAIN = (str, int, float, bool, list, dict, type(None))


def _read_dump(path: Path, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    yield from in_blocks(mediawiki.pages(path), block_bytes)


_READERS: dict[str, tuple[Kind, Callable[[Path, int], Iterator[tuple[int, bytes]]]]] = {
    ".txt": ("text", _read_text), ".md": ("text", _read_text), ".jsonl": ("lines", _read_lines),
    ".json": ("records", _read_json), ".parquet": ("records", _read_parquet), ".xml": ("wikitext", _read_dump),
}  # fmt: skip
SUFFIXES = tuple(_READERS)
