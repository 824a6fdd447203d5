"""Batches of packs, in an order that depends on the seed and the epoch alone; the position can be saved and restored.

A batch is one flat stream: its packs' pieces one after another. Nothing is padded, so a batch's length varies a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from stilnovo.data.packing import LongArray, PackedCorpus


@dataclass(frozen=True)
class Batch:
    """One stream: tokens and targets (T,) int64, and the lengths of its pieces.

    `learnt` (T,) bool says which targets count, None when all do; `anchored` names the pieces that are rehearsal.
    """

    tokens: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    learnt: Tensor | None = None
    anchored: tuple[int, ...] = ()

    @property
    def predictions(self) -> int:
        """Number of loss tokens."""
        return self.targets.numel() if self.learnt is None else int(self.learnt.sum())


class BatchStream:
    """Endless batches over a packed corpus.

    Attributes:
        epoch, index: Where the next batch begins; restoring them restores the stream exactly.
    """

    def __init__(self, corpus: PackedCorpus, batch_packs: int, seed: int) -> None:
        self.corpus, self.batch_packs, self.seed = corpus, batch_packs, seed
        self.epoch = self.index = 0

    def batches_per_epoch(self) -> int:
        """Batches in one pass; the last may be short."""
        return -(-len(self.corpus.packs) // self.batch_packs)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            order = _epoch_order(len(self.corpus.packs), self.seed, self.epoch)
            chosen = order[self.index * self.batch_packs : (self.index + 1) * self.batch_packs]
            self.index += 1
            if self.index == self.batches_per_epoch():
                self.epoch, self.index = self.epoch + 1, 0
            yield self._batch(chosen.tolist())

    def _batch(self, packs: list[int]) -> Batch:
        pieces = self.corpus.packs.pieces(packs)
        parts = [self.corpus.documents[at][start : start + length + 1] for at, start, length in pieces]
        tokens, targets = (
            np.concatenate([part[cut] for part in parts]).astype(np.int64) for cut in (np.s_[:-1], np.s_[1:])
        )
        learnt, first = targets >= 0, self.corpus.anchored
        return Batch(
            torch.from_numpy(np.where(tokens < 0, ~tokens, tokens)),
            torch.from_numpy(np.where(learnt, targets, ~targets)),
            tuple(length for _, _, length in pieces),
            None if learnt.all() else torch.from_numpy(learnt),
            tuple(n for n, (document, _, _) in enumerate(pieces) if first is not None and document >= first),
        )

    def state(self) -> dict[str, int]:
        """The position, as plain data for a checkpoint."""
        return {"epoch": self.epoch, "index": self.index}

    def restore(self, state: dict[str, int]) -> None:
        """Restore a saved position."""
        self.epoch, self.index = state["epoch"], state["index"]


@lru_cache(4)  # shuffling a million packs takes longer than reading a batch: once an epoch is enough
def _epoch_order(packs: int, seed: int, epoch: int) -> LongArray:
    return np.random.default_rng((seed, epoch)).permutation(packs)
