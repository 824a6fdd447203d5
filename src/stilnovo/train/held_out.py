"""What was kept aside: written where every other command reads it, and read by the finished model.

`held_out.jsonl` holds rows in the shape they are trained from: `stilnovo evaluate --text` and `stilnovo sweep --chat`
read them, and so does `--data` of another training.

After a training on conversations or pairs what was kept aside is read once, through the training's own objective and
without gradients: what the training made small, on what it never saw. Pairs and pieces share packs as in the training.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stilnovo.data.batches import BatchStream
from stilnovo.data.conversations import Conversation, Preference
from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.data.pairs import pack_pairs
from stilnovo.data.sources import training_text
from stilnovo.progress import Progress
from stilnovo.recipe import Recipe
from stilnovo.runlog import write_atomic
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.corpus import Aside, learnt_of
from stilnovo.train.objective import NextToken
from stilnovo.train.passes import Objective, Parts, Passes, added, means

FILE = "held_out.jsonl"


def write(folder: Path, aside: Aside) -> None:
    """Write `held_out.jsonl`, whole or not at all; nothing where nothing was kept aside."""
    if aside:
        write_atomic(folder / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(aside)))


def rows(aside: Aside) -> Iterator[dict[str, Any]]:
    """Each row as it is written: {id, text}, {messages} or {prompt, chosen, rejected}, these as messages too."""
    for row in aside:
        if isinstance(row, Conversation):
            yield {"messages": _turns(*row.messages)}
        elif isinstance(row, Preference):
            chosen, rejected = (_turns(Message("assistant", answer)) for answer in (row.chosen, row.rejected))
            yield {"prompt": _turns(*row.prompt), "chosen": chosen, "rejected": rejected}
        else:
            yield {"id": row.id, "text": training_text(row)}


def _turns(*turns: Message) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


@dataclass(frozen=True)
class HeldOutPairs:
    """Pairs that were not learnt: means over `n` of them. The base's margin is 0 by definition, its loss log 2."""

    n: int
    loss: float
    margin: float
    accuracy: float

    def __str__(self) -> str:
        return f"{self.n:,} pairs: loss {self.loss:.3f}, margin {self.margin:.3f}, accuracy {self.accuracy:.3f}"


@dataclass(frozen=True)
class HeldOutConversations:
    """`n` conversations that were not learnt: nats a token of the assistant's turns (`tokens` in all), without and with the adapter."""

    n: int
    tokens: int
    loss_before: float
    loss_after: float

    def __str__(self) -> str:
        return f"{self.n:,} conversations: loss {self.loss_before:.3f} → {self.loss_after:.3f} nats a learnt token"


Measured = HeldOutPairs | HeldOutConversations


def measure(
    passes: Passes, objective: Objective, aside: Aside, tokenizer: Tokenizer, recipe: Recipe
) -> Measured | None:
    """Read what was kept aside; None for texts, and where nothing of it can be read.

    Args:
        passes: Of the finished model, with its adapter; dropout is off meanwhile.
        objective: The training's own.
        aside: What was kept aside.
        tokenizer: The model's.
        recipe: Says how rows are packed.
    """
    pairs = [row for row in aside if isinstance(row, Preference)]
    if pairs:
        found = pack_pairs(pairs, tokenizer, recipe.data.pack_tokens)
        for line in found.lines():
            logging.getLogger(__name__).info("held out: %s", line)
        told = _read(passes, objective, found.corpus, recipe)
        count, mean = told["loss"][1], means(told)
        return HeldOutPairs(count, mean["loss"], mean["margin"], mean["accuracy"]) if count else None
    chats = [row for row in aside if isinstance(row, Conversation)]
    if not chats:
        return None
    corpus = pack([learnt_of(conversation, tokenizer) for conversation in chats], recipe.data.pack_tokens)
    after = _read(passes, NextToken(), corpus, recipe)
    with passes.base():
        before = _read(passes, NextToken(), corpus, recipe)
    tokens = after["loss"][1]
    return HeldOutConversations(len(chats), tokens, means(before)["loss"], means(after)["loss"]) if tokens else None


def _read(passes: Passes, objective: Objective, corpus: PackedCorpus, recipe: Recipe) -> Parts:
    """What the objective reports of one pass over the corpus."""
    stream = BatchStream(corpus, recipe.train.batch_packs, recipe.train.seed)
    count, training = stream.batches_per_epoch(), passes.model.training
    sums: Parts = {"loss": (0.0, 0)}
    passes.model.eval()
    try:
        with torch.no_grad(), Progress("held out", count) as progress:
            for number, batch in enumerate(itertools.islice(stream, count), 1):
                sums = added(sums, objective(passes, batch)[1])
                progress.update(number, f"{number:,} of {count:,} batches")
    finally:
        passes.model.train(training)
    return sums
