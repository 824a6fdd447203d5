"""Loss by token position: does a model still profit from distant context?

A training on rows of 32 tokens never shows the model a 33rd position. Averaged over a text this hides: the first tokens
of a document may get better while the later ones, which are nearly all of it, get worse. So every document is read once
from its start, and its nats are summed by position: the opening token stands at 0, the first predicted one at 1, and a
token at position p has p tokens before it. Sums are kept by document, so that two models are compared in pairs.

Nats a token, not bits a byte: positions are counted in tokens, and only models with the same tokeniser can be compared.

Shape letters: D documents, P ranges of positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.progress import counted
from stilnovo.scoring import reading
from stilnovo.scoring.answer_cache import Answer
from stilnovo.scoring.boundary import check_finite
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.scoring.perplexity import groups_of, texts_sha256
from stilnovo.scoring.reading import DEFAULTS, ReadOptions, document_place, read_documents
from stilnovo.statistics.estimates import Estimate, ratio
from stilnovo.text.tokenizer import Tokenizer

EDGES = (1, 32, 64, 128, 256, 512)  # where each range of positions begins; the last one is open
POSITIONS = "positions"  # as named in progress and in the cache


@dataclass(frozen=True)
class PositionScores:
    """Loss of D documents by position: `nats` and `tokens`, (D, P); `edges` (P,) begin the ranges.

    At most `window` tokens of a document are read; a hash names the documents.
    """

    nats: tuple[tuple[float, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    edges: tuple[int, ...]
    window: int
    texts_sha256: str
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.nats):
            check_finite(document_place("text by position", index), row)

    @property
    def names(self) -> list[str]:
        """Names of the position ranges: `1–31`, …, `512+`."""
        ends = [f"{first}–{following - 1}" for first, following in itertools.pairwise(self.edges)]
        return [*ends, f"{self.edges[-1]}+"]

    def nats_per_token(self) -> list[Estimate | None]:
        """Mean loss by position range, (P,), with intervals over documents; None where no document reaches."""
        return [_ratio([row[p] for row in self.nats], self.tokens, p, self.groups) for p in range(len(self.edges))]


def score_positions(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int = TOKEN_BUDGET,
    edges: Sequence[int] = EDGES,
    options: ReadOptions = DEFAULTS,
) -> PositionScores:
    """Sum every text's loss by token position.

    Args:
        model: Any Llama, adapter included; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        texts: The documents, none empty; long ones say more.
        window: Most tokens read of a document; lowered to what the model can hold.
        edges: Where each range begins, ascending, the first at 1.
        options: Budget, progress (as `POSITIONS`) and cache.
    """
    if not texts or not all(texts):
        raise ValueError("positions need documents that are not empty")
    if list(edges) != sorted(set(edges)) or not edges or edges[0] != 1:
        raise ValueError(f"ranges of positions ascend from 1: {edges}")
    window = min(window, model.config.max_positions)
    rows = read_documents(
        model,
        POSITIONS,
        f"window {window}, from {','.join(map(str, edges))}",
        texts,
        lambda index: [reading.of_text(index, texts[index], tokenizer, window)],
        lambda parts: _sums(parts[0], edges),
        options,
    )
    nats, tokens = (tuple(tuple(row[key]) for row in rows) for key in ("nats", "tokens"))
    return PositionScores(nats, tokens, tuple(edges), window, texts_sha256(texts), groups_of(texts))


def differences(before: PositionScores, after: PositionScores) -> list[Estimate | None]:
    """Paired change of loss by position range in nats per token, (P,), lower being better; None where nothing was read.

    Raises:
        InputError: the two have read different texts, or differently.
    """
    if (before.texts_sha256, before.window, before.edges) != (after.texts_sha256, after.window, after.edges):
        raise InputError(
            "The two models have read different texts; their losses by position cannot be compared.",
            f"Before: {counted(len(before.nats), 'document')}, window {before.window}; after: {len(after.nats)}, {after.window}.",
            "Read the same texts with both.",
        )
    if before.tokens != after.tokens:
        raise InputError("The two models cut the texts into different tokens.", next="Compare bits per byte instead.")
    changes = [[b - a for a, b in zip(*rows, strict=True)] for rows in zip(before.nats, after.nats, strict=True)]
    return [_ratio([row[p] for row in changes], before.tokens, p, before.groups) for p in range(len(before.edges))]


def _ratio(nats: Sequence[float], tokens: Sequence[Sequence[int]], p: int, groups: Sequence[str]) -> Estimate | None:
    read = [index for index, row in enumerate(tokens) if row[p]]
    clusters = [groups[index] for index in read] if groups else None
    return ratio([nats[index] for index in read], [tokens[index][p] for index in read], clusters) if read else None


def _sums(values: Tensor, edges: Sequence[int]) -> Answer:
    """Sum a document's token losses, (tokens,) in nats from the first token on, by position range."""
    places = torch.bucketize(torch.arange(1, len(values) + 1), torch.tensor(edges), right=True) - 1
    nats = torch.bincount(places, weights=-values, minlength=len(edges))
    return {"nats": nats.tolist(), "tokens": torch.bincount(places, minlength=len(edges)).tolist()}
