"""One block of rows to one shard: what a worker process does, and the record that says it was done.

The result depends on the block, the settings and the tokeniser alone, so that a block may be done again, by another
process or after a kill, and gives the same bytes. No row is left out silently: each reason is counted, with its places.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stilnovo.data import clean
from stilnovo.data.contamination import BenchmarkOverlap, ItemIndex
from stilnovo.data.conversations import conversation, shape_of
from stilnovo.data.duplicates import signatures
from stilnovo.data.packing import IntArray, coded
from stilnovo.data.shards import Shard, write_shard
from stilnovo.data.sources import Document, document, training_text
from stilnovo.io.bad_rows import BadRow, OnBad, Tally, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import RowBlock, parsed
from stilnovo.runlog import write_atomic
from stilnovo.text.encoder import Encoder
from stilnovo.text.tokenizer import Tokenizer

LONG_BYTES = 10 << 20  # a document of more is kept, and named in the report
SHOWN_HITS = 50


@dataclass(frozen=True)
class PreparationSettings:
    """What decides the content of the shards."""

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
    """What became of one block."""

    block: int
    source: str
    shard: Shard
    held_out: int
    text_bytes: int
    tally: Tally
    cleaned: Counter[str]
    long: list[str] = field(default_factory=list)
    passages: Counter[str] = field(default_factory=Counter)
    hits: list[BenchmarkOverlap] = field(default_factory=list)
    items: int = 0  # texts of the benchmarks, and those too short to be searched for
    too_short: int = 0
    conversations: int = 0  # documents of which only the answers are learnt

    def to_json(self) -> str:
        """One line of the journal."""
        # Not `asdict` of the whole: it makes a Counter of a Counter's pairs.
        row = {
            **vars(self), "shard": asdict(self.shard), "tally": vars(self.tally), "hits": [asdict(hit) for hit in self.hits],
        }  # fmt: skip
        return json.dumps(row, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """A record from its line."""
        row = json.loads(line)
        tally = Tally(row["tally"]["taken"], Counter(row["tally"]["left"]), row["tally"]["places"])
        parts = {
            "shard": Shard(**row["shard"]), "tally": tally, "cleaned": Counter(row["cleaned"]),
            "passages": Counter(row["passages"]), "hits": [BenchmarkOverlap(**hit) for hit in row["hits"]],
        }  # fmt: skip
        return cls(**{**row, **parts})


@dataclass
class _Kept:
    """A block's documents on their way to disk."""

    documents: list[IntArray | str] = field(default_factory=list)  # a text until the whole block is encoded
    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class Worker:
    """Prepares blocks; one to a process, because the encoder remembers words."""

    def __init__(self, settings: PreparationSettings, tokenizer: Tokenizer, folder: Path, files: list[Path]) -> None:
        self.settings, self.tokenizer, self.folder = settings, tokenizer, folder
        self.encoder = Encoder(tokenizer)
        self.items = ItemIndex(files) if files else None

    def run(self, block: RowBlock) -> Record:
        """Prepare one block and write its files.

        Raises:
            InputError: for a bad row when the settings say `stop`.
        """
        tally, kept = Tally(), _Kept()
        record = Record(block.number, block.source, Shard("", 0, 0, "", ""), 0, 0, tally, Counter())
        if self.items is not None:
            record.items, record.too_short = self.items.items, self.items.too_short

        def take(row: Row, number: int) -> None:
            self._take(row, number, block.place(number), record, kept)

        def leave(place: str, bad: BadRow) -> None:
            if self.settings.on_bad == "stop" and bad.reason not in FILTERS:
                bad.next = bad.next or "Correct the row, or leave it out with --on-bad skip."
                stop(place, bad)
            tally.leave(place, bad)

        tally.taken = sum(1 for _ in parsed([block], take, leave))
        self._write(block, record, kept)
        return record

    def _take(self, row: Row, number: int, place: str, record: Record, kept: _Kept) -> None:
        if "text" not in row and "wikitext" not in row:
            self._take_conversation(row, number, record, kept)
            return
        text = self._text(document(row, number), place, record)
        record.text_bytes += len(text.encode())
        if self._is_held(text):
            kept.held.append(text)
            return
        kept.documents.append(text)
        kept.rows.append(number)
        if self.settings.duplicates is not None:
            kept.texts.append(text)

    def _take_conversation(self, row: Row, number: int, record: Record, kept: _Kept) -> None:
        if shape_of(list(row)) == "preference":
            raise BadRow("preference pair", "it is learnt with DPO, not prepared as text")
        talk = conversation(row, number)
        ids, learnt = self.tokenizer.supervised(talk.messages)
        kept.documents.append(coded(ids, learnt))
        kept.rows.append(number)
        text = "\n".join(turn.content for turn in talk.messages)
        if self.items is not None and (hit := self.items.find(text)) is not None:
            kept.documents.pop(), kept.rows.pop()
            self._hit(hit, record)
            raise BadRow("contains a benchmark's item", hit.item)
        record.text_bytes += len(text.encode())
        record.conversations += 1
        if self.settings.duplicates is not None:
            kept.texts.append(text)

    def _text(self, document: Document, place: str, record: Record) -> str:
        size = len(document.text.encode())
        if size > self.settings.max_document_bytes:
            raise BadRow("too long", f"{size / 2**20:.0f} MiB")
        if size > LONG_BYTES:
            record.long.append(f"{place}: {size / 2**20:.0f} MiB")
        if self.settings.clean == "wikipedia":
            if clean.is_disambiguation(document.text):
                raise BadRow("disambiguation page", document.title)
            body, went = clean.article(document.text)
            record.cleaned.update(went)
            document = Document(document.id, document.title, body)
        if len(document.text.strip()) < self.settings.min_chars:
            reason = "stub" if document.text.strip() else "nothing left after cleaning"
            raise BadRow(reason, f"{document.title!r}, {len(document.text.strip())} characters")
        text = training_text(document)
        if self.items is not None:
            text, hits = self.items.clean(text)
            for hit in hits:
                self._hit(hit, record)
            if hits and len(text.strip()) < max(1, self.settings.min_chars):
                raise BadRow("contains a benchmark's item", hits[0].item)
        return text

    def _hit(self, hit: BenchmarkOverlap, record: Record) -> None:
        record.passages[hit.item.partition(":")[0]] += 1
        if len(record.hits) < SHOWN_HITS:
            record.hits.append(hit)

    def _is_held(self, text: str) -> bool:
        if not self.settings.held_out:
            return False
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(self.settings.seed).encode()).digest()
        return int.from_bytes(digest, "big") < self.settings.held_out * 2**64

    def _write(self, block: RowBlock, record: Record, kept: _Kept) -> None:
        name = f"{block.number:05d}"
        encoded = iter(self.encoder.documents([found for found in kept.documents if isinstance(found, str)]))
        documents = [next(encoded) if isinstance(found, str) else found for found in kept.documents]
        record.shard = write_shard(self.folder / "shards", name, documents)
        record.held_out = len(kept.held)
        work = self.folder / "work"
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in kept.held]
        write_atomic(work / f"{name}.held.jsonl", "".join(lines))
        write_atomic(work / f"{name}.rows", np.array(kept.rows, dtype="<i8").tobytes())
        if self.settings.duplicates is not None:
            for kind, texts in (("documents", kept.texts), ("held", kept.held)):
                _save_array(work / f"{name}.{kind}.npy", signatures(texts))


#: Reasons that are choices of the settings, not faults of a row: they never stop a preparation.
FILTERS = frozenset({
    "stub", "disambiguation page", "redirect", "not an article", "nothing left after cleaning", "contains a benchmark's item",
})  # fmt: skip


def _save_array(path: Path, array: Any) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getvalue())
