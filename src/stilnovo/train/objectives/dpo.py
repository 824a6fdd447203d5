"""The objective `dpo`: preference pairs, of which the preferred answer becomes more likely (`stilnovo.train.preference`)."""

from __future__ import annotations

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
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.passes import Passes
    from stilnovo.train.preference import DirectPreference


class PreferenceObjective(Objective):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    def read(self, tokenizer: Tokenizer) -> corpus.Corpus:
        """See `Objective.read`."""
        data = self.recipe.data
        if any(is_prepared(Path(path)) for path in data.paths):
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
        from stilnovo.train.preference import DirectPreference

        return DirectPreference(self.recipe.train.beta)

    def cost(self, learnt: float = 1.0) -> ObjectiveCost:
        """See `Objective.cost`; the base reads every pair too."""
        return ObjectiveCost(learnt=learnt, base=1.0, compared=learnt)

    def document_tokens(self, tokens: int) -> int | None:
        """See `Objective.document_tokens`: a side has half a pack."""
        return min(tokens, self.recipe.data.pack_tokens // 2)

    def held_out_row(self, row: Any) -> dict[str, Any]:
        """See `Objective.held_out_row`."""
        chosen, rejected = (corpus.turns(Message("assistant", answer)) for answer in (row.chosen, row.rejected))
        return {"prompt": corpus.turns(*row.prompt), "chosen": chosen, "rejected": rejected}

    def evaluate(
        self, passes: Passes, rows: corpus.HeldOutRows, tokenizer: Tokenizer
    ) -> tuple[dict[str, float], str] | None:
        """Means over the held-out pairs; the base's margin is 0 by definition, its loss log 2."""
        from stilnovo.train.held_out import figures_of

        packed = pack_pairs(rows, tokenizer, self.recipe.data.pack_tokens)
        corpus.warn(packed.lines(), "held-out: ")
        figures = figures_of(passes, self.loss(), packed.corpus, self.recipe.train)
        means = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "n")
        return (figures, f"{figures['n']:,} pairs: {means}") if figures["n"] else None
