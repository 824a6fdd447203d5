"""Documents to packs: short rows that are full, without padding, and without losing or mixing a token.

A document of n tokens gives n − 1 predictions. It is cut into pieces of at most `pack_tokens` inputs only when it is
longer than a pack; the last input of a piece still predicts the first token of the next, so that every token but a
document's first is predicted exactly once. Pieces are put into packs best-fit-decreasing (Johnson 1973), which never
cuts a document that fits. Attention and positions restart at every piece.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Piece:
    """Inputs `start` … `stop`-1 of a document's tokens; their targets are one further."""

    document: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Pack:
    """Pieces that share a row."""

    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True)
class PackedCorpus:
    """Tokenised documents and their packs."""

    documents: tuple[IntArray, ...]
    packs: tuple[Pack, ...]
    pack_tokens: int

    @property
    def tokens(self) -> int:
        """Predictions in one pass over the corpus."""
        return sum(len(pack) for pack in self.packs)


def pack(documents: Sequence[Sequence[int]], pack_tokens: int) -> PackedCorpus:
    """Pack tokenised documents (each with its end-of-text) into rows of at most `pack_tokens`."""
    arrays = tuple(np.asarray(document, dtype=np.int32) for document in documents)
    pieces = [
        Piece(index, start, min(start + pack_tokens, len(tokens) - 1))
        for index, tokens in enumerate(arrays)
        for start in range(0, len(tokens) - 1, pack_tokens)
    ]
    pieces.sort(key=len, reverse=True)  # stable: equal lengths keep the corpus order
    rows: list[list[Piece]] = []
    space: list[tuple[int, int]] = []  # (room left, row), sorted, so that bisect finds the tightest fit
    for piece in pieces:
        at = bisect.bisect_left(space, (len(piece), -1))
        if at == len(space):
            rows.append([piece])
            room, row = pack_tokens - len(piece), len(rows) - 1
        else:
            room, row = space.pop(at)
            rows[row].append(piece)
            room -= len(piece)
        if room:
            bisect.insort(space, (room, row))
    return PackedCorpus(arrays, tuple(Pack(tuple(row)) for row in rows), pack_tokens)
