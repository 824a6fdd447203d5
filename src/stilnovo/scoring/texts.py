"""Held-out documents through the model, a few passes at a time; each group is kept as soon as it is done.

A document is an item like any other: what an earlier run read is not read again. Its place in the cache names how it was
read (window and stride) beside what every answer depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from stilnovo.model.llama import Llama
from stilnovo.scoring.answer_cache import Keeper, answered
from stilnovo.scoring.multiple_choice import TOKEN_BUDGET
from stilnovo.scoring.perplexity import (
    SHORT_WINDOW,
    HeldOutScore,
    score_short_windows,
    score_texts,
    texts_sha256,
)
from stilnovo.text.tokenizer import Tokenizer

TEXT, SHORT = "held-out text", "held-out text in short windows"  # as named in progress and in the cache

Progress = Callable[[str, int, int], None]
Costs = list[tuple[float, int]]  # a document each: nats, and what they are counted over

_CHARACTERS_A_TOKEN = 3  # few, so that a group of documents is at most a few passes


def read_texts(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
    short_windows: bool = False,
) -> HeldOutScore:
    """Every document's nats (`perplexity.score_texts`), with `short_windows` also as the report of 2024 read it.

    Args:
        model: Any Llama.
        tokenizer: Its tokeniser.
        texts: The documents, none empty.
        token_budget: Most tokens in one forward pass.
        progress: Called with (`TEXT`, documents done, documents in all), for the second reading with `SHORT`.
        keeper: Where answers are looked up and kept; nowhere by default.
        short_windows: See above.
    """
    window = min(TOKEN_BUDGET, model.config.max_positions)
    stride = max(1, window // 2)

    def long(group: Sequence[str]) -> Costs:
        found = score_texts(model, tokenizer, group, window=window, stride=stride, token_budget=token_budget)
        return list(zip(found.nats, found.tokens, strict=True))

    def short(group: Sequence[str]) -> Costs:
        return list(zip(*score_short_windows(model, tokenizer, group, token_budget=token_budget), strict=True))

    size = token_budget * _CHARACTERS_A_TOKEN
    costs = _read(texts, long, TEXT, f"window {window}, stride {stride}", size, progress, keeper)
    score = HeldOutScore(
        tuple(nats for nats, _ in costs),
        tuple(len(text.encode("utf-8")) for text in texts),
        tuple(tokens for _, tokens in costs),
        texts_sha256(texts),
        window,
        stride,
    )
    if not short_windows:
        return score
    costs = _read(texts, short, SHORT, f"windows of {SHORT_WINDOW}", size, progress, keeper)
    losses, counts = tuple(loss for loss, _ in costs), tuple(count for _, count in costs)
    return replace(score, short_losses=losses, short_windows=counts)


def _read(
    texts: Sequence[str],
    read: Callable[[Sequence[str]], Costs],
    name: str,
    version: str,
    characters: int,
    progress: Progress | None,
    keeper: Keeper | None,
) -> Costs:
    """What every document costs: kept, or read now in groups of about `characters`."""
    hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]

    def groups(missing: list[int]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        for group in _groups(missing, texts, characters):
            found = read([texts[index] for index in group])
            yield group, [{"nats": nats, "count": count} for nats, count in found]

    rows = answered(keeper, name, version, hashes, groups, progress)
    return [(float(row["nats"]), int(row["count"])) for row in rows]


def _groups(indices: Sequence[int], texts: Sequence[str], characters: int) -> Iterator[list[int]]:
    group: list[int] = []
    size = 0
    for index in indices:
        group.append(index)
        size += len(texts[index])
        if size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group
