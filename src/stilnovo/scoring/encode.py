"""Tokenise a question as a prefix tree of its endings after a shared header, so that shared tokens are computed once.

The endings of a question share its context, and often their first words too. Merging the sequences into a prefix tree
turns k (C + E) tokens into C + (what differs). A node is one token; it stands at the position that it has in its own
sequence and may attend to itself and its ancestors only, so every path from the root sees just what it would see alone.

The rules are those of lm-evaluation-harness (`_encode_pair`): context and ending are tokenised together, and the ending
is what follows the tokens of the context alone; trailing spaces of the context belong to the ending; the opening token
is prepended where the model has one; what is longer than the model's context loses tokens on the left, each ending by itself,
so that a long one takes nothing from its rivals. What a question shares with its header is found in the tokens, not in the text: a
tokeniser may merge across the seam.

Unusual: an ending that is longer than the whole context, which the reference refuses, is read in windows: each of its tokens is
predicted once, after half a context at least. Otherwise its rivals, none of whose tokens were left, would score 0 and win.

Shape letters: L nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, pairwise
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from stilnovo.benchmarks.task import MultipleChoice
from stilnovo.text.template import RenderedChat
from stilnovo.text.tokenizer import Tokenizer

T = TypeVar("T")
Context = str | RenderedChat  # plain text, or a conversation as the model's chat template writes it
WORTH_SHARING = 16  # tokens; a shorter header is simply read again


def filled(members: Iterable[T], fits: Callable[[Sequence[T], T], bool]) -> Iterator[list[T]]:
    """Group neighbours greedily: each group grows while `fits` (group, next member) holds."""
    group: list[T] = []
    for member in members:
        if group and not fits(group, member):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


@dataclass(frozen=True)
class Endings:
    """Endings after contexts: `pairs` (context, ending), and the `header` of all contexts, or a text that begins like them."""

    pairs: Sequence[tuple[Context, str]]
    header: Context = ""


@dataclass
class TokenTree:
    """A prefix tree of tokens. Parents come before their children; `parents` has -1 at roots.

    `origin` is the position of the first token, which follows so many that are kept elsewhere.
    """

    origin: int = 0
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Insert a sequence; returns the node of each of its tokens, shared ones included."""
        path, parent = [], -1
        for position, token in enumerate(sequence, self.origin):
            node = self._children.setdefault((parent, token), len(self.tokens))
            if node == len(self.tokens):
                self.tokens.append(token)
                self.parents.append(parent)
                self.positions.append(position)
            path.append(node)
            parent = node
        return path

    def mask(self) -> Tensor:
        """(L, L) bool: row i may attend to column j where j is i or one of its ancestors."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        starts = [node for node, parent in enumerate(self.parents) if parent != node - 1 or node == 0]
        for start, stop in pairwise([*starts, len(self)]):  # a run without branches: what its parent sees, then causal
            if self.parents[start] >= 0:
                mask[start:stop] = mask[self.parents[start]]
            mask[start:stop, start:stop] = torch.ones(stop - start, stop - start, dtype=torch.bool).tril_()
        return mask


@dataclass(frozen=True)
class Encoded:
    """A tokenised question: trees that follow the header's first `shared` tokens, the first of all endings that fit.

    For each ending `rows` are the nodes that predict its tokens, numbered over all trees, and `targets` those tokens;
    `truncated` says that an ending's context was cut on the left.
    """

    trees: tuple[TokenTree, ...]
    rows: tuple[list[int], ...]
    targets: tuple[list[int], ...]
    truncated: bool
    shared: int = 0

    @property
    def size(self) -> int:
        """Number of nodes of all trees."""
        return sum(map(len, self.trees))


class PromptTokenizer(Protocol):
    """What encoding a question asks of a tokeniser: ours, or a server's."""

    @property
    def opening(self) -> list[int]:
        """The opening token, or none where the model has none."""

    @property
    def end_of_text_id(self) -> int:
        """Token that closes a document."""

    def encode(self, text: str, /) -> list[int]:
        """Encode a text, without any special token."""

    def encode_rendered(self, rendered: RenderedChat, more: str = "", /) -> list[int]:
        """Encode what a chat template wrote, and a text after it; the opening token first where the model has one."""


def question_tokens(tokenizer: PromptTokenizer, pairs: Sequence[tuple[Context, str]]) -> list[tuple[list[int], int]]:
    """Tokenise every (context, ending) with `encode_endings`, equal contexts beside one another once."""
    sequences: list[tuple[list[int], int]] = []
    for context, same in groupby(pairs, key=lambda pair: pair[0]):
        sequences += encode_endings(tokenizer, context, [ending for _, ending in same])
    return sequences


def encode_endings(tokenizer: PromptTokenizer, context: Context, endings: Sequence[str]) -> list[tuple[list[int], int]]:
    """Tokenise context + ending for each ending, with the index at which the ending begins.

    An empty context becomes the opening token, or the end-of-text token where the model has none. Tokenising both
    together may merge across the seam; the cut stays where the context alone would have ended, as in the reference.
    """
    if isinstance(context, RenderedChat):
        cut = len(tokenizer.encode_rendered(replace(context, text=context.text.rstrip())))
        rendered = [tokenizer.encode_rendered(context, ending) for ending in endings]
        return [(tokens, min(cut, len(tokens) - 1)) for tokens in rendered]
    stem = context.rstrip()
    seam = context[len(stem) :]
    opening = tokenizer.opening or ([] if stem else [tokenizer.end_of_text_id])
    cut = len(tokenizer.encode(stem))
    wholes = [tokenizer.encode(stem + seam + ending) for ending in endings]
    return [(opening + whole, len(opening) + min(cut, len(whole) - 1)) for whole in wholes]


def encode(
    tokenizer: Tokenizer, question: MultipleChoice | Endings, max_positions: int, header: Sequence[int] = ()
) -> Encoded:
    """Tokenise a question as a tree; `header` is its header's tokens if they are cached."""
    sequences = question_tokens(tokenizer, question.pairs)
    longest = max(len(tokens) - 1 for tokens, _ in sequences)  # the last token is only predicted, never read
    shared = 0 if longest > max_positions else _shared(sequences, list(header))
    trees: list[TokenTree] = [TokenTree(shared)]
    paths: list[list[tuple[int, list[int]]]] = []  # by ending: the tree, and its nodes that predict
    targets = []
    for tokens, start in sequences:
        first = max(start, 1)
        targets.append(tokens[first:])
        if len(tokens) - 1 <= max_positions:
            paths.append([(0, trees[0].add(tokens[shared:-1])[first - 1 - shared :])])
            continue
        paths.append([])
        for begin, stop, predicted in ending_windows(len(tokens), first, max_positions):
            trees.append(TokenTree())  # of its own: nothing is shared where the beginnings differ
            paths[-1].append((len(trees) - 1, trees[-1].add(tokens[begin:stop])[predicted - 1 - begin :]))
    offsets = list(accumulate(map(len, trees), initial=0))
    rows = tuple([offsets[tree] + node for tree, nodes in parts for node in nodes] for parts in paths)
    read = tuple(tree for tree in trees if len(tree))
    return Encoded(read, rows, tuple(targets), longest > max_positions, shared)


def ending_windows(tokens: int, first: int, limit: int) -> list[tuple[int, int, int]]:
    """What is read for the tokens from `first` on, one window where they fit into one, as (begin, stop, first predicted).

    A window reads begin … stop - 1, `limit` tokens, and predicts up to stop.
    """
    step = limit if tokens - first <= limit else max(1, limit // 2)
    stops = [min(start + step, tokens) - 1 for start in range(first, tokens, step)]
    return [(max(0, stop - limit), stop, start) for start, stop in zip(range(first, tokens, step), stops, strict=True)]


def _shared(sequences: Sequence[tuple[list[int], int]], header: list[int]) -> int:
    """Number of header tokens that all sequences share, short of the one that predicts an ending."""
    shared = min(len(header), min(start - 1 for _, start in sequences))
    for tokens, _ in sequences:
        if tokens[:shared] != header[:shared]:
            shared = next(index for index in range(shared) if tokens[index] != header[index])
    return shared if shared >= WORTH_SHARING else 0
