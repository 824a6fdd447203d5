"""SentencePiece's merging as BPE vocabularies keep it, in the two forms that files have: pairs in order, or a score for each token.

`tokenizer.json` lists the pairs that are merged, in their order. GGUF has a score for each token, and llama.cpp merges whatever two
neighbours make the token of the highest score. Unusual: a list of pairs can say more than scores can, so a vocabulary is written
with scores only where they decide every merge as the list does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

SPACE = "▁"  # what stands for a space in such vocabularies
Pair = tuple[str, str]


def scores_of(words: Mapping[str, int], pairs: Sequence[Pair]) -> dict[str, float] | None:
    """Score of each token that a pair makes, the earliest the highest; None where scores would merge otherwise.

    Scores merge as the list does where every way to cut a token into two others is in the list, and where the pairs of one token
    stand together in it.

    Args:
        words: The vocabulary without its special tokens.
        pairs: What is merged, in order.
    """
    listed = set(pairs)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        first.setdefault(left + right, rank)
        last[left + right] = rank
    for word in words:
        for left, right in cuts(word):
            made = all(part in words or len(part) == 1 for part in (left, right))
            if made and (left, right) not in listed:
                return None
    order = sorted(first, key=first.__getitem__)
    if any(last[word] > first[following] for word, following in pairwise(order)):
        return None
    return {word: -float(place) for place, word in enumerate(order, 1)}


def pairs_of(scores: Mapping[str, float]) -> list[Pair]:
    """The pairs of which tokens with these scores are made, in the order in which they are merged."""
    order = sorted(scores, key=scores.__getitem__, reverse=True)
    return [pair for word in order for pair in cuts(word) if pair[0] in scores and pair[1] in scores]


def cuts(word: str) -> list[Pair]:
    """Every way to cut a word into two."""
    return [(word[:at], word[at:]) for at in range(1, len(word))]
