"""Questions into forward passes: the longest first, everything shared computed once, memory flat in their number.

Questions are taken a window at a time, as many as make some passes; inside a window they are sorted by header and
length, so that a pass holds trees of nearly one size (`model/forest.py`). A header that questions share is read once,
its keys and values kept until another header comes. Numbers do not depend on any of this beyond rounding: every row
sees what it would see alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from stilnovo.generate.generator import dense_weights
from stilnovo.model.forest import Forest, Prefix, Recorder
from stilnovo.model.llama import Llama
from stilnovo.scoring.encode import Encoded, EncodedItem, encode, opening_tokens
from stilnovo.scoring.likelihood import token_scores
from stilnovo.text.tokenizer import Tokenizer

TOKEN_BUDGET = 2048
WINDOW_PASSES = 16  # passes' worth of questions that are sorted together


@dataclass(frozen=True)
class EndingScores:
    """Log-likelihood in nats of each ending, and whether each is what greedy decoding would have written."""

    loglikelihoods: tuple[float, ...]
    greedy: tuple[bool, ...]
    truncated: bool


def answers(
    model: Llama, tokenizer: Tokenizer, questions: Sequence[EncodedItem], *, token_budget: int = TOKEN_BUDGET
) -> Iterator[list[tuple[int, EndingScores]]]:
    """Answers with the index of their question, a list after every forward pass; not in order.

    Args:
        model: Any Llama; dropout is off while this runs. On a CPU, quantised weights are kept densely meanwhile where
            they fit (`generate.engine.dense_weights`).
        tokenizer: Its tokeniser.
        questions: What is asked; `header` is only a hint, the tokens decide what is shared.
        token_budget: Most tokens in one forward pass; a question with more gets a pass of its own.
    """
    headers = _Headers(model, tokenizer)
    source = iter(enumerate(questions))
    with evaluating(model), dense_weights(model):
        while window := _window(source, headers, WINDOW_PASSES * token_budget):
            for pack in _packs(window, token_budget):
                header = questions[pack[0][0]].header if pack[0][1].shared else ""
                found = _forward(model, [encoded for _, encoded in pack], headers.prefix(header))
                yield [(index, answer) for (index, _), answer in zip(pack, found, strict=True)]


@contextmanager
def evaluating(model: Llama) -> Iterator[None]:
    """While inside, dropout is off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class _Headers:
    """Tokens of every header met, keys and values of the last one used."""

    def __init__(self, model: Llama, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._tokens: dict[str, list[int]] = {}
        self._current: tuple[str, Prefix] | None = None

    def encode(self, question: EncodedItem) -> Encoded:
        """The question without what its header holds."""
        return encode(self.tokenizer, question, self.model.config.max_positions, self.tokens(question.header))

    def tokens(self, header: str) -> list[int]:
        """The header as every text that begins with it begins, but perhaps for its last few tokens."""
        if not header:
            return []
        if header not in self._tokens:
            if len(self._tokens) > 256:  # a header a question is no header
                self._tokens.clear()
            found = opening_tokens(self.tokenizer) + self.tokenizer.encode(header)
            self._tokens[header] = found[: self.model.config.max_positions]
        return self._tokens[header]

    @torch.inference_mode()
    def prefix(self, header: str) -> Prefix | None:
        """Keys and values of a header, read now unless it was the last one too."""
        if not header:
            return None
        if self._current is None or self._current[0] != header:
            self._current = None  # two at once would be twice the memory
            tokens, recorder = torch.tensor(self.tokens(header), device=self.model.device), Recorder()
            self.model.hidden(tokens, torch.arange(len(tokens), device=tokens.device), recorder)
            self._current = header, recorder.prefix
        return self._current[1]


Pack = list[tuple[int, Encoded]]


def _window(
    source: Iterator[tuple[int, EncodedItem]], headers: _Headers, tokens: int
) -> list[tuple[str, int, Encoded]]:
    """The next questions of at least so many tokens, sorted: by header, by what is shared of it, the longest first."""
    window: list[tuple[str, int, Encoded]] = []
    size = 0
    for index, question in source:
        encoded = headers.encode(question)
        window.append((question.header if encoded.shared else "", index, encoded))
        size += len(encoded.tree)
        if size >= tokens:
            break
    return sorted(window, key=lambda entry: (entry[0], entry[2].shared, -len(entry[2].tree)))


def _packs(window: Sequence[tuple[str, int, Encoded]], token_budget: int) -> Iterator[Pack]:
    """As many questions in a pass as the budget holds, all of one header."""
    pack: Pack = []
    size, now = 0, ("", 0)
    for header, index, encoded in window:
        if pack and (size + len(encoded.tree) > token_budget or now != (header, encoded.shared)):
            yield pack
            pack, size = [], 0
        now = (header, encoded.shared)
        pack.append((index, encoded))
        size += len(encoded.tree)
    if pack:
        yield pack


@torch.inference_mode()
def _forward(model: Llama, pack: Sequence[Encoded], prefix: Prefix | None) -> list[EndingScores]:
    """One pass over several trees that follow the same part of the same header."""
    device = model.device
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    for encoded in pack:
        rows += [len(tokens) + node for ending in encoded.rows for node in ending]
        targets += [token for ending in encoded.targets for token in ending]
        tokens += encoded.tree.tokens
        positions += encoded.tree.positions
    forest = Forest([encoded.tree.mask() for encoded in pack], device, model.dtype, prefix, pack[0].shared)
    hidden = model.hidden(torch.tensor(tokens, device=device), torch.tensor(positions, device=device), forest)  # (T, C)
    values, greedy = token_scores(model, hidden, rows, targets)
    pairs = iter(zip(values.tolist(), greedy.tolist(), strict=True))
    found = []
    for encoded in pack:
        parts = [list(islice(pairs, len(ending))) for ending in encoded.targets]
        found.append(
            EndingScores(
                tuple(sum(value for value, _ in part) for part in parts),
                tuple(all(first for _, first in part) for part in parts),
                encoded.truncated,
            )
        )
    return found
