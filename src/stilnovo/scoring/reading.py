"""Documents through the model, several in a pass: the log-probability of each token that counts, document by document.

What is read of a document and which of its tokens count differs: a window of a long text, an assistant's turns, the first
tokens of anything. The passes are the same, and stand here once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.data.conversations import Conversation
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.scoring.likelihood import token_loglikelihoods
from stilnovo.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reading:
    """Tokens of a document, the last only predicted, and the places of those that count, from 1 on.

    Attributes:
        document: Its number, for whoever reads the result.
    """

    document: int
    tokens: Sequence[int]
    counted: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens that are read."""
        return len(self.tokens) - 1

    @property
    def targets(self) -> list[int]:
        """The tokens that count."""
        return [self.tokens[place] for place in self.counted]


def of_text(number: int, text: str, tokenizer: Tokenizer, longest: int) -> Reading:
    """A text from its opening on, of which at most `longest` tokens are read; all that are predicted count."""
    tokens = opened(tokenizer, text)[: longest + 1]
    return Reading(number, tokens, range(1, len(tokens)))


def of_answers(number: int, conversation: Conversation, tokenizer: Tokenizer, longest: int | None = None) -> Reading:
    """A conversation, of which at most `longest` tokens are read; what an assistant is taught counts."""
    tokens, learnt = tokenizer.supervised(conversation.messages)
    end = None if longest is None else longest + 1
    return Reading(number, tokens[:end], [place for place, counts in enumerate(learnt[:end]) if counts and place])


def opened(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text behind the one that opens a document, or ends the one before where the model has no opening."""
    opening = tokenizer.end_of_text_id if tokenizer.bos_id is None else tokenizer.bos_id
    return [opening, *tokenizer.encode(text)]


def packs(readings: Iterable[Reading], token_budget: int) -> Iterator[list[Reading]]:
    """Readings in their order, as many together as the budget of tokens holds; a longer one alone."""
    pack: list[Reading] = []
    size = 0
    for reading in readings:
        if pack and size + reading.length > token_budget:
            yield pack
            pack, size = [], 0
        pack.append(reading)
        size += reading.length
    if pack:
        yield pack


def loglikelihoods(model: Llama, pack: Sequence[Reading]) -> list[Tensor]:
    """Natural logarithms of the probabilities of each reading's counted tokens, (counted,) fp64 on the CPU, in one pass."""
    lengths = [reading.length for reading in pack]
    read = torch.tensor([token for reading in pack for token in reading.tokens[:-1]], device=model.device)
    hidden = model.hidden(read, positions_of(lengths, model.device), Blocks.documents(lengths))  # (T, C)
    rows: list[int] = []
    offset = 0
    for reading in pack:
        rows += [offset + place - 1 for place in reading.counted]
        offset += reading.length
    values = token_loglikelihoods(model, hidden, rows, [token for reading in pack for token in reading.targets])
    return list(torch.split(values, [len(reading.counted) for reading in pack]))
