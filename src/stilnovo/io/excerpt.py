"""An excerpt of large files: some of their rows, as smaller files of the same kind, for a look at data in seconds.

Small files are taken as they are. Of a large one, slices spread over it are taken where its kind lets a reader begin
in the middle: lines of JSON, row groups of Parquet, batches of Arrow. Of a compressed file, a table of text, an array
of JSON or a dump only the beginning is. The excerpt is a folder that its user removes: everything that reads the
files reads it in the same way, so that what is said of it is what would be said of them.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stilnovo.io.streams import COMPRESSIONS, decompressed, suffix_of, uncompressed_name

EXCERPT_BYTES = 4 << 20  # of all files together
SLICES = 16  # of a large file
MOST_FILES = 64  # from which slices are taken, spread over the list; of small files, so many that the excerpt is full
MOST_SMALL_FILES = 2048
_HEAD = 8  # bytes that tell a kind of JSON


@dataclass(frozen=True)
class FileExcerpt:
    """Files to read instead of the given ones.

    Attributes:
        files: In the order of the given files.
        scale: About how many times as much the given files hold; 1 when everything is there.
        total: Bytes of the given files, uncompressed ones about.
        beginnings: Names of files of which only the beginning was taken.
    """

    files: tuple[Path, ...]
    scale: float
    total: int
    beginnings: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.scale == 1


def even_places(most: int, total: int) -> list[int]:
    """Choose at most `most` evenly spaced places among `total`, the first and the last included, in order."""
    count = min(most, total)
    return sorted({round(at * (total - 1) / max(1, count - 1)) for at in range(count)})


def excerpt_of(
    files: Sequence[Path], folder: Path, *, most: int = EXCERPT_BYTES, spread: bool = True
) -> FileExcerpt:  # fmt: skip
    """Write an excerpt of the files into `folder`; files that are small together are named as they are.

    Args:
        files: As `stilnovo.io.rows.files_of` lists them.
        folder: An empty folder.
        most: About so many bytes are taken.
        spread: False: the beginning of the first files alone, as a reading does that stops after some rows.
    """
    sizes = [path.stat().st_size for path in files]
    if sum(sizes) <= most and not any(path.suffix.lower() in COMPRESSIONS for path in files):
        return FileExcerpt(tuple(files), 1.0, sum(sizes))
    room = min(MOST_SMALL_FILES, max(MOST_FILES, most * len(files) // max(1, sum(sizes))))
    chosen = even_places(room, len(files)) if spread else range(min(len(files), room))
    budget = sum(sizes[at] for at in chosen)
    taken = total = 0
    written, beginnings = list[Path](), list[str]()
    for number, at in enumerate(chosen):
        share = max(1 << 14, most * sizes[at] // max(1, budget)) if spread else most - taken
        if share <= 0:
            break
        place = folder / f"{number}" / uncompressed_name(files[at])
        place.parent.mkdir()
        got, of, middle = _take(files[at], place, share, spread)
        whole = got >= of
        taken, total = taken + got, total + of
        written.append(files[at] if whole else place)
        if not whole and not middle:
            beginnings.append(files[at].name)
    scale = max(1.0, total / max(1, taken)) * (sum(sizes) / max(1, sum(sizes[at] for at in chosen[: len(written)])))
    return FileExcerpt(tuple(written), scale, round(taken * scale), tuple(beginnings))


def _take(path: Path, place: Path, most: int, spread: bool) -> tuple[int, int, bool]:
    """Write an excerpt of one file: bytes taken, bytes it has (uncompressed, about), whether they are spread over it."""
    kind, packed = suffix_of(path), path.suffix.lower() in COMPRESSIONS
    if kind in _COLUMNS and not packed:
        return _COLUMNS[kind](path, place, most)
    size = path.stat().st_size
    with path.open("rb") as raw:
        stream: Any = decompressed(raw, path)
        head = stream.read(most)
        if packed:
            ended = not stream.read(1)
            size = len(head) if ended else max(len(head) + 1, round(len(head) * size / max(1, raw.tell())))
        if len(head) >= size:
            place.write_bytes(head)
            return size, size, True
        lines = kind in (".jsonl", ".ndjson") or (kind == ".json" and _is_lines(head))
        if lines and not packed and spread:
            got = _slices(raw, place, size, most)
            return got or size, size, True
    kept = _CUTS.get(kind, _whole_lines)(head) if not lines else _whole_lines(head)
    if not kept:  # the first row is longer than the excerpt: only the file itself tells what becomes of it
        return size, size, True
    place.write_bytes(kept)
    return len(kept), size, False


def _is_lines(head: bytes) -> bool:
    """Whether a `.json` holds one object a line."""
    first = head.removeprefix(BOM_UTF8).partition(b"\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _slices(raw: IO[bytes], place: Path, size: int, most: int) -> int:
    """Whole lines from places spread over the file, the first from its beginning."""
    part, got = max(1, most // SLICES), 0
    with place.open("wb") as out:
        reached, inside = 0, False  # inside: of a line that is longer than the whole excerpt, and left out
        for number in range(SLICES):
            begin = number * (size - part) // max(1, SLICES - 1)
            if begin > reached:
                raw.seek(begin - 1)
                inside = True
            else:
                raw.seek(reached)
            if inside and not raw.readline(most).endswith(b"\n"):  # the rest of a line that began before
                reached = raw.tell()
                continue
            lines = raw.read(part)
            if not lines.endswith(b"\n"):
                lines += raw.readline(most)
            reached = raw.tell()
            inside = not lines.endswith(b"\n") and reached < size
            got += out.write(b"" if inside else lines)
    return got


def _whole_lines(head: bytes) -> bytes:
    return head[: head.rfind(b"\n") + 1]


def _whole_records(head: bytes) -> bytes:
    """A table's whole records: line ends inside quotes end none."""
    end = at = parity = 0
    for line in head.splitlines(keepends=True):
        at += len(line)
        parity ^= line.count(b'"') & 1
        if not parity and line.endswith(b"\n"):
            end = at
    return head[:end] if head[:end].count(b"\n") > 1 else b""  # more than the header


def _whole_text(head: bytes) -> bytes:
    """The beginning of a text, without a last letter that was cut."""
    return head.decode("utf-8", errors="ignore").encode() if _is_utf8(head) else head


def _is_utf8(head: bytes) -> bool:
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 8
    return True


def _whole_objects(head: bytes) -> bytes:
    """The first whole objects of an array."""
    text, decoder, rows = head.decode("utf-8-sig", errors="ignore"), json.JSONDecoder(), []
    at = text.find("[") + 1
    while at and at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        rows.append(row)
    return json.dumps(rows, ensure_ascii=True).encode() if rows else b""


def _whole_pages(head: bytes) -> bytes:
    end = head.rfind(b"</page>")
    return b"" if end < 0 else head[: end + len(b"</page>")] + b"\n</mediawiki>\n"


#: How the beginning of a file is cut to whole rows, by kind; others are cut at the last line end. Nothing is left where none is whole.
_CUTS: dict[str, Callable[[bytes], bytes]] = {
    ".csv": _whole_records, ".tsv": _whole_records, ".json": _whole_objects, ".xml": _whole_pages, ".txt": _whole_text,
    ".md": _whole_text,
}  # fmt: skip


def _parquet(path: Path, place: Path, most: int) -> tuple[int, int, bool]:
    """Rows from row groups spread over the file: of each the first ones; counted in the rows' share of the bytes."""
    import pyarrow.parquet as pq

    size = path.stat().st_size
    with pq.ParquetFile(path) as file:
        groups, rows = file.metadata.num_row_groups, file.metadata.num_rows
        unpacked = sum(file.metadata.row_group(at).total_byte_size for at in range(groups))
        if not rows or unpacked <= most:
            return size, size, True
        # A group's rows are not alike in number; what is wanted of each is one share of the rows that the budget allows.
        count = min(SLICES, groups)
        wanted = max(1, rows * most // max(1, unpacked) // count)
        taken = 0
        with pq.ParquetWriter(place, file.schema_arrow) as out:
            for group in even_places(SLICES, groups):
                batch = next(file.iter_batches(batch_size=wanted, row_groups=[group]), None)
                if batch is not None:
                    out.write_batch(batch)
                    taken += batch.num_rows
    return max(1, round(size * taken / rows)) if taken < rows else size, size, groups > 1


def _arrow(path: Path, place: Path, most: int) -> tuple[int, int, bool]:
    """Batches spread over a stream or a file of Arrow, whose memory is mapped: those left out are not read."""
    import pyarrow as pa

    size = path.stat().st_size
    with pa.memory_map(str(path)) as mapped:
        head = mapped.read(_HEAD)
        mapped.seek(0)
        if head.startswith(b"ARROW1"):
            file = pa.ipc.open_file(mapped)
            batches, schema = [file.get_batch(at) for at in range(file.num_record_batches)], file.schema
        else:
            stream = pa.ipc.open_stream(mapped)
            batches, schema = list(stream), stream.schema
        rows = sum(batch.num_rows for batch in batches)
        if size <= most or not rows:
            return size, size, True
        count = min(SLICES, len(batches))
        wanted, taken = max(1, rows * most // size // count), 0
        with pa.ipc.new_stream(str(place), schema) as out:
            for at in even_places(SLICES, len(batches)):
                part = batches[at].slice(0, wanted)
                out.write_batch(part)
                taken += part.num_rows
    return max(1, round(size * taken / rows)) if taken < rows else size, size, count > 1


_COLUMNS: dict[str, Callable[[Path, Path, int], tuple[int, int, bool]]] = {".parquet": _parquet, ".arrow": _arrow}
