"""The objective `sft`: conversations, with a loss on the assistant's turns only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.data.conversations import conversation, read_items
from stilnovo.data.packing import IntArray
from stilnovo.data.sources import Document
from stilnovo.errors import InputError
from stilnovo.train import corpus
from stilnovo.train.objectives.text import NextToken, TextObjective
from stilnovo.train.prepared import OpenedTogether

if TYPE_CHECKING:
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.passes import Passes


class ConversationObjective(TextObjective):
    """Supervised fine-tuning: next-token prediction on the assistant's turns."""

    answers_only = True

    def documents(self, tokenizer: Tokenizer) -> tuple[list[IntArray], corpus.HeldOutRows, str]:
        """See `TextObjective.documents`."""
        data = self.recipe.data
        reader = partial(read_items, partial(conversation, completion_only=data.completion_only))
        conversations, digest = corpus.read_chats(reader, data.paths, data.max_documents)
        if not data.completion_only and not any(
            turn.has_loss and turn.role == "user" for talk in conversations for turn in talk.messages
        ):
            raise InputError(
                "data.completion_only has no effect on these rows.", "None of them has a prompt and a completion.",
                "Leave it out.",
            )  # fmt: skip
        learnt, held_out = corpus.split_distinct(conversations, data.held_out, self.recipe.train.seed)
        return corpus.supervised_all(learnt, tokenizer, data.pack_tokens), tuple(held_out), digest

    def _prepared(self, folders: Sequence[Path], tokenizer: Tokenizer) -> OpenedTogether:
        if not self.recipe.data.completion_only:
            raise InputError(
                "data.completion_only has no effect on a prepared corpus.",
                f"In {', '.join(map(str, folders))} only completions have a loss.",
                "Leave it out, or give the rows themselves with --data.",
            )
        opened = super()._prepared(folders, tokenizer)
        if opened.plain:
            raise InputError(
                "There are no conversations to learn from.", f"In {', '.join(map(str, folders))}: texts alone.",
                "Texts are learnt with --set train.task=text.",
            )  # fmt: skip
        return opened

    def held_out_documents(self, rows: Sequence[Any], tokenizer: Tokenizer, pack_tokens: int) -> list[IntArray]:
        """See `TextObjective.held_out_documents`; what a prepared corpus holds out are texts."""
        if any(isinstance(row, Document) for row in rows):
            return super().held_out_documents(rows, tokenizer, pack_tokens)
        return corpus.supervised_all(rows, tokenizer, pack_tokens, "held-out conversations")

    def held_out_row(self, row: Any) -> dict[str, Any]:
        """See `Objective.held_out_row`."""
        if isinstance(row, Document):
            return super().held_out_row(row)
        return {"messages": corpus.turns(*row.messages)}

    def evaluate(
        self, passes: Passes, rows: corpus.HeldOutRows, tokenizer: Tokenizer
    ) -> tuple[dict[str, float], str] | None:
        """Mean loss in nats per token of the assistant's turns, or of held-out texts, without and with the adapter."""
        from stilnovo.train.passes import figures_of

        packed = self.pack_held_out(rows, tokenizer, passes.model.config.max_positions)
        after = figures_of(passes, NextToken(), packed, self.recipe.train)
        with passes.base():
            before = figures_of(passes, NextToken(), packed, self.recipe.train)
        if not after["n"]:
            return None
        figures = {"n": len(rows), "tokens": after["n"], "loss_before": before["loss"], "loss_after": after["loss"]}
        losses = f"loss {before['loss']:.3f} → {after['loss']:.3f} nats per loss token"
        what = "texts" if isinstance(rows[0], Document) else "conversations"
        return figures, f"{len(rows):,} {what}: {losses}"
