"""A training objective as somebody else would add it, in one file: texts are learnt from back to front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.plan.speed import ObjectiveCost
from stilnovo.train import corpus
from stilnovo.train.objectives.base import Objective
from stilnovo.train.objectives.text import NextToken

if TYPE_CHECKING:
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.passes import Passes


class ReversedObjective(Objective):
    """Next-token prediction on reversed texts, of which half the tokens are learnt."""

    def _packed(self, texts: list[str], tokenizer: Tokenizer) -> PackedCorpus:
        documents = [np.array(tokenizer.document(text)[::-1], dtype=np.int32) for text in texts]
        for document in documents:
            document[::2] = ~document[::2]
        return pack(documents, self.recipe.data.pack_tokens)

    def read(self, tokenizer: Tokenizer) -> corpus.Corpus:
        rows, digest = corpus.read_texts(self.recipe.data.paths, None, self.recipe.model.name)
        learnt, held_out = corpus.split(rows, self.recipe.data.held_out, self.recipe.train.seed)
        return corpus.Corpus(self._packed([row.text for row in learnt], tokenizer), tuple(held_out), digest)

    def loss(self) -> NextToken:
        return NextToken()

    def cost(self, learnt: float = 1.0) -> ObjectiveCost:
        return ObjectiveCost(learnt=0.5)

    def pack_held_out(self, rows: Sequence[Any], tokenizer: Tokenizer, longest: int) -> PackedCorpus:
        return self._packed([row.text for row in rows], tokenizer)

    def held_out_row(self, row: Any) -> dict[str, Any]:
        return {"text": row.text}

    def evaluate(
        self, passes: Passes, rows: corpus.HeldOutRows, tokenizer: Tokenizer
    ) -> tuple[dict[str, float], str] | None:
        from stilnovo.train.passes import figures_of

        packed = self.pack_held_out(rows, tokenizer, passes.model.config.max_positions)
        figures = figures_of(passes, self.loss(), packed, self.recipe.train)
        return figures, f"{len(rows)} texts from back to front: loss {figures['loss']:.3f}"
