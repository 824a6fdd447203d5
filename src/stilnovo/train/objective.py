"""What is made small: a batch becomes one sum of losses, through passes that know the model's own way of running.

`NextToken` is the objective of texts and conversations; with rehearsal it also holds the model near the base, by
KL(base ‖ model) on the rehearsal tokens. Preference pairs have their own (`preference.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stilnovo.data.batches import Batch
from stilnovo.recipe import TrainSection
from stilnovo.train.passes import Objective, Parts, Passes
from stilnovo.train.preference import DirectPreference


@dataclass(frozen=True)
class NextToken:
    """Σ −log p over what counts, and `weight` · Σ KL(base ‖ model) over rehearsal when it is an anchor."""

    rehearse_by: Literal["learn", "anchor", "both"] = "learn"
    weight: float = 1.0

    def __call__(self, passes: Passes, batch: Batch) -> tuple[Tensor, Parts]:
        """See `Objective`; `parts["kl"]` is there when the batch holds an anchor."""
        hidden = passes.hidden(batch.tokens, batch.lengths)
        wanted = self._learnt(batch)
        if wanted is None:
            loss, count = passes.cross_entropy(hidden, batch.targets), batch.targets.numel()
        else:
            rows = wanted.nonzero()[:, 0]
            loss = passes.cross_entropy(hidden[rows.to(hidden.device)], batch.targets[rows])
            count = len(rows)
        parts: Parts = {"loss": (loss.item(), count)}
        if self.rehearse_by == "learn" or not batch.anchored:
            return loss, parts
        rows = _anchored(batch).nonzero()[:, 0]
        with passes.base():
            teacher = passes.hidden(batch.tokens[rows], [batch.lengths[piece] for piece in batch.anchored])
        divergence = passes.divergence(hidden[rows.to(hidden.device)], teacher)
        parts["kl"] = divergence.item(), len(rows)
        return loss + self.weight * divergence, parts

    def count(self, batch: Batch) -> int:
        """Targets that are learnt."""
        wanted = self._learnt(batch)
        return batch.targets.numel() if wanted is None else int(wanted.sum())

    def _learnt(self, batch: Batch) -> Tensor | None:
        """(T,) bool: the targets whose −log p counts; None: all."""
        if self.rehearse_by != "anchor" or not batch.anchored:
            return batch.learnt
        others = ~_anchored(batch)
        return others if batch.learnt is None else batch.learnt & others


def _anchored(batch: Batch) -> Tensor:
    """(T,) bool: the rows of the pieces that are rehearsal."""
    rehearsal = set(batch.anchored)
    marks = [torch.full((length,), piece in rehearsal) for piece, length in enumerate(batch.lengths)]
    return torch.cat(marks)


def objective_of(recipe: TrainSection) -> Objective:
    """What a recipe makes small."""
    if recipe.task == "dpo":
        return DirectPreference(recipe.beta)
    return NextToken(recipe.rehearse_by, recipe.kl_weight)
