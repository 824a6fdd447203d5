"""Bits per byte of a chat model's answers, given what they answer: what a training on articles makes it forget first.

Only what an assistant is taught counts: its words and the token that ends its turn (`Tokenizer.supervised`), under the
model's own template. Nats of all answers of a conversation are summed and divided by the answers' UTF-8 bytes; a
conversation is the unit that is kept, and by which two models are compared in pairs.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from stilnovo.benchmarks.task import how_many
from stilnovo.data.conversations import Conversation, read_conversations
from stilnovo.errors import InputError
from stilnovo.generate.generator import dense_weights
from stilnovo.model.llama import Llama
from stilnovo.scoring import reading
from stilnovo.scoring.answer_cache import Keeper, answered
from stilnovo.scoring.multiple_choice import TOKEN_BUDGET
from stilnovo.scoring.packed import evaluating
from stilnovo.scoring.perplexity import HeldOutScore, texts_sha256
from stilnovo.scoring.texts import Progress
from stilnovo.text.template import TEMPLATES, AssistantText
from stilnovo.text.tokenizer import Tokenizer

CHAT = "chat answers"  # as named in progress and in the cache
SEED = 42


def choose_conversations(
    path: Path, limit: int | float | None = None, seed: int = SEED
) -> tuple[list[Conversation], list[str]]:
    """The conversations of a file, `limit` of them drawn at random in their order, and lines on rows left out.

    Raises:
        InputError: no row can be used, or the limit makes no sense.
    """
    found, tally = read_conversations([path])
    count = how_many(limit, len(found))
    if count is not None and count < len(found):
        found = [found[index] for index in sorted(random.Random(seed).sample(range(len(found)), count))]
    return found, [f"{path.name}: {line}" for line in tally.lines()]


def fitting(conversations: Sequence[Conversation], tokenizer: Tokenizer, max_positions: int) -> list[Conversation]:
    """Those that the model can read in one piece.

    Raises:
        InputError: it can read none of them.
    """
    kept = [one for one in conversations if len(tokenizer.supervised(one.messages)[0]) <= max_positions]
    if conversations and not kept:
        raise InputError("No conversation fits the model's context.", f"It reads {max_positions} tokens.")
    return kept


def score_conversations(
    model: Llama,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> HeldOutScore:
    """What the assistant's turns of every conversation cost; `tokens` are those that were learnt.

    Args:
        model: Any Llama; dropout is off while it is scored.
        tokenizer: Its tokeniser, with the template.
        conversations: From `fitting`.
        token_budget: Most tokens in one forward pass; several conversations share one.
        progress: Called with (`CHAT`, conversations done, in all) after every pass.
        keeper: Where answers are looked up and kept; nowhere by default.
    """
    if not conversations:
        raise ValueError("there are no conversations")
    texts = [json.dumps([(turn.role, turn.content) for turn in one.messages]) for one in conversations]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    version = f"template {tokenizer.template}"

    def packs(missing: list[int]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        for pack in reading.packs((reading.of_answers(n, conversations[n], tokenizer) for n in missing), token_budget):
            found = reading.loglikelihoods(model, pack)
            yield [one.document for one in pack], [{"nats": -float(part.sum()), "tokens": len(part)} for part in found]

    with torch.inference_mode(), evaluating(model), dense_weights(model):
        rows = answered(keeper, CHAT, version, hashes, packs, progress)
    sizes = tuple(answer_bytes(tokenizer, one) for one in conversations)
    nats, tokens = tuple(float(row["nats"]) for row in rows), tuple(int(row["tokens"]) for row in rows)
    return HeldOutScore(nats, sizes, tokens, texts_sha256(texts), model.config.max_positions, 0)


def answer_bytes(tokenizer: Tokenizer, conversation: Conversation) -> int:
    """UTF-8 bytes of the assistant's words as the template lays them out."""
    pieces = TEMPLATES[tokenizer.template](conversation.messages, generation=False)
    return sum(len(piece.encode("utf-8")) for piece in pieces if isinstance(piece, AssistantText))
