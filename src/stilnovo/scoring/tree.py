"""Merge token sequences into a prefix tree, so that shared tokens are computed once.

The endings of a question share its context, and often their first words too. Merging the sequences into a prefix tree
turns k (C + E) tokens into C + (what differs). A node is one token; it stands at the position that it has in its own
sequence and may attend to itself and its ancestors only, so every path from the root sees just what it would see alone.

Shape letters: L nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


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

    def is_chain(self) -> bool:
        """Whether the tree is one single sequence, for which causal attention is enough."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def mask(self) -> Tensor:
        """(L, L) bool: row i may attend to column j where j is i or one of its ancestors."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        start = 0
        for node, parent in enumerate(self.parents):
            if parent != node - 1:  # a new branch begins
                self._fill(mask, start, node)
                start = node
        self._fill(mask, start, len(self))
        return mask

    def _fill(self, mask: Tensor, start: int, stop: int) -> None:
        """Rows of the unbroken run start … stop-1: what its first token's parent sees, then causal."""
        if stop == start:
            return
        if self.parents[start] >= 0:
            mask[start:stop] = mask[self.parents[start]]
        size = stop - start
        mask[start:stop, start:stop] = torch.ones(size, size, dtype=torch.bool).tril_()
