"""A prepared corpus on disk: memory-mapped token shards with checksums.

A folder holds `corpus.json` (what was prepared, from what, with which tokeniser; each shard's size and sha256),
`shards/NNNNN.tokens` (int32, documents one after another) and `shards/NNNNN.ends` (int64, where each document ends), and
`held_out.jsonl`. Near-duplicate documents stay in their shards and are named in `dropped.npy`.
Opening one costs an index of some bytes a document; the tokens stay on disk until a batch asks for them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stilnovo.data.packing import IntArray, LazySequence, LongArray, PackedCorpus, documents_sha256, pack_index
from stilnovo.errors import InputError, reported
from stilnovo.io.folders import PREPARED, UNFINISHED, kind_of
from stilnovo.io.rows import read_rows
from stilnovo.runlog import sha256_file, write_atomic

FORMAT = 1
MANIFEST, HELD_OUT = PREPARED.files[0], "held_out.jsonl"
FILES = ("dropped.npy", HELD_OUT, "report.json")


@dataclass(frozen=True)
class Shard:
    """One shard as the manifest names it: documents, tokens, and the sha256 of both files."""

    name: str = ""
    documents: int = 0
    tokens: int = 0
    tokens_sha256: str = ""
    ends_sha256: str = ""

    def files(self) -> tuple[tuple[str, int, str], ...]:
        """Path in the prepared folder, bytes and sha256 of each file."""
        return (
            (f"shards/{self.name}.tokens", 4 * self.tokens, self.tokens_sha256),
            (f"shards/{self.name}.ends", 8 * self.documents, self.ends_sha256),
        )


def write_shard(folder: Path, name: str, documents: Sequence[IntArray]) -> Shard:
    """Write one shard's files atomically, each beside its place first."""
    tokens = np.concatenate([np.empty(0, np.int32), *documents]).astype("<i4", copy=False).tobytes()
    ends = np.cumsum([len(document) for document in documents], dtype="<i8").tobytes()
    write_atomic(folder / f"{name}.tokens", tokens)
    write_atomic(folder / f"{name}.ends", ends)
    digests = [hashlib.sha256(content).hexdigest() for content in (tokens, ends)]
    return Shard(name, len(documents), len(tokens) // 4, *digests)


class MappedDocuments(LazySequence[IntArray]):
    """The documents that are learnt, as views of the mapped shards; `plain`: every token of theirs has a loss."""

    def __init__(self, folder: Path, shards: Sequence[Shard], dropped: LongArray, *, plain: bool = False) -> None:
        self.plain = plain
        self._maps = [
            np.memmap(folder / f"{s.name}.tokens", "<i4", "r", shape=(s.tokens,)) if s.tokens else np.empty(0, np.int32)
            for s in shards
        ]
        ends = [np.fromfile(folder / f"{s.name}.ends", dtype="<i8") for s in shards]
        counts = np.array([s.documents for s in shards], dtype=np.int64)
        starts = [np.concatenate([[0], e[:-1]]) for e in ends if len(e)]
        learnt = np.ones(int(counts.sum()), dtype=bool)
        learnt[dropped] = False
        self._shard = np.repeat(np.arange(len(shards), dtype=np.int32), counts)[learnt]
        self._start = np.concatenate([np.empty(0, np.int64), *starts])[learnt]
        self.lengths = np.concatenate([np.empty(0, np.int64), *ends])[learnt] - self._start

    def __len__(self) -> int:
        return len(self._shard)

    def item(self, at: int) -> IntArray:
        """One document's tokens."""
        start = int(self._start[at])
        return self._maps[int(self._shard[at])][start : start + int(self.lengths[at])]

    def without(self, places: Sequence[int]) -> MappedDocuments:
        """The documents but those at these places."""
        kept, others = np.ones(len(self), dtype=bool), copy.copy(self)
        kept[places] = False
        others._shard, others._start, others.lengths = self._shard[kept], self._start[kept], self.lengths[kept]
        return others


@dataclass(frozen=True)
class PreparedCorpus:
    """A prepared folder, opened.

    Attributes:
        documents: Token ids of each document that is learnt, mapped.
        held_out: Texts held out for evaluation.
        sha256: Of everything that is learnt or held out, whatever files it came from.
    """

    manifest: dict[str, Any]
    documents: MappedDocuments
    held_out: tuple[str, ...]
    sha256: str

    def packed(self, pack_tokens: int) -> PackedCorpus:
        """Its packs, for `BatchStream`; the same for the same corpus and length."""
        return PackedCorpus(self.documents, pack_index(self.documents.lengths, pack_tokens), pack_tokens)


def is_prepared(path: Path) -> bool:
    """Whether a folder is one that `stilnovo prepare` has finished."""
    return kind_of(path) is PREPARED


def open_prepared(folder: Path, fingerprint: str | None = None) -> PreparedCorpus:
    """Open a prepared folder; every byte is read once and compared with the checksums.

    Args:
        folder: What `stilnovo prepare` wrote.
        fingerprint: `Tokenizer.fingerprint()` of the model that will read it; None leaves it unchecked.

    Raises:
        InputError: when it is unfinished, was prepared for another tokeniser, or a file was cut short or changed: by name.
    """
    manifest = read_manifest(folder)
    made_for = manifest["tokenizer"]
    if fingerprint is not None and made_for["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder} was prepared for another tokeniser.", f"It was made with {made_for['name']}.",
            "Prepare the corpus again with --model of the model that you train.",
        )  # fmt: skip
    advice = f"Delete the folder and prepare again: stilnovo prepare {' '.join(manifest['settings']['sources'])} …"[
        :200
    ]
    shards = [Shard(**entry) for entry in manifest["shards"]]
    files = chain(*(shard.files() for shard in shards), manifest["files"])
    checks = [(folder / name, size, sha) for name, size, sha in files]
    for path, size, _ in checks:
        if not path.is_file():
            raise InputError(f"{path} is missing.", next=advice)
        if (actual := path.stat().st_size) != size:
            raise InputError(
                f"{path} has {actual:,} bytes instead of {size:,}.", "It was cut short or changed.", advice
            )
    with ThreadPoolExecutor(4) as pool:
        for (path, _, expected), sha in zip(checks, pool.map(lambda c: sha256_file(c[0]), checks), strict=True):
            if sha != expected:
                raise InputError(f"{path} was changed on disk.", f"sha256 {sha[:12]}, was {expected[:12]}.", advice)
    held_out = tuple(row["text"] for row in read_rows(folder / HELD_OUT)) if (folder / HELD_OUT).stat().st_size else ()
    plain = manifest.get("conversations") == 0
    documents = MappedDocuments(folder / "shards", shards, np.load(folder / "dropped.npy"), plain=plain)
    return PreparedCorpus(manifest, documents, held_out, manifest["sha256"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if kind_of(folder) is UNFINISHED:
            raise InputError(f"The preparation of {folder} is not finished.", next=UNFINISHED.advice)
        raise InputError(f"{folder} is no prepared corpus.", next="Run: stilnovo prepare")
    with reported(
        f"{path} is damaged.", "Delete the folder and prepare again.", errors=(ValueError, KeyError, TypeError)
    ):
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise InputError(
                f"{path} has format {manifest['format']}.", f"This version reads {FORMAT}.", "Prepare again."
            )
    return manifest


def write_manifest(folder: Path, shards: Sequence[Shard], dropped: LongArray, **entries: Any) -> None:
    """Write the manifest, last of all: its presence says that everything else is whole."""
    listed = [(name, (folder / name).stat().st_size, sha256_file(folder / name)) for name in FILES]
    documents = MappedDocuments(folder / "shards", shards, dropped)
    manifest = {
        "format": FORMAT, "sha256": documents_sha256(documents, sha256_file(folder / HELD_OUT)), **entries,
        "documents": len(documents), "tokens": int(documents.lengths.sum()), "files": listed,
        "shards": [asdict(shard) for shard in shards],
    }  # fmt: skip
    write_atomic(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
