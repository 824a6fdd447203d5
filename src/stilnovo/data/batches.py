"""Batches of packs, in an order that depends on the seed and the epoch alone; the position can be saved and restored.

A batch is one flat stream: its packs' pieces one after another. Nothing is padded, so a batch's length varies a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stilnovo.data.packing import PackedCorpus


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
        """Targets that count."""
        return self.targets.numel() if self.learnt is None else int(self.learnt.sum())


class BatchStream:
    """Endless batches over a packed corpus.

    Attributes:
        epoch, index: Where the next batch begins; restoring them restores the stream exactly.
    """

    def __init__(self, corpus: PackedCorpus, batch_packs: int, seed: int) -> None:
        self.corpus, self.batch_packs, self.seed = corpus, batch_packs, seed
        self.epoch = self.index = 0
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    def batches_per_epoch(self) -> int:
        """Batches in one pass; the last may be short."""
        return -(-len(self.corpus.packs) // self.batch_packs)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            chosen = self._epoch_order()[self.index * self.batch_packs : (self.index + 1) * self.batch_packs]
            self.index += 1
            if self.index == self.batches_per_epoch():
                self.epoch, self.index = self.epoch + 1, 0
            yield self._batch(chosen.tolist())

    def _epoch_order(self) -> npt.NDArray[np.int64]:
        # Shuffling a million packs takes longer than reading a batch: once an epoch is enough.
        if self._order is None or self._order[0] != self.epoch:
            self._order = (
                self.epoch,
                np.random.default_rng((self.seed, self.epoch)).permutation(len(self.corpus.packs)),
            )
        return self._order[1]

    def _batch(self, packs: list[int]) -> Batch:
        pieces = [piece for index in packs for piece in self.corpus.packs[index].pieces]
        inputs = [self.corpus.documents[p.document][p.start : p.stop] for p in pieces]
        following = [self.corpus.documents[p.document][p.start + 1 : p.stop + 1] for p in pieces]
        tokens, targets = np.concatenate(inputs).astype(np.int64), np.concatenate(following).astype(np.int64)
        learnt, first = targets >= 0, self.corpus.anchored
        return Batch(
            torch.from_numpy(np.where(tokens < 0, ~tokens, tokens)),
            torch.from_numpy(np.where(learnt, targets, ~targets)),
            tuple(len(piece) for piece in pieces),
            None if learnt.all() else torch.from_numpy(learnt),
            tuple(n for n, piece in enumerate(pieces) if first is not None and piece.document >= first),
        )

    def state(self) -> dict[str, int]:
        """The position, as plain data."""
        return {"epoch": self.epoch, "index": self.index}

    def restore(self, state: dict[str, int]) -> None:
        """Put the position back."""
        self.epoch, self.index = state["epoch"], state["index"]
