"""Tokenises a corpus into checksummed shards, with several processes; resumable after a kill.

Blocks are numbered by the reader; each finished one leaves its files and a line in `journal.jsonl`. A preparation that
was killed reads the corpus again and does only the blocks that the journal lacks. When all are done, near-duplicates are
removed across the whole corpus, and `corpus.json` is written last.
"""

from __future__ import annotations

import contextlib
import fileinput
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from stilnovo import folderlock
from stilnovo.data import shards
from stilnovo.data.duplicates import near_duplicates
from stilnovo.data.sources import check_columns
from stilnovo.data.work import SHOWN_HITS, PreparationSettings, Record, run_blocks, save_array
from stilnovo.errors import InputError, StilnovoError
from stilnovo.io.bad_rows import Tally
from stilnovo.io.rows import RowBlock, blocks, files_of, place_of
from stilnovo.io.streams import suffix_of
from stilnovo.progress import Progress
from stilnovo.runlog import disk_errors, write_atomic
from stilnovo.text.lint import check
from stilnovo.text.tokenizer import Tokenizer

JOURNAL, SETTINGS = "journal.jsonl", "settings.json"
SHOWN_REPEATS = 20
_RECORDS = TypeAdapter(Record)


@dataclass(frozen=True)
class Prepared:
    """The result of a preparation.

    Attributes:
        resumed: Blocks that an earlier start had done.
        report: As in `report.json`.
    """

    folder: Path
    documents: int
    tokens: int
    held_out: int
    resumed: int
    report: dict[str, Any]


def prepare(
    settings: PreparationSettings, tokenizer: Tokenizer, name: str, folder: Path, *, processes: int = 1,
    warn: Callable[[str], None] = lambda _text: None,
) -> Prepared:  # fmt: skip
    """Prepare the corpus that the settings name into `folder`; a finished one is returned as it is.

    Args:
        name: Of the model whose tokeniser it is, for the manifest.
        processes: Workers; the result does not depend on it.
        warn: Called with what the linter of templates finds.

    Raises:
        InputError: when a source cannot be read, or the folder holds another preparation.
    """
    files = files_of(settings.sources)
    described = {
        "settings": asdict(settings), "tokenizer": {"name": name, "fingerprint": tokenizer.fingerprint()},
        "source_files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
    }  # fmt: skip
    if shards.is_prepared(folder):  # nothing is written: others may read it meanwhile, and it may be read-only
        _claim(folder, described)
        return _described(folder, len(shards.read_manifest(folder)["shards"]))
    with folderlock.locked(folder, "a preparation"):
        return _prepare(files, described, settings, tokenizer, folder, processes, warn)


def _prepare(
    files: list[Path], described: dict[str, Any], settings: PreparationSettings, tokenizer: Tokenizer, folder: Path, processes: int,
    warn: Callable[[str], None],
) -> Prepared:  # fmt: skip
    benchmarks = [path for path in files_of(settings.benchmarks) if suffix_of(path) != ".md"]  # a folder's README
    _claim(folder, described)
    for finding in check(tokenizer, conversations=False):  # a conversation among the rows asks for more (`Worker`)
        warn(f"{finding.rule}: {finding.text}")
    records = _done(folder)
    resumed = len(records)
    _work(files, records, processes, (settings, tokenizer, folder, benchmarks), folder)
    _finish(folder, [records[block] for block in sorted(records)], settings, described)
    return _described(folder, resumed)


def _claim(folder: Path, described: dict[str, Any]) -> None:
    """Start preparing in the folder, or check that it holds the same preparation."""
    path = folder / SETTINGS
    described = json.loads(json.dumps(described))
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if before is None:
        if any(entry.name != folderlock.FILE for entry in folder.iterdir()):
            raise InputError(f"{folder} is not empty.", "It holds no preparation.", "Choose another --out.")
        write_atomic(path, json.dumps(described, ensure_ascii=False, indent=1) + "\n")
    elif before != described:
        flat = [
            f"{part}.{key}" for part in ("settings", "tokenizer") for key in described[part]
            if before[part].get(key) != described[part][key]
        ]  # fmt: skip
        raise InputError(
            f"{folder} holds another preparation.", f"Changed: {', '.join(flat) or 'the source files'}.",
            "Choose another --out, or delete the folder.",
        )  # fmt: skip


def _done(folder: Path) -> dict[int, Record]:
    """Read the finished blocks: whole lines of the journal whose shard is there in its full size."""
    records: dict[int, Record] = {}
    if (folder / JOURNAL).is_file():
        for line in (folder / JOURNAL).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, OSError):  # a line that a kill cut short, or a file that is gone
                record = _RECORDS.validate_json(line)
                if all((folder / name).stat().st_size == size for name, size, _ in record.shard.files()):
                    records[record.block] = record
    return records


def _work(
    files: list[Path], records: dict[int, Record], processes: int, arguments: tuple[Any, ...], folder: Path
) -> None:
    sizes = {str(path): path.stat().st_size for path in files}
    seen: dict[str, int] = {}
    tokens = sum(record.shard.tokens for record in records.values())

    def wanted() -> Iterator[RowBlock]:
        for block in blocks(files):
            if block.source not in seen:
                check_columns(block, conversations=True)
            # Compressed files are smaller than what comes out of them: the share of a file is then a guess from below.
            seen[block.source] = min(sizes[block.source], seen.get(block.source, 0) + block.size)
            if block.number not in records:
                yield block

    try:
        with (
            Progress("prepare", sum(sizes.values())) as progress,
            disk_errors(folder),
            (folder / JOURNAL).open("a", encoding="utf-8") as journal,
        ):
            if journal.tell():
                journal.write("\n")  # after a line that a kill cut short
            for record in run_blocks(wanted(), processes, arguments):
                journal.write(_RECORDS.dump_json(record).decode() + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                records[record.block] = record
                tokens += record.shard.tokens
                progress.update(sum(seen.values()), f"{tokens:,} tokens in {len(records):,} shards")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped after {len(records)} blocks. Run the same command again: it goes on from there."
        ) from None
    except StilnovoError as error:
        if isinstance(error, InputError):
            raise
        way = f"Stopped after {len(records)} blocks. Run the same command again: it goes on from there."
        raise StilnovoError(error.what, error.found, "\n".join(line for line in (error.next, way) if line)) from error


def _finish(folder: Path, records: list[Record], settings: PreparationSettings, described: dict[str, Any]) -> None:
    tally = Tally()
    for record in records:
        tally.add(record.tally)
    if not any(record.shard.documents for record in records):
        shown = tally.lines()[0] if tally.left else "no rows"
        advice = next(iter(tally.advice.values()), "Give more text, or loosen the filters.")
        raise InputError("Nothing is left to learn from.", shown, advice)
    dropped, held_gone, repeats = _duplicates(folder, records, settings.duplicates)
    save_array(folder / "dropped.npy", dropped)
    _merge_held_out(folder, records, held_gone)
    report = {
        "rows": tally.taken + sum(tally.left.values()), "taken": tally.taken, "left_out": dict(tally.left),
        "left_out_first": tally.places, "not_read": dict(tally.unread), "not_read_first": tally.first_unread,
        "lines_cleaned": sum((record.cleaned for record in records), Counter[str]()),
        "long": [document for record in records for document in record.long][:100],
        "near_duplicates": len(dropped) + len(held_gone), "near_duplicates_first": repeats,
        "benchmark_passages": sum((record.passages for record in records), Counter[str]()),
        "benchmark_items": records[0].items, "benchmark_items_too_short": records[0].too_short,
        "benchmark_first": [asdict(hit) for record in records for hit in record.hits][:SHOWN_HITS],
        "text_bytes": sum(record.text_bytes for record in records),
    }  # fmt: skip
    write_atomic(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    shards.write_manifest(
        folder, [record.shard for record in records], dropped, **described,
        held_out=sum(record.held_out for record in records) - len(held_gone),
        conversations=sum(record.conversations for record in records),
    )  # fmt: skip
    shutil.rmtree(folder / "work")
    (folder / JOURNAL).unlink()


def _duplicates(
    folder: Path, records: list[Record], threshold: float | None
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], set[int], list[str]]:
    """Find documents and held-out texts that repeat an earlier one: their indices, and the first pairs in words.

    Held-out texts are numbered before all others: what repeats one of them is not learnt.
    """
    if threshold is None:
        return np.empty(0, np.int64), set(), []
    names = [record.shard.name for record in records]
    files = [folder / "work" / f"{name}.{kind}.npy" for kind in ("held", "documents") for name in names]
    pairs = near_duplicates(files, threshold)
    held = sum(record.held_out for record in records)
    shown = [
        f"{_place(folder, records, gone - held)} repeats "
        f"{_place(folder, records, earlier - held) if earlier >= held else 'a held-out text'}"
        for gone, earlier in pairs[pairs[:, 0] >= held][:SHOWN_REPEATS].tolist()
    ]
    gone = pairs[:, 0]
    return gone[gone >= held] - held, set(gone[gone < held].tolist()), shown


def _place(folder: Path, records: list[Record], document: int) -> str:
    """Name the place of a training document in the sources."""
    ends = np.cumsum([record.shard.documents for record in records])
    at = int(np.searchsorted(ends, document, side="right"))
    rows = np.fromfile(folder / "work" / f"{records[at].shard.name}.rows", dtype="<i8")
    return place_of(records[at].source, rows[document - int(ends[at])])  # from the shard's end


def _merge_held_out(folder: Path, records: list[Record], gone: set[int]) -> None:
    merged = folder / "work" / shards.HELD_OUT
    parts = [folder / "work" / f"{record.shard.name}.held.jsonl" for record in records]
    with merged.open("wb") as file, fileinput.input(parts, mode="rb") as lines:
        file.writelines(line for at, line in enumerate(lines) if at not in gone)
        file.flush()
        os.fsync(file.fileno())
    os.replace(merged, folder / shards.HELD_OUT)


def _described(folder: Path, resumed: int) -> Prepared:
    manifest = shards.read_manifest(folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Prepared(folder, manifest["documents"], manifest["tokens"], manifest["held_out"], resumed, report)
