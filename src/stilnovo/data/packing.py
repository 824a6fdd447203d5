"""Sequence packing without padding: every token is learnt once, and documents do not see one another.

A document of n tokens gives n − 1 predictions. It is cut into pieces of at most `pack_tokens` inputs only when it is
longer than a pack; the last input of a piece still predicts the first token of the next, so that every token but a
document's first is predicted exactly once. Pieces are put into packs best-fit-decreasing (Johnson 1973), which never
cuts a document that fits. Attention and positions restart at every piece.

The index holds 16 bytes a piece and 8 a pack, whatever the documents hold: those may lie in memory or be mapped from
shards (`stilnovo.data.shards`). A token that is read but is no loss token (a question, in a conversation) is stored as its
complement, −1 − id.
"""

from __future__ import annotations

import hashlib
import heapq
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence whose items are made when they are asked for."""

    @abstractmethod
    def item(self, at: int) -> T:
        """The item at an index from 0."""

    def __getitem__(self, at: Any) -> Any:
        places = range(len(self))[at]  # negative places, and an IndexError beyond the end
        return self.item(places) if isinstance(places, int) else [self.item(place) for place in places]


class PackIndex:
    """All packs as four arrays.

    Attributes:
        document, start, length: (pieces,) of each piece, in the order of the packs: so many inputs of a document from
            `start` on, whose targets are one further.
        offsets: (packs + 1,) where each pack's pieces begin.
    """

    def __init__(self, document: IntArray, start: LongArray, length: IntArray, offsets: LongArray) -> None:
        self.document, self.start, self.length, self.offsets = document, start, length, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def pieces(self, packs: Iterable[int]) -> list[tuple[int, int, int]]:
        """Document, start and length of each piece of some packs, one pack after another."""
        places = np.concatenate([np.arange(self.offsets[pack], self.offsets[pack + 1]) for pack in packs])
        return list(zip(*(of[places].tolist() for of in (self.document, self.start, self.length)), strict=True))


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents, as in `PackIndex`, in the order of the documents.

    Attributes:
        split: Conversations that were cut at their turns.
        shortened: Questions that lost their beginning.
        idle: Pieces without a loss token, which are left out.
    """

    document: IntArray
    start: LongArray
    length: IntArray
    split: int = 0
    shortened: int = 0
    idle: int = 0

    def packed(self, pack_tokens: int) -> PackIndex:
        """Their packs, best-fit."""
        order, offsets = best_fit_order(self.length, pack_tokens)
        return PackIndex(self.document[order], self.start[order], self.length[order], offsets)

    def rows(self) -> PackIndex:
        """A pack for each."""
        return PackIndex(self.document, self.start, self.length, np.arange(len(self.document) + 1, dtype=np.int64))

    def lines(self, pack_tokens: int) -> list[str]:
        """Summary lines for the user."""
        lines = {
            "conversations longer than {0:,} tokens were cut at their turns; their system turn stays with the first piece": self.split,
            "questions lost their beginning: with the answer they are longer than {0:,} tokens (data.pack_tokens)": self.shortened,
            "pieces of conversations without any loss token were left out": self.idle,
        }  # fmt: skip
        return [f"{count:,} {line.format(pack_tokens)}" for line, count in lines.items() if count]


@dataclass(frozen=True)
class PackedCorpus:
    """Tokenised documents and their packs; those from `anchored` on are rehearsal, not what is to be learnt."""

    documents: Sequence[IntArray]
    packs: PackIndex
    pack_tokens: int
    anchored: int | None = None

    @property
    def tokens(self) -> int:
        """Predictions in one pass over the corpus."""
        return int(self.packs.length.sum(dtype=np.int64))


def documents_sha256(documents: Iterable[IntArray], *others: str) -> str:
    """Hex sha256 of coded documents: their tokens, which of them are learnt, boundaries and order; and of other texts."""
    digest = hashlib.sha256(repr(others).encode())
    for document in documents:
        digest.update(len(document).to_bytes(8, "little"))
        digest.update(document.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()


def coded(ids: Sequence[int], learnt: Sequence[bool]) -> IntArray:
    """Encode token ids with their loss mask: ids without loss become −1 − id; `stilnovo.data.batches` decodes them."""
    array = np.asarray(ids, dtype=np.int32)
    return np.where(np.asarray(learnt, dtype=bool), array, ~array)


def pack(documents: Iterable[Sequence[int] | IntArray], pack_tokens: int) -> PackedCorpus:
    """Pack tokenised documents (each with its end-of-text) into rows of at most `pack_tokens`."""
    arrays = tuple(np.asarray(document, dtype=np.int32) for document in documents)
    return PackedCorpus(
        arrays, pack_index(np.array([len(a) for a in arrays], dtype=np.int64), pack_tokens), pack_tokens
    )


def pack_index(lengths: LongArray, pack_tokens: int) -> PackIndex:
    """The packs of documents of these lengths (n,) in tokens."""
    return cut(lengths, pack_tokens).packed(pack_tokens)


def cut(lengths: LongArray, pack_tokens: int) -> Pieces:
    """Cut documents of these lengths (n,) in tokens wherever a piece is full; a document of fewer than two gives nothing."""
    inputs = np.maximum(lengths - 1, 0)
    counts = -(-inputs // pack_tokens)  # pieces of each document
    document = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    within = np.arange(len(document), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    start = within * pack_tokens
    return Pieces(document, start, np.minimum(inputs[document] - start, pack_tokens).astype(np.int32))


def beginnings(lengths: LongArray, row_tokens: int) -> Pieces:
    """The first `row_tokens` tokens of each document; the rest is never read (TRL without packing; report §3)."""
    length = np.minimum(lengths, row_tokens) - 1
    document = np.flatnonzero(length > 0).astype(np.int32)
    return Pieces(document, np.zeros(len(document), np.int64), length[document].astype(np.int32))


def best_fit_order(lengths: IntArray, capacity: int) -> tuple[LongArray, LongArray]:
    """Pack pieces of these lengths, longest first: their indices by pack, and where each pack begins among them."""
    order = np.argsort(-lengths, kind="stable")  # equal lengths keep the corpus order
    rows = best_fit(lengths[order], capacity)
    packs = int(rows.max()) + 1 if len(rows) else 0
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=packs))]).astype(np.int64)
    return order[np.argsort(rows, kind="stable")], offsets


def best_fit(lengths: IntArray, capacity: int) -> IntArray:
    """Best-fit bin of each piece, in the order given: the fullest row that has room, the first of those, else a new one.

    Rows with the same room lie in one heap; which rooms exist is one integer, a bit a room, so that the tightest is found
    in constant time.
    """
    rows = np.empty(len(lengths), dtype=np.int32)
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = count = 0
    for at, length in enumerate(lengths.tolist()):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = heapq.heappop(by_room[room])
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row, count = capacity, count, count + 1
        rows[at] = row
        if left := room - length:
            heapq.heappush(by_room[left], row)
            rooms |= 1 << left
    return rows
