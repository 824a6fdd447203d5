"""Pack questions into forward passes: shared prefixes computed once, constant memory.

Questions are taken a window at a time, as many as make some passes; inside a window they are sorted by header and
length, so that a pass holds trees of nearly one size (`model/forest.py`). A header that questions share is read once,
its keys and values kept until another header comes. Numbers do not depend on any of this beyond rounding: every row
sees what it would see alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from stilnovo.generate.generator import dense_weights
from stilnovo.model.forest import Forest, Prefix, Recorder
from stilnovo.model.llama import Llama, evaluating
from stilnovo.scoring.encode import Encoded, EncodedItem, encode, filled, opening_tokens
from stilnovo.scoring.likelihood import token_scores
from stilnovo.text.tokenizer import Tokenizer

TOKEN_BUDGET = 2048
WINDOW_PASSES = 16  # passes' worth of questions that are sorted together


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer to one item, as cached.

    `loglikelihoods` in nats, one an ending, and whether each ending is what `greedy` decoding would have written; or the
    `text` that was written. `truncated` says that the context was cut on the left to fit the model. What follows from it
    (choice, metrics, grades) is computed anew from the item and its task.
    """

    loglikelihoods: tuple[float, ...] = ()
    truncated: bool = False
    text: str = ""
    greedy: tuple[bool, ...] = ()


def answers(
    model: Llama, tokenizer: Tokenizer, questions: Sequence[EncodedItem], *, token_budget: int = TOKEN_BUDGET
) -> Iterator[list[tuple[int, ModelAnswer]]]:
    """Score questions; yields (index, answer) lists after every forward pass, not in order.

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
                scores = _forward(model, [encoded for _, encoded in pack], headers.prefix(header))
                yield [(index, answer) for (index, _), answer in zip(pack, scores, strict=True)]


class _Headers:
    """Cache of header tokens, and of the last header's keys and values."""

    def __init__(self, model: Llama, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._tokens: dict[str, list[int]] = {}
        self._current: tuple[str, Prefix] | None = None

    def tokens(self, header: str) -> list[int]:
        """Tokens of the header."""
        if not header:
            return []
        if header not in self._tokens:
            if len(self._tokens) > 256:  # a header a question is no header
                self._tokens.clear()
            tokens = opening_tokens(self.tokenizer) + self.tokenizer.encode(header)
            self._tokens[header] = tokens[: self.model.config.max_positions]
        return self._tokens[header]

    @torch.inference_mode()
    def prefix(self, header: str) -> Prefix | None:
        """Keys and values of a header, computed unless it was the last one used."""
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
    """Take the next questions of at least `tokens` tokens, sorted by header, shared tokens and length."""
    window: list[tuple[str, int, Encoded]] = []
    size = 0
    for index, question in source:
        max_positions, header = headers.model.config.max_positions, headers.tokens(question.header)
        encoded = encode(headers.tokenizer, question, max_positions, header)
        window.append((question.header if encoded.shared else "", index, encoded))
        size += len(encoded.tree)
        if size >= tokens:
            break
    return sorted(window, key=lambda entry: (entry[0], entry[2].shared, -len(entry[2].tree)))


def _packs(window: Sequence[tuple[str, int, Encoded]], token_budget: int) -> Iterator[Pack]:
    """Split a window into passes that fit the token budget, one header each."""

    def fits(pack: Sequence[tuple[str, int, Encoded]], entry: tuple[str, int, Encoded]) -> bool:
        alike = (pack[0][0], pack[0][2].shared) == (entry[0], entry[2].shared)
        return alike and sum(len(encoded.tree) for _, _, encoded in (*pack, entry)) <= token_budget

    for pack in filled(window, fits):
        yield [(index, encoded) for _, index, encoded in pack]


@torch.inference_mode()
def _forward(model: Llama, pack: Sequence[Encoded], prefix: Prefix | None) -> list[ModelAnswer]:
    """Forward pass over several trees that follow the same part of one header."""
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
    scores = []
    for encoded in pack:
        parts = [list(islice(pairs, len(ending))) for ending in encoded.targets]
        scores.append(
            ModelAnswer(
                tuple(sum(value for value, _ in part) for part in parts),
                encoded.truncated,
                greedy=tuple(all(first for _, first in part) for part in parts),
            )
        )
    return scores
