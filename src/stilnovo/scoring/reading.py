"""Score documents, several in a pass: the log-probability of each loss token, document by document.

What is read of a document and which of its tokens count differs: a window of a long text, an assistant's turns, the first
tokens of anything. The passes, the cache and the progress are the same, and stand here once (`read_documents`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from stilnovo.data.conversations import Conversation
from stilnovo.generate.generator import dense_weights
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, evaluating
from stilnovo.scoring.answer_cache import Answer, ModelCache, Progress, answered
from stilnovo.scoring.encode import PromptTokenizer, filled
from stilnovo.scoring.likelihood import token_scores
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReadOptions:
    """Token budget, progress callback and cache for scoring documents.

    Attributes:
        token_budget: Most tokens in one forward pass; several short documents share one.
        progress: Called with (what is read, documents done, documents in all) after every pass.
        cache: Where answers are looked up and kept; nowhere by default.
    """

    token_budget: int = TOKEN_BUDGET
    progress: Progress | None = None
    cache: ModelCache | None = None


DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class Reading:
    """Tokens of a document (the last only predicted) and the positions of its scored tokens, from 1 on.

    Attributes:
        document: Its number, for whoever reads the result.
    """

    document: int
    tokens: Sequence[int]
    counted: Sequence[int]

    @property
    def length(self) -> int:
        """Number of tokens read."""
        return len(self.tokens) - 1

    @property
    def targets(self) -> list[int]:
        """The scored tokens."""
        return [self.tokens[place] for place in self.counted]


def of_text(index: int, text: str, tokenizer: Tokenizer, longest: int) -> Reading:
    """Tokenise a text, at most `longest` tokens read; all predicted tokens are scored."""
    tokens = opened(tokenizer, text)[: longest + 1]
    return Reading(index, tokens, range(1, len(tokens)))


def of_answers(index: int, conversation: Conversation, tokenizer: Tokenizer, longest: int | None = None) -> Reading:
    """Tokenise a conversation, at most `longest` tokens read; assistant tokens are scored."""
    tokens, learnt = tokenizer.supervised(conversation.messages)
    end = None if longest is None else longest + 1
    return Reading(index, tokens[:end], [place for place, counts in enumerate(learnt[:end]) if counts and place])


def opened(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Tokenise a text after BOS, or after end-of-text if the model has no BOS."""
    return [*(tokenizer.opening or [tokenizer.end_of_text_id]), *tokenizer.encode(text)]


def read_documents(
    model: Llama,
    name: str,
    version: str,
    texts: Sequence[str],
    readings: Callable[[int], Iterable[Reading]],
    measure: Callable[[Sequence[Tensor]], Answer],
    options: ReadOptions = DEFAULTS,
) -> list[Answer]:
    """Score documents in order, from the cache or now; each is saved after the pass that completes it.

    Args:
        model: Any Llama, adapter included; dropout is off while it reads.
        name: What the documents are, in the cache and in progress.
        version: How they are read.
        texts: One a document, with everything that its answer depends on.
        readings: From a document's number to what is read of it.
        measure: From the log-probabilities (counted,) of its readings to what is kept, as JSON values.
        options: Budget, progress and cache.
    """

    def fits(pack: Sequence[Reading], reading: Reading) -> bool:
        return sum(part.length for part in (*pack, reading)) <= options.token_budget

    def ask(missing: list[int]) -> Iterator[tuple[list[int], list[Answer]]]:
        own: dict[int, list[Reading]] = {}  # of the documents that are not complete yet
        values: dict[int, list[Tensor]] = {}

        def stream() -> Iterator[Reading]:
            for index in missing:
                own[index], values[index] = list(readings(index)), []
                yield from own[index]

        with evaluating(model), dense_weights(model):
            for pack in filled(stream(), fits):
                for reading, part in zip(pack, loglikelihoods(model, pack), strict=True):
                    values[reading.document].append(part)
                complete = [index for index, parts in values.items() if len(parts) == len(own[index])]
                yield complete, [measure(values.pop(index)) for index in complete]
        yield list(values), [measure(parts) for parts in values.values()]  # of which nothing is read

    hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    places = partial(document_place, name)
    return answered(options.cache, name, version, hashes, places, ask, options.progress)


def document_place(name: str, index: int) -> str:
    """How an error calls a document: by its place among those that were read."""
    return f"document {index + 1:,} of the {name}"


@torch.inference_mode()
def loglikelihoods(model: Llama, pack: Sequence[Reading]) -> list[Tensor]:
    """Log-probabilities (nats) of each reading's scored tokens, (counted,) fp64 on the CPU, in one pass."""
    lengths = [reading.length for reading in pack]
    read = torch.tensor([token for reading in pack for token in reading.tokens[:-1]], device=model.device)
    hidden = model.hidden(read, positions_of(lengths, model.device), Blocks(lengths))  # (T, C)
    begins = accumulate(lengths, initial=0)
    rows = [first + place - 1 for first, reading in zip(begins, pack, strict=False) for place in reading.counted]
    values, _ = token_scores(model, hidden, rows, [token for reading in pack for token in reading.targets])
    return list(torch.split(values, [len(reading.counted) for reading in pack]))
