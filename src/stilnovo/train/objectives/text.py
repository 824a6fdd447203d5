"""The objective `text`: next-token prediction on every token of plain texts, with or without rehearsal.

Rehearsal conversations are repeated, in an order drawn by seed, until they make up their share of all tokens; they come
after the others in the list of documents, so that a batch knows them by their number. Their loss is cross-entropy, or
KL(base ‖ model), which holds the model near the base, or both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stilnovo.data.conversations import read_conversations
from stilnovo.data.packing import IntArray
from stilnovo.data.sources import training_text
from stilnovo.errors import InputError
from stilnovo.plan.speed import ObjectiveCost
from stilnovo.train import corpus
from stilnovo.train.objectives.base import Objective
from stilnovo.train.prepared import OpenedTogether, open_together, prepared_folders

if TYPE_CHECKING:
    from torch import Tensor

    from stilnovo.data.batches import Batch
    from stilnovo.data.packing import PackedCorpus
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.passes import Parts, Passes


class TextObjective(Objective):
    """Language modelling on texts or on prepared corpora; some texts may become reading-comprehension conversations."""

    answers_only = False

    def documents(self, tokenizer: Tokenizer) -> tuple[list[IntArray], corpus.HeldOutRows, str]:
        """Read the training documents, the held-out rows, and the digest of everything read."""
        from stilnovo.data.comprehension import comprehension
        from stilnovo.text.encoder import Encoder

        data, seed = self.recipe.data, self.recipe.train.seed
        rows, digest = corpus.read_texts(data.paths, data.max_documents, self.recipe.model.name)
        learnt, held_out = corpus.split(rows, data.held_out, seed)
        documents = Encoder(tokenizer).documents([training_text(row) for row in learnt])
        if data.comprehension:
            talks = comprehension(learnt, seed, data.comprehension)
            documents += corpus.supervised_all(talks, tokenizer, data.pack_tokens, "comprehension conversations")
        return documents, tuple(held_out), digest

    def read(self, tokenizer: Tokenizer) -> corpus.Corpus:
        """See `Objective.read`; prepared folders are opened as they are."""
        data = self.recipe.data
        if data.rehearsal or data.comprehension or self.answers_only:
            corpus.warn_of_template(tokenizer)
        folders, prepared = prepared_folders(data.paths, self.recipe.model.name), tuple[str, ...]()
        if data.rehearsal:  # few beside the documents: a fault in them is told first
            conversations, rehearsal_digest = corpus.read_chats(read_conversations, data.rehearsal, None)
        documents: Sequence[IntArray]
        if folders:
            documents, held_out, digest, prepared, _ = self._prepared(folders, tokenizer)
        else:
            documents, held_out, digest = self.documents(tokenizer)
        anchored = None
        if data.rehearsal:
            wanted = round(data.rehearsal_share / (1 - data.rehearsal_share) * int(corpus.lengths_of(documents).sum()))
            talks = corpus.supervised_all(conversations, tokenizer, data.pack_tokens, "rehearsal conversations")
            if not talks:
                raise InputError(
                    "No rehearsal conversation fits a pack.", f"data.pack_tokens is {data.pack_tokens:,}.",
                    "Raise it: --set data.pack_tokens=N.",
                )  # fmt: skip
            rehearsal = corpus.repeated(talks, wanted, self.recipe.train.seed)
            anchored, documents = len(documents), corpus.Joined(documents, rehearsal)
            digest = hashlib.sha256(f"{digest}{rehearsal_digest}".encode()).hexdigest()
        return corpus.Corpus(corpus.packed(documents, data, anchored), held_out, digest, prepared=prepared)

    def _prepared(self, folders: Sequence[Path], tokenizer: Tokenizer) -> OpenedTogether:
        if self.recipe.data.comprehension:
            raise InputError(
                "data.comprehension has no effect on a prepared corpus.",
                f"{', '.join(map(str, folders))}: tokens, not texts.",
                "Leave it out, or give the texts themselves with --data.",
            )
        return open_together(folders, tokenizer, self.recipe.data)

    def loss(self) -> NextToken:
        """See `Objective.loss`."""
        return NextToken(self.recipe.train.rehearse_by, self.recipe.train.kl_weight)

    def cost(self, learnt: float = 1.0) -> ObjectiveCost:
        """See `Objective.cost`."""
        data, rehearse_by = self.recipe.data, self.recipe.train.rehearse_by
        rehearsal = data.rehearsal_share if data.rehearsal else 0.0
        own = (1 - rehearsal) * (learnt if self.answers_only else 1.0)
        if rehearse_by == "learn":
            return ObjectiveCost(learnt=own + rehearsal * learnt)
        answers = rehearsal * learnt if rehearse_by == "both" else 0.0
        return ObjectiveCost(learnt=own + answers, base=rehearsal, anchored=rehearsal)

    def pack_held_out(self, rows: Sequence[Any], tokenizer: Tokenizer, longest: int) -> PackedCorpus:
        """See `Objective.pack_held_out`."""
        data = self.recipe.data
        data = data.model_copy(update={"pack_tokens": min(data.pack_tokens, longest)})
        return corpus.packed(self.held_out_documents(rows, tokenizer, data.pack_tokens), data)

    def held_out_documents(self, rows: Sequence[Any], tokenizer: Tokenizer, pack_tokens: int) -> list[IntArray]:
        """Tokenise held-out rows as documents of packs of so many tokens."""
        from stilnovo.text.encoder import Encoder

        return Encoder(tokenizer).documents([training_text(row) for row in rows])

    def held_out_row(self, row: Any) -> dict[str, Any]:
        """See `Objective.held_out_row`."""
        return {"id": row.id, "text": training_text(row)}


@dataclass(frozen=True)
class NextToken:
    """Next-token loss: Σ −log p over loss tokens, plus `weight` · Σ KL(base ‖ model) over rehearsal tokens used as anchor."""

    rehearse_by: Literal["learn", "anchor", "both"] = "learn"
    weight: float = 1.0

    def __call__(self, passes: Passes, batch: Batch) -> tuple[Tensor, Parts]:
        """See `stilnovo.train.passes.BatchLoss`; `parts["kl"]` is there when the batch holds an anchor."""
        hidden = passes.hidden(batch.tokens, batch.lengths)
        learnt, student, targets = self._learnt(batch), hidden, batch.targets
        if learnt is not None:
            student, targets = hidden[learnt.to(hidden.device)], targets[learnt]
        loss = passes.losses(student, targets).sum()
        parts: Parts = {"loss": (loss.item(), len(targets))}
        if self.rehearse_by == "learn" or not batch.anchored:
            return loss, parts
        rows = _anchored(batch).nonzero()[:, 0]
        with passes.base():
            teacher = passes.hidden(batch.tokens[rows], [batch.lengths[piece] for piece in batch.anchored])
        divergence = passes.divergence(hidden[rows.to(hidden.device)], teacher)
        parts["kl"] = divergence.item(), len(rows)
        return loss + self.weight * divergence, parts

    def count(self, batch: Batch) -> int:
        """Number of loss tokens in a batch."""
        learnt = self._learnt(batch)
        return batch.targets.numel() if learnt is None else int(learnt.sum())

    def _learnt(self, batch: Batch) -> Tensor | None:
        """Loss mask (T,) bool of the targets; None for all."""
        if self.rehearse_by != "anchor" or not batch.anchored:
            return batch.learnt
        others = ~_anchored(batch)
        return others if batch.learnt is None else batch.learnt & others


def _anchored(batch: Batch) -> Tensor:
    """Mask (T,) bool of the rehearsal tokens."""
    import torch

    return torch.cat([torch.full((length,), piece in batch.anchored) for piece, length in enumerate(batch.lengths)])
