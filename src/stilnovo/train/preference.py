"""Direct preference optimisation, DPO (Rafailov et al. 2023, eq. 7): preferred answers become more likely than rejected ones.

The reference π_ref is the model itself with its adapter switched off, on the same packed batch: no second model, and no
table of log-probabilities that could go stale. Both passes meet the head in chunks (`stilnovo.engine.loss`), so what is
held beside a usual step is one number a learnt token.

Unusual: the log-ratio of an answer is summed from differences of single tokens, not taken between two sums. Those are
hundreds of nats, and in single precision their difference would lose what the first steps are about.

Shape letters: R learnt rows of a batch, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.data.batches import Batch
from stilnovo.train.passes import Parts, Passes


def answers(batch: Batch) -> tuple[Tensor, list[int]]:
    """The learnt rows (R,) of a batch of pairs, and how many each of its pieces has."""
    learnt = torch.ones_like(batch.targets, dtype=torch.bool) if batch.learnt is None else batch.learnt
    return learnt.nonzero()[:, 0], [int(piece.sum()) for piece in torch.split(learnt, list(batch.lengths))]


def log_ratios(policy: Tensor, reference: Tensor, counts: Sequence[int]) -> Tensor:
    """log π(y) − log π_ref(y) of every answer, (P, 2) with chosen first.

    Args:
        policy: (R,) −log π of the learnt tokens, answer after answer.
        reference: (R,) −log π_ref of the same.
        counts: Learnt tokens of each answer: chosen, rejected, chosen, rejected …
    """
    # Not index_add: its order of addition on a card differs from run to run, and a resumed run would not repeat.
    return torch.stack([part.sum() for part in torch.split(reference - policy, list(counts))]).view(-1, 2)


def dpo(ratios: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Log-ratios (P, 2) → losses −log σ(r_chosen − r_rejected) (P,), and rewards r = β · log-ratio (P, 2)."""
    rewards = beta * ratios
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


@dataclass(frozen=True)
class DirectPreference:
    """The loss: Σ over pairs of −log σ(β [log-ratio of chosen − log-ratio of rejected]).

    Beside the loss it reports, as means over pairs, `margin` (reward of chosen − of rejected) and `accuracy` (whether
    chosen has the higher reward).
    """

    beta: float

    def count(self, batch: Batch) -> int:
        """Pairs of a batch."""
        return len(batch.lengths) // 2

    def __call__(self, passes: Passes, batch: Batch) -> tuple[Tensor, Parts]:
        """See `stilnovo.train.passes.BatchLoss`."""
        rows, counts = answers(batch)
        with passes.base():
            reference = self._losses(passes, batch, rows)
        losses, rewards = dpo(log_ratios(self._losses(passes, batch, rows), reference, counts), self.beta)
        loss, margins, pairs = losses.sum(), rewards[:, 0] - rewards[:, 1], len(losses)
        return loss, {
            "loss": (loss.item(), pairs),
            "margin": (margins.sum().item(), pairs),
            "accuracy": (float((margins > 0).sum()), pairs),
        }

    @staticmethod
    def _losses(passes: Passes, batch: Batch, rows: Tensor) -> Tensor:
        hidden = passes.hidden(batch.tokens, batch.lengths)
        return passes.losses(hidden[rows.to(hidden.device)], batch.targets[rows])
