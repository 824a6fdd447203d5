"""The objective `dpo`: preference pairs; the chosen answer becomes more likely (Rafailov et al. 2023, eq. 7).

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.data.conversations import read_preferences
from stilnovo.data.pairs import pack_pairs
from stilnovo.data.shards import is_prepared
from stilnovo.errors import InputError
from stilnovo.plan.speed import ObjectiveCost
from stilnovo.text.template import Message
from stilnovo.train import corpus
from stilnovo.train.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from stilnovo.data.batches import Batch
    from stilnovo.data.packing import PackedCorpus
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.passes import Parts, Passes


class PreferenceObjective(Objective):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    def read(self, tokenizer: Tokenizer) -> corpus.Corpus:
        """See `Objective.read`."""
        data = self.recipe.data
        if any(is_prepared(Path(path).expanduser()) for path in data.paths):
            raise InputError(
                "DPO learns from preference pairs.",
                f"{', '.join(data.paths)}: a prepared corpus.",
                "Give files of pairs.",
            )
        corpus.warn_of_template(tokenizer)
        pairs, digest = corpus.read_chats(read_preferences, data.paths, data.max_documents)
        learnt, held_out = corpus.split_distinct(pairs, data.held_out, self.recipe.train.seed)
        packed = pack_pairs(learnt, tokenizer, data.pack_tokens)
        corpus.warn(packed.lines())
        if not packed.tally.taken:
            raise InputError(
                "No pair can be learnt from.", packed.tally.lines()[0],
                f"Raise data.pack_tokens; a side has at most half of it, {packed.longest:,} tokens.",
            )  # fmt: skip
        return corpus.Corpus(packed.corpus, tuple(held_out), digest)

    def loss(self) -> DirectPreference:
        """See `Objective.loss`."""
        return DirectPreference(self.recipe.train.beta)

    def cost(self, learnt: float = 1.0) -> ObjectiveCost:
        """See `Objective.cost`; the base reads every pair too."""
        return ObjectiveCost(learnt=learnt, base=1.0, compared=learnt)

    def document_tokens(self, tokens: int) -> int | None:
        """See `Objective.document_tokens`: a side has half a pack."""
        return min(tokens, self.recipe.data.pack_tokens // 2)

    def pack_held_out(self, rows: Sequence[Any], tokenizer: Tokenizer, longest: int) -> PackedCorpus:
        """See `Objective.pack_held_out`."""
        room = min(self.recipe.data.pack_tokens, 2 * longest)  # a side has half of it
        packed = pack_pairs(rows, tokenizer, room)
        corpus.warn(packed.lines(), "held-out: ")
        return packed.corpus

    def held_out_row(self, row: Any) -> dict[str, Any]:
        """See `Objective.held_out_row`."""
        chosen, rejected = (corpus.turns(Message("assistant", answer)) for answer in (row.chosen, row.rejected))
        return {"prompt": corpus.turns(*row.prompt), "chosen": chosen, "rejected": rejected}

    def evaluate(
        self, passes: Passes, rows: corpus.HeldOutRows, tokenizer: Tokenizer
    ) -> tuple[dict[str, float], str] | None:
        """Mean loss and margin over the held-out pairs; the base's margin is 0 by definition, its loss log 2."""
        from stilnovo.train.passes import figures_of

        packed = self.pack_held_out(rows, tokenizer, passes.model.config.max_positions)
        figures = figures_of(passes, self.loss(), packed, self.recipe.train)
        means = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "n")
        return (figures, f"{figures['n']:,} pairs: {means}") if figures["n"] else None


def answers(batch: Batch) -> tuple[Tensor, list[int]]:
    """Indices (R,) of a batch's loss tokens, and their number in each piece."""
    import torch

    learnt = torch.ones_like(batch.targets, dtype=torch.bool) if batch.learnt is None else batch.learnt
    return learnt.nonzero()[:, 0], [int(piece.sum()) for piece in torch.split(learnt, list(batch.lengths))]


def log_ratios(policy: Tensor, reference: Tensor, counts: Sequence[int]) -> Tensor:
    """Log-ratio log π(y) − log π_ref(y) of every answer, (P, 2) with chosen first.

    Args:
        policy: (R,) −log π of the learnt tokens, answer after answer.
        reference: (R,) −log π_ref of the same.
        counts: Learnt tokens of each answer: chosen, rejected, chosen, rejected …
    """
    import torch

    # Not index_add: its order of addition on a card differs from run to run, and a resumed run would not repeat.
    return torch.stack([part.sum() for part in torch.split(reference - policy, list(counts))]).view(-1, 2)


def dpo(ratios: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """DPO loss: log-ratios (P, 2) → losses −log σ(r_chosen − r_rejected) (P,), and rewards r = β · log-ratio (P, 2)."""
    from torch.nn.functional import logsigmoid

    rewards = beta * ratios
    return -logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


@dataclass(frozen=True)
class DirectPreference:
    """DPO loss of a batch: Σ over pairs of −log σ(β [log-ratio of chosen − log-ratio of rejected]).

    Beside the loss it reports, as means over pairs, `margin` (reward of chosen − of rejected) and `accuracy` (whether
    chosen has the higher reward).
    """

    beta: float

    def count(self, batch: Batch) -> int:
        """Number of pairs in a batch."""
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
