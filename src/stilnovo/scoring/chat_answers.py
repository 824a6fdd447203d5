"""Bits per byte of a chat's assistant turns, given the turns before: the first thing that training on articles degrades.

Only what an assistant is taught counts: its words and the token that ends its turn (`Tokenizer.supervised`), under the
model's own template. Nats of all answers of a conversation are summed and divided by the answers' UTF-8 bytes; a
conversation is the unit that is kept, and by which two models are compared in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from stilnovo.benchmarks.task import Draw
from stilnovo.data.conversations import Conversation, read_conversations
from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.scoring import reading
from stilnovo.scoring.perplexity import HeldOutScore, texts_sha256
from stilnovo.scoring.reading import DEFAULTS, ReadOptions, read_documents
from stilnovo.text.chat_template import TemplateRefusal
from stilnovo.text.tokenizer import Tokenizer

CHAT = "chat answers"  # as named in progress and in the cache


def choose_conversations(path: Path, draw: Draw = Draw()) -> tuple[list[Conversation], list[str]]:  # noqa: B008 - frozen
    """Read and sample the conversations of a file; also lines on the rows left out.

    Raises:
        InputError: no row can be used, or the limit makes no sense.
    """
    conversations, tally = read_conversations([path])
    return draw.sample(conversations), [f"{path.name}: {line}" for line in tally.lines()]


def fitting(conversations: Sequence[Conversation], tokenizer: Tokenizer, max_positions: int) -> list[Conversation]:
    """Keep the conversations that the model's chat template takes and that fit its context.

    Raises:
        InputError: it takes, or can read, none of them.
    """
    fitted, refused = list[Conversation](), list[TemplateRefusal]()
    for talk in conversations:
        try:
            fitted += [talk] * (len(tokenizer.supervised(talk.messages)[0]) <= max_positions)
        except TemplateRefusal as refusal:
            refused.append(refusal)
    if refused and len(refused) == len(conversations):
        raise refused[0]
    if conversations and not fitted:
        raise InputError("No conversation fits the model's context.", f"It reads {max_positions} tokens.")
    return fitted


def score_conversations(
    model: Llama,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    options: ReadOptions = DEFAULTS,
) -> HeldOutScore:
    """Score the assistant turns of every conversation; `tokens` counts loss tokens.

    Args:
        model: Any Llama; dropout is off while it is scored.
        tokenizer: Its tokeniser, with the template.
        conversations: From `fitting`.
        options: Budget, progress (as `CHAT`) and cache.
    """
    if not conversations:
        raise ValueError("there are no conversations")
    texts = [json.dumps([(turn.role, turn.content) for turn in talk.messages]) for talk in conversations]
    rows = read_documents(
        model,
        CHAT,
        f"template {tokenizer.template_id}",
        texts,
        lambda index: [reading.of_answers(index, conversations[index], tokenizer)],
        lambda parts: {"nats": -float(parts[0].sum()), "tokens": len(parts[0])},
        options,
    )
    sizes = tuple(answer_bytes(tokenizer, conversation) for conversation in conversations)
    nats, tokens = (tuple(row[key] for row in rows) for key in ("nats", "tokens"))
    return HeldOutScore(nats, sizes, tokens, texts_sha256(texts), model.config.max_positions, 0)


def answer_bytes(tokenizer: Tokenizer, conversation: Conversation) -> int:
    """UTF-8 bytes of the assistant turns as formatted by the template."""
    rendered = tokenizer.rendered(conversation.messages)
    taught = [turn for turn in rendered.turns if conversation.messages[turn.message].has_loss]
    return sum(len(rendered.text[turn.start : turn.words_end].encode("utf-8")) for turn in taught)
