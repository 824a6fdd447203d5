"""Readers by suffix: each takes a file apart into rows, or into lines of JSON that whoever uses them parses.

A reader is a function of a stream of bytes and the file's path; a new kind of file is one function and one entry of
`READERS`. It yields a row, the raw line of a JSON object, or a `BadRow` where a row cannot be used and those after it can; it raises
a `BadRow` (as `decode` does) or an `InputError` where the file cannot be read at all.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, log
from stilnovo.io.streams import check_head, decode, suffix_of, text_lines, uncompressed_name

Row = dict[str, Any]
Part = bytes | Row | BadRow
Reader = Callable[[Any, Path], Iterator[Part]]
LONGEST_ROW = 256 << 20  # bytes; a longer line is no row but a file without line ends
_JSON = json.JSONDecoder(parse_constant=lambda _: None)  # bare NaN and infinities, which JSON has not, are nulls
_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a whole stream; one that is cut between two batches lacks it
_BLANK = re.compile(r"[ \t\r\n]*")
_OPENED = re.compile(rb"\{[ \t]*\r?\n")  # an object that goes on in the next line
_PEEKED = 4096  # bytes
_BINARY = ("binary", "large_binary", "fixed_size_binary")
_PLAIN = (str, int, float, bool, list, dict, type(None))


def json_row(line: bytes) -> Row | BadRow:
    """Parse one line of JSON as a row."""
    try:
        row = _JSON.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow("invalid UTF-8", f"byte 0x{line[error.start]:02x} at offset {error.start}")
    except (ValueError, RecursionError) as error:
        return BadRow("invalid JSON", f"{_why(error)}: {line[:40]!r}")
    return _checked(row, b"\\ud" in line or b"\\uD" in line)


def _why(error: Exception) -> str:
    return (
        f"{error.msg.removesuffix(' at')} at column {error.colno}"
        if isinstance(error, json.JSONDecodeError)
        else "too deep or long"
    )


def _checked(row: Any, escapes: bool) -> Row | BadRow:
    """Check that a row is an object of valid Unicode: JSON's escapes can spell half a character, which no tokeniser takes."""
    if not isinstance(row, dict):
        return BadRow("not an object", type(row).__name__)
    if escapes:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return BadRow("half a character", repr(error.object[error.start]))
    return row


def _text(stream: Any, path: Path) -> Iterator[Part]:
    if (raw := stream.read()).strip():
        name = uncompressed_name(path)
        try:
            yield {"id": name, "title": Path(name).stem, "text": decode(raw, path)}
        except BadRow as bad:
            yield bad


def _json_lines(stream: Any, path: Path) -> Iterator[Part]:
    """Read objects line by line; what many call so and is an array, or objects over several lines, as what it is."""
    head = stream.peek(_PEEKED)[:_PEEKED].removeprefix(BOM_UTF8).lstrip()
    is_whole = head.startswith(b"[") or _OPENED.match(head)
    yield from (_json if is_whole else _lines)(stream, path)


def _lines(stream: Any, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(iter(partial(stream.readline, LONGEST_ROW), b""), 1):
        if number == 1:
            check_head(line, path)
        if len(line) == LONGEST_ROW:
            raise InputError(
                f"{path}, line {number} is longer than {LONGEST_ROW >> 20} MiB.", "It is no JSONL.", "Write one object a line."
            )  # fmt: skip
        yield line.removeprefix(BOM_UTF8) if number == 1 else line


def _json(stream: Any, path: Path) -> Iterator[Part]:
    """Read an array of objects, or objects one after another: each on a line, or over several.

    A file of lines is read line by line, so that a broken one costs a row and no memory.
    """
    lines = _lines(stream, path)
    first = next(lines, b"")
    second = b""
    if first.lstrip().startswith(b"{") and isinstance(json_row(first), dict) and (second := next(lines, b"")):
        yield from chain((first, second), lines)
        return
    raw = first + b"".join(lines)
    text = decode(raw, path)
    try:
        content = list(_values(text))
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}{place}: invalid JSON.", _why(error), "Correct it, or get it again.") from error
    escapes = b"\\ud" in raw or b"\\uD" in raw
    rows = content[0] if len(content) == 1 and isinstance(content[0], list) else content
    yield from (_checked(row, escapes) for row in rows)


def _values(text: str) -> Iterator[Any]:
    """The values of JSON that follow each other in a text."""
    at = _BLANK.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        value, end = _JSON.raw_decode(text, at)
        yield value
        at = _BLANK.match(text, end).end()  # type: ignore[union-attr]


def _csv(stream: Any, path: Path) -> Iterator[Part]:
    """Read a table with a header; every cell is text. Semicolons or tabs separate the cells where the header has no comma."""
    csv.field_size_limit(LONGEST_ROW)
    lines = text_lines(stream, path)
    head = next(lines, "")
    others = (mark for mark in (",", ";", "\t") if mark in head)
    delimiter = "\t" if suffix_of(path) == ".tsv" else next(others, ",")
    table = csv.reader(chain([head] if head else [], lines), delimiter=delimiter, strict=True)
    columns = [name.strip() for name in next(table, [])]
    if repeated := [name for at, name in enumerate(columns) if name and name in columns[:at]]:
        raise InputError(
            f"{path} has two columns named {repeated[0]!r}.", f"Found: {', '.join(columns)}", "Rename one."
        )
    while True:
        line = table.line_num + 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow("invalid CSV", f"{error}, lines {line} to {table.line_num}")
            continue
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))
        elif cells:
            yield BadRow("wrong number of cells", f"cells: {len(cells)}, columns: {len(columns)}, line {line}")


def _parquet(stream: Any, path: Path) -> Iterator[Part]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path if path.suffix.lower() == ".parquet" else io.BytesIO(stream.read())) as file:
        columns = _columns(file.schema_arrow, path)
        yield from _records(file.iter_batches(batch_size=256, columns=columns), columns)


def _arrow(stream: Any, path: Path) -> Iterator[Part]:
    """Read a file saved by `datasets` (a stream of batches), or an Arrow file."""
    import pyarrow as pa

    if stream.peek(6).startswith(b"ARROW1"):
        with pa.ipc.open_file(io.BytesIO(stream.read())) as file:
            yield from _records(file.read_all().to_batches(), _columns(file.schema, path))
        return
    if path.suffix.lower() == ".arrow":  # a compressed file says itself whether it is whole
        stream.seek(-len(_ARROW_END), os.SEEK_END)
        if stream.read() != _ARROW_END:
            raise EOFError("It has no end-of-stream marker.")
        stream.seek(0)
    with pa.ipc.open_stream(stream) as opened:
        yield from _records(opened, _columns(opened.schema, path))


def _columns(schema: Any, path: Path) -> list[str]:
    binary = [field.name for field in schema if str(field.type).startswith(_BINARY)]
    if len(binary) == len(schema.names):
        raise InputError(f"{path} has no columns but binary ones.", f"Found: {', '.join(schema.names)}")
    if binary:
        log.warning("%s: binary columns are not read: %s", path.name, ", ".join(binary))
    return [name for name in schema.names if name not in binary]


def _records(batches: Iterable[Any], columns: list[str]) -> Iterator[Row]:
    """Convert Arrow batches to rows; dates and decimals become text, maps objects and NaN null, as in JSON."""
    for batch in batches:
        for row in batch.select(columns).to_pylist(maps_as_pydicts="lossy"):
            yield {key: _cell(value) for key, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, _PLAIN) else str(value)


def _pages(stream: Any, path: Path) -> Iterator[Part]:
    """Read the pages of a MediaWiki dump: id, title, namespace, redirect, wikitext; memory does not grow with the dump.

    Raises:
        InputError: when the file is no such dump, or ends before it should; it names the last whole page.
    """
    count, last = 0, ""
    try:
        events = ElementTree.iterparse(stream, events=("start", "end"))
        root = next(events)[1]
        if _tag_name(root) != "mediawiki":
            raise InputError(
                f"{path} is no MediaWiki dump.", f"Its root is <{_tag_name(root)}>.", "Give pages-articles."
            )
        for event, element in events:
            if event == "end" and _tag_name(element) == "page":
                page: Row = {
                    "id": element.findtext("{*}id", ""), "title": element.findtext("{*}title", ""),
                    "namespace": int(element.findtext("{*}ns") or 0),
                    "redirect": element.find("{*}redirect") is not None,
                    "wikitext": element.findtext("{*}revision[last()]/{*}text", ""),
                }  # fmt: skip
                count, last = count + 1, page["title"]
                root.clear()  # the pages before this one
                yield page
    except (ElementTree.ParseError, EOFError, OSError, ValueError) as error:
        where = f"After page {count} ({last!r}): {str(error)[:120]}" if count else str(error)[:160]
        raise InputError(f"{path} is damaged or ends too early.", where, "Get it again.") from error


def _tag_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


#: Every kind of file that is read; each may be compressed (`stilnovo.io.streams.COMPRESSIONS`).
READERS: dict[str, Reader] = {
    ".txt": _text, ".md": _text, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _csv,
    ".parquet": _parquet, ".arrow": _arrow, ".xml": _pages,
}  # fmt: skip
