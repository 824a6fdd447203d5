"""Forward passes for the losses: by the training engine or by torch's autograd, with or without the adapter."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.packing import PackedCorpus
from stilnovo.engine.link import Link
from stilnovo.engine.loss import Head, chunked_losses, tiled_divergence, tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, evaluating
from stilnovo.progress import Progress
from stilnovo.recipe_sections import TrainSection

#: Sums by name, each with what it is divided by for the metrics.
Parts = dict[str, tuple[float, int]]


def added(sums: Parts, parts: Parts) -> Parts:
    """Add two tallies."""
    names = dict.fromkeys((*sums, *parts))
    both = {name: (sums.get(name, (0.0, 0)), parts.get(name, (0.0, 0))) for name in names}
    return {name: (first[0] + second[0], first[1] + second[1]) for name, (first, second) in both.items()}


def means(sums: Parts) -> dict[str, float]:
    """Mean values of a tally, for the metrics."""
    return {name: total / max(1, count) for name, (total, count) in sums.items()}


class Passes:
    """Forward passes of a model: by the engine where there is one, else by torch's autograd, which the engine equals.

    Args:
        model: With its adapter.
        engine: None for the plain path.
        chunk: Rows of logits that exist at once.
    """

    def __init__(self, model: Llama, engine: TrainingEngine | None, chunk: int) -> None:
        self.model, self.engine, self.chunk = model, engine, chunk
        self.head = engine.head if engine else Head(model.head, "dense", None, Link(model.device), model.dtype)

    def hidden(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Compute final hidden states (T, C), differentiable, from token ids (T,) of documents of these lengths."""
        tokens = tokens.to(self.model.device)
        if self.engine is not None:
            return self.engine.hidden(tokens, lengths)
        positions = positions_of(lengths, self.model.device)
        return self.model.hidden(tokens, positions, Blocks(lengths))

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy −log p of each of the rows (T, C) in nats, (T,)."""
        targets = targets.to(hidden.device)
        if self.engine is None and self.model.head.dtype == hidden.dtype:
            return chunked_losses(hidden, self.model.head, targets, self.chunk)
        return tiled_losses(hidden, self.head, targets, self.chunk)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Summed KL(teacher ‖ student) in nats; half the rows at once, since each has two rows of logits."""
        return tiled_divergence(student, teacher, self.head, max(1, self.chunk // 2))

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Context manager: the model with its adapter disabled, and without gradients."""
        with lora.disabled(self.model), torch.no_grad(), evaluating(self.model):
            yield


class BatchLoss(Protocol):
    """Interface of a loss: maps a batch to the sum of its losses, and the parts for the metrics.

    `parts["loss"]` is always there, with `count`, which the step's gradient is divided by.
    """

    def __call__(self, passes: Passes, batch: Batch) -> tuple[Tensor, Parts]:
        """The sum, differentiable, and the parts."""

    def count(self, batch: Batch) -> int:
        """Number of losses that a batch adds up."""


def figures_of(passes: Passes, loss: BatchLoss, corpus: PackedCorpus, settings: TrainSection) -> dict[str, float]:
    """Mean metrics of the loss over one pass over a corpus, and `n`, the number of losses."""
    stream = BatchStream(corpus, settings.batch_packs, settings.seed)
    count = stream.batches_per_epoch()
    sums: Parts = {"loss": (0.0, 0)}
    with torch.no_grad(), evaluating(passes.model), Progress("held-out", count) as progress:
        for done, batch in enumerate(itertools.islice(stream, count), 1):
            sums = added(sums, loss(passes, batch)[1])
            progress.update(done, f"{done:,} of {count:,} batches")
    return {"n": sums["loss"][1], **means(sums)}
