"""The work on blocks of rows, by one process or several: each becomes one shard, and a record for the journal.

The result depends on the block, the settings and the tokeniser alone, so that a block may be done again, by another
process or after a kill, and gives the same bytes. No row is left out silently: each reason is counted, with its places.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from stilnovo.data import clean
from stilnovo.data.contamination import BenchmarkOverlap, ItemIndex
from stilnovo.data.conversations import conversation, shape_of
from stilnovo.data.duplicates import signatures
from stilnovo.data.packing import IntArray, coded
from stilnovo.data.shards import Shard, write_shard
from stilnovo.data.sources import Document, document, training_text
from stilnovo.errors import StilnovoError
from stilnovo.io.bad_rows import BadRow, OnBad, Tally, refuse_if, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import RowBlock, parsed, place_of
from stilnovo.runlog import write_atomic
from stilnovo.text.chat_template import REFUSED, TemplateRefusal
from stilnovo.text.encoder import Encoder
from stilnovo.text.lint import check
from stilnovo.text.tokenizer import Tokenizer

LONG_BYTES = 10 << 20  # a longer document is learnt all the same, and named in the report
SHOWN_HITS = 50

#: A row that is learnt or held out: its number, text, and tokens where those are not simply its text's.
Taken = tuple[int, str, IntArray | None]
#: Reasons that are choices of the settings, not faults of a row: they never stop a preparation.
FILTERS = frozenset({
    "stub", "disambiguation page", "redirect", "not an article", "nothing left after cleaning", "contains a benchmark's item",
})  # fmt: skip


@dataclass(frozen=True)
class PreparationSettings:
    """Settings that decide the content of the shards."""

    sources: tuple[str, ...]
    clean: Literal["wikipedia", "none"] = "none"
    min_chars: int = 1
    max_document_bytes: int = 128 << 20
    held_out: float = 0.0
    seed: int = 42
    duplicates: float | None = None
    benchmarks: tuple[str, ...] = ()
    on_bad: OnBad = "skip"


@dataclass
class Record:
    """Result of one block: a line of the journal.

    Attributes:
        items, too_short: Texts of the benchmarks, and those too short to be searched for.
        conversations: Documents of which only the answers are learnt.
    """

    block: int
    source: str
    shard: Shard = field(default_factory=Shard)
    held_out: int = 0
    text_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    cleaned: Counter[str] = field(default_factory=Counter)
    long: list[str] = field(default_factory=list)
    passages: Counter[str] = field(default_factory=Counter)
    hits: list[BenchmarkOverlap] = field(default_factory=list)
    items: int = 0
    too_short: int = 0
    conversations: int = 0


class Worker:
    """Prepares blocks; one to a process, because the encoder remembers words."""

    def __init__(self, settings: PreparationSettings, tokenizer: Tokenizer, folder: Path, files: list[Path]) -> None:
        self.settings, self.tokenizer, self.folder = settings, tokenizer, folder
        self.encoder, self.items = Encoder(tokenizer), ItemIndex(files)
        self._fit_for_conversations = False  # looked at with the first one

    def run(self, block: RowBlock) -> Record:
        """Prepare one block and write its files.

        Raises:
            InputError: for a bad row when the settings say `stop`.
        """
        record = Record(block.number, block.source, items=self.items.items, too_short=self.items.too_short)

        def take(row: Row, row_number: int) -> Taken:
            place = place_of(block.source, row_number)
            if "text" not in row and "wikitext" not in row:
                return row_number, *self._conversation(row, row_number, place, record)
            return row_number, self._text(document(row, row_number), place, record), None

        def leave(place: str, bad: BadRow) -> None:
            if self.settings.on_bad == "stop" and bad.reason not in FILTERS:
                bad.next = bad.next or "Correct the row, or leave it out with --on-bad skip."
                stop(place, bad)
            record.tally.leave(place, bad)

        rows = list(parsed([block], take, leave))
        record.tally.taken, record.text_bytes = len(rows), sum(len(text.encode()) for _, text, _ in rows)
        is_held_out = [tokens is None and self._is_held_out(text) for _, text, tokens in rows]
        held = [text for (_, text, _), held_out in zip(rows, is_held_out, strict=True) if held_out]
        self._write(record, held, [row for row, held_out in zip(rows, is_held_out, strict=True) if not held_out])
        return record

    def _conversation(self, row: Row, row_number: int, place: str, record: Record) -> tuple[str, IntArray]:
        refuse_if(shape_of(row) == "preference", "preference pair", "it is learnt with DPO, not prepared as text")
        talk = conversation(row, row_number)
        record.tally.note(talk.unread, place)
        messages = talk.messages
        text = "\n".join(turn.content for turn in messages)
        if hit := self.items.find(text):
            raise self._overlap(record, hit)
        if not self._fit_for_conversations:
            check(self.tokenizer)
            self._fit_for_conversations = True
        try:
            tokens = coded(*self.tokenizer.supervised(messages))
        except TemplateRefusal as refusal:
            raise BadRow(REFUSED, refusal.found) from refusal
        record.conversations += 1
        return text, tokens

    def _text(self, source: Document, place: str, record: Record) -> str:
        record.tally.note(source.unread, place)
        size, body = len(source.text.encode()), source.text
        refuse_if(size > self.settings.max_document_bytes, "too long", f"{size / 2**20:.0f} MiB")
        if size > LONG_BYTES:
            record.long.append(f"{place}: {size / 2**20:.0f} MiB")
        if self.settings.clean == "wikipedia":
            refuse_if(clean.is_disambiguation(body), "disambiguation page", source.title)
            body, removed = clean.article(body)
            record.cleaned.update(removed)
        characters, reason = len(body.strip()), "stub" if body.strip() else "nothing left after cleaning"
        refuse_if(characters < self.settings.min_chars, reason, f"{source.title!r}, {characters} characters")
        text, hits = self.items.clean(training_text(Document(source.id, source.title, body)))
        overlap = self._overlap(record, *hits)
        if hits and len(text.strip()) < max(1, self.settings.min_chars):
            raise overlap
        return text

    def _overlap(self, record: Record, *hits: BenchmarkOverlap) -> BadRow:
        """Count passages that contain a benchmark's item; the error for a row of which nothing else is left."""
        record.passages.update(hit.item.partition(":")[0] for hit in hits)
        record.hits += hits[: SHOWN_HITS - len(record.hits)]
        return BadRow("contains a benchmark's item", hits[0].item if hits else "")

    def _is_held_out(self, text: str) -> bool:
        if not self.settings.held_out:
            return False
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(self.settings.seed).encode()).digest()
        return int.from_bytes(digest, "big") < self.settings.held_out * 2**64

    def _write(self, record: Record, held: list[str], learnt: list[Taken]) -> None:
        name, work = f"{record.block:05d}", self.folder / "work"
        encoded = iter(self.encoder.documents([text for _, text, tokens in learnt if tokens is None]))
        documents = [next(encoded) if tokens is None else tokens for _, _, tokens in learnt]
        record.shard, record.held_out = write_shard(self.folder / "shards", name, documents), len(held)
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in held]
        write_atomic(work / f"{name}.held.jsonl", "".join(lines))
        write_atomic(
            work / f"{name}.rows", np.array([row_number for row_number, _, _ in learnt], dtype="<i8").tobytes()
        )
        if self.settings.duplicates is not None:
            for kind, texts in (("documents", [text for _, text, _ in learnt]), ("held", held)):
                save_array(work / f"{name}.{kind}.npy", signatures(texts))


def save_array(path: Path, array: Any) -> None:
    """Write a NumPy array atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())


def run_blocks(blocks: Iterator[RowBlock], processes: int, arguments: tuple[Any, ...]) -> Iterator[Record]:
    """Run `Worker(*arguments)` on all blocks, in this process or several; yields records as they finish.

    Each worker process has a pipe of its own: when the parent is gone, even by kill -9, the pipe ends and so does the
    worker. The parent holds one block a worker and the next one, whatever the corpus.

    Raises:
        StilnovoError: whatever a worker raised, or when one died.
    """
    if processes == 1:
        yield from map(Worker(*arguments).run, blocks)
        return
    context = get_context("spawn")  # a forked tokeniser or torch may hang
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            workers[ours] = context.Process(target=_serve, args=(theirs, arguments), daemon=True)
            workers[ours].start()
            theirs.close()
        yield from _feed(blocks, list(workers))
    finally:
        for pipe in workers:
            pipe.close()
        for worker in workers.values():
            worker.join(5)
            worker.terminate()  # one that has ended is left alone


def _feed(blocks: Iterator[RowBlock], pipes: list[Connection]) -> Iterator[Record]:
    following = next(blocks, None)  # read while the workers are busy
    busy: list[Any] = []
    idle: list[Any] = list(pipes)
    while busy or following is not None:
        while idle and following is not None:
            busy.append(idle.pop())
            busy[-1].send(following)
            following = next(blocks, None)
        for pipe in cast("list[Any]", wait(busy)):
            busy.remove(pipe)
            idle.append(pipe)
            try:
                answer = pipe.recv()
            except EOFError as error:
                raise StilnovoError(
                    "A worker process died.", "Perhaps the machine ran out of memory.",
                    "Run the same command again, with fewer --processes: it goes on where it stopped.",
                ) from error  # fmt: skip
            if not isinstance(answer, Record):
                raise answer
            yield answer


def _serve(pipe: Connection, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    worker = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            block = pipe.recv()
            try:
                worker = worker or Worker(*arguments)
                pipe.send(worker.run(block))
            except StilnovoError as error:
                pipe.send(error)
            except Exception as error:  # others may not survive the way between processes
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
