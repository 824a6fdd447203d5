"""Tokenise a question as a tree of its endings after a shared header.

The rules are those of lm-evaluation-harness (`_encode_pair`): context and ending are tokenised together, and the ending
is what follows the tokens of the context alone; trailing spaces of the context belong to the ending; the opening token
is prepended where the model has one. What a question shares with its header is found in the tokens, not in the text: a
tokeniser may merge across the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from stilnovo.scoring.tree import TokenTree
from stilnovo.text.tokenizer import Tokenizer

T = TypeVar("T")
WORTH_SHARING = 16  # tokens; a shorter header is simply read again


def filled(members: Iterable[T], fits: Callable[[Sequence[T], T], bool]) -> Iterator[list[T]]:
    """Group neighbours, each group as large as `fits` (group, next member) allows."""
    group: list[T] = []
    for member in members:
        if group and not fits(group, member):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


class EncodedItem(Protocol):
    """Anything with endings after contexts that can be scored, such as `MultipleChoice`."""

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """(context, ending) of every choice."""
        ...

    @property
    def header(self) -> str:
        """The beginning of all contexts that other questions share; empty for none."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A tokenised question: the tree that follows the header's first `shared` tokens.

    For each ending `rows` are the nodes that predict its tokens and `targets` those tokens; `truncated` says that the
    contexts were cut on the left.
    """

    tree: TokenTree
    rows: tuple[list[int], ...]
    targets: tuple[list[int], ...]
    truncated: bool
    shared: int = 0


def encode_endings(tokenizer: Tokenizer, context: str, endings: Sequence[str]) -> list[tuple[list[int], int]]:
    """Tokenise context + ending for each ending, with the index at which the ending begins.

    An empty context becomes the opening token, or the end-of-text token where the model has none. Tokenising both
    together may merge across the seam; the cut stays where the context alone would have ended, as in the reference.
    """
    stem = context.rstrip()
    seam = context[len(stem) :]
    opening = opening_tokens(tokenizer)
    if not stem and not opening:
        opening = [tokenizer.end_of_text_id]
    cut = len(tokenizer.encode(stem))
    wholes = [tokenizer.encode(stem + seam + ending) for ending in endings]
    return [(opening + whole, len(opening) + min(cut, len(whole) - 1)) for whole in wholes]


def opening_tokens(tokenizer: Tokenizer) -> list[int]:
    """Tokens that every text begins with: BOS, if the model has one."""
    return [] if tokenizer.bos_id is None else [tokenizer.bos_id]


def encode(tokenizer: Tokenizer, question: EncodedItem, max_positions: int, header: Sequence[int] = ()) -> Encoded:
    """Tokenise a question as a tree; `header` are its header's tokens if they are cached."""
    sequences: list[tuple[list[int], int]] = []
    for context, pairs in groupby(question.pairs, key=lambda pair: pair[0]):
        sequences += encode_endings(tokenizer, context, [ending for _, ending in pairs])
    # The last token is only predicted, never read. All endings lose the same tokens on the left: they still share.
    excess = max(0, max(len(tokens) - 1 for tokens, _ in sequences) - max_positions)
    shared = 0 if excess else _shared(sequences, list(header))
    tree = TokenTree(shared)
    rows, targets = [], []
    for tokens, start in sequences:
        read, first = tokens[excess:], max(start - excess, 1)
        path = tree.add(read[shared:-1])
        rows.append(path[first - 1 - shared :])
        targets.append(read[first:])
    return Encoded(tree, tuple(rows), tuple(targets), excess > 0, shared)


def _shared(sequences: Sequence[tuple[list[int], int]], header: list[int]) -> int:
    """Number of header tokens that all sequences share, short of the one that predicts an ending."""
    shared = min(len(header), min(start - 1 for _, start in sequences))
    for tokens, _ in sequences:
        if tokens[:shared] != header[:shared]:
            shared = next(index for index in range(shared) if tokens[index] != header[index])
    return shared if shared >= WORTH_SHARING else 0
