"""Rows of any files: one by one, or as numbered blocks for several workers, in an order that never changes.

| suffix | rows |
|---|---|
| .txt .md | one: id, title (both from the file's name) and text |
| .jsonl .ndjson .json | objects, one a line or each over several lines; or an array of them |
| .csv .tsv | a table with a header; cells are text, between commas, semicolons or tabs |
| .parquet .arrow | columns, binary ones left out; dates and decimals as text, NaN as null |
| .xml | pages of a MediaWiki dump |

Each may be compressed (.gz, .bz2, .xz, .zst). A folder is all such files in it, in sorted order; one that `datasets`
saved is its Arrow files. Text is UTF-8, with or without BOM. What becomes of a row that cannot be used is the caller's
choice (`stilnovo.io.bad_rows`); a file that cannot be read stops everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stilnovo.errors import InputError, reported
from stilnovo.io import sample
from stilnovo.io.bad_rows import BadRow, Tally, stop
from stilnovo.io.folders import refuse_other_kinds
from stilnovo.io.formats import READERS, Part, Row, json_row
from stilnovo.io.streams import COMPRESSIONS, open_stream, suffix_of

Parsed = TypeVar("Parsed")
_LINES = (".jsonl", ".ndjson")
BLOCK_BYTES = 4 << 20  # a block ends with the row that passes this


@dataclass(frozen=True)
class RowBlock:
    """Some rows of one file, in order.

    Attributes:
        number: Place among all blocks of the corpus.
        source: Path of the file, as reports name it.
        first: Number of the first row in its file, from 1; for JSONL the line.
        size: About how many bytes the rows have.
        parts: Rows, or lines of JSON that are parsed when the rows are asked for.
    """

    number: int
    source: str
    first: int
    size: int
    parts: Sequence[Part]


def place_of(source: str, number: int) -> str:
    """Name a row for error messages: by its line, where rows are lines."""
    path = Path(source)
    return f"{path.name}, {'line' if suffix_of(path) in _LINES else 'row'} {number}"


def files_of(paths: Iterable[str | Path]) -> list[Path]:
    """List every file that the paths name, folders in sorted order; `sample`, `sample-chat` and `sample-pairs` are the project's own.

    Raises:
        InputError: for a path that does not exist, holds nothing, or is a file or folder of a kind that is not read.
    """
    files: list[Path] = []
    known = f"Kinds read: {', '.join(READERS)}; each also as {', '.join(COMPRESSIONS)}."
    for given in paths:
        path = Path(given).expanduser()
        if str(given) in sample.NAMED:
            files += [sample.path(name) for name in sample.NAMED[str(given)]]
        elif path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise InputError(f"{path} holds no file that can be read.", next=known)
            files += inside
        elif not path.exists():
            raise InputError(f"There is no file {path}.", next="Give files, a folder, or the name of a known corpus.")
        elif suffix_of(path) not in READERS:
            raise InputError(f"{path.name}: unknown kind of file {suffix_of(path)!r}.", next=known)
        else:
            files.append(path)
    return files


def _inside(folder: Path) -> Iterator[Path]:
    """List the files of a folder; of one saved by `datasets`, only its data."""
    refuse_other_kinds(folder)
    splits, state = folder / "dataset_dict.json", folder / "state.json"
    with reported(
        f"{folder} is no whole data set: its list of files is damaged.", errors=(KeyError, TypeError, ValueError)
    ):
        if splits.is_file() and len(names := json.loads(splits.read_text(encoding="utf-8"))["splits"]) > 1:
            raise InputError(
                f"{folder} holds {len(names)} splits.", f"Found: {', '.join(names)}", f"Name one: {folder / names[0]}"
            )
        if state.is_file() and (folder / "dataset_info.json").is_file():
            listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            yield from (folder / file["filename"] for file in listed)
            return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _inside(path)
        elif suffix_of(path) in READERS and path != splits:
            yield path


def blocks(paths: Iterable[Path], block_bytes: int = BLOCK_BYTES) -> Iterator[RowBlock]:
    """Split the files into blocks of rows.

    Raises:
        InputError: for a file that is empty, cut short, or not what its name says.
    """
    number = 0
    for path in paths:
        begun = number
        with open_stream(path) as stream:
            for first, size, parts in _cut(READERS[suffix_of(path)](stream, path), block_bytes):
                yield RowBlock(number, str(path), first, size, parts)
                number += 1
        if number == begun:
            raise InputError(f"{path} is empty.", next="Take it out of the list.")


def _cut(parts: Iterator[Part], block_bytes: int) -> Iterator[tuple[int, int, list[Part]]]:
    block: list[Part] = []
    size, first = 0, 1
    for part in parts:
        block.append(part)
        size += len(part if isinstance(part, bytes) else str(part))
        if size >= block_bytes:
            yield first, size, block
            first, size, block = first + len(block), 0, []
    if any(not isinstance(part, bytes) or part.strip() for part in block):
        yield first, size, block


def rows_of(block: RowBlock) -> Iterator[tuple[int, Row | BadRow]]:
    """Read the rows of a block with their numbers; blank lines are skipped."""
    for number, part in enumerate(block.parts, block.first):
        if not isinstance(part, bytes):
            yield number, part
        elif part.strip():
            yield number, json_row(part)


def parsed(
    blocks: Iterable[RowBlock], parse: Callable[[Row, int], Parsed], on_bad: Callable[[str, BadRow], None] = stop,
    tally: Tally | None = None,
) -> Iterator[Parsed]:  # fmt: skip
    """Parse each row with `parse` (row, number); `on_bad` is called with place and fault of each bad row.

    What an item says of its row that was not read (`unread`) is noted in `tally`, where there is one.

    Raises:
        InputError: for a file that cannot be read, or whatever `on_bad` raises: by default at the first bad row.
    """
    for block in blocks:
        for number, row in rows_of(block):
            try:
                if isinstance(row, BadRow):
                    raise row
                item = parse(row, number)
            except BadRow as bad:
                on_bad(place_of(block.source, number), bad)
            else:
                if tally is not None and (unread := getattr(item, "unread", None)):
                    tally.note(unread, place_of(block.source, number))
                yield item


def iter_rows(path: str | Path, on_bad: Callable[[str, BadRow], None] = stop) -> Iterator[Row]:
    """Iterate over the rows of a file or folder; errors and `on_bad` as in `parsed`."""
    return parsed(blocks(files_of([path])), lambda row, _: row, on_bad)


def read_rows(path: str | Path) -> list[Row]:
    """Read all rows of a file or folder; the first bad one is an error."""
    return list(iter_rows(path))
