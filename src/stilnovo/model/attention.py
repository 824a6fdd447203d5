"""Attention over one flat stream of tokens, and the one rule that makes packing safe: nothing crosses a block boundary.

Shape letters: T tokens in the stream, H query heads, K key/value heads (H a multiple of K), D head size.

Every use of the model is a stream of blocks. Training packs documents: each block causal. Scoring packs questions: each
block a tree, several endings over one shared context, given by an explicit mask. Generation keeps keys and values: the
cache (`stilnovo.generate.kv_cache`) is another `Attention`. The model itself knows only the interface.

Unusual: blocks are attended one by one with torch's own scaled_dot_product_attention. No padding is computed and no
T × T mask exists, so cost and memory follow the documents, not the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """How the tokens of a stream may look at each other; `layer` lets a cache find its own keys."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """q (T, H, D), k and v (T, K, D) → (T, H, D)."""


@dataclass(frozen=True)
class DocumentBlock:
    """Tokens `start` … `stop`-1 of the stream. `mask` (L, L) bool, True = may attend; None = causal."""

    start: int
    stop: int
    mask: Tensor | None = None


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    """Scaled dot-product attention with grouped queries (Ainslie et al. 2023; report §2, eq. 4).

    Args:
        q: (L, H, D); k, v: (S, K, D); mask: (L, S) bool or None.
        causal: Lower-triangular from the first token (only with L = S and no mask).

    Returns:
        (L, H, D).
    """
    groups = q.shape[1] // k.shape[1]
    q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)
    # A batch dimension of one keeps torch on its fused kernels.
    out = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, is_causal=causal)
    return out[0].transpose(0, 1)


class Blocks:
    """Attention inside consecutive blocks that tile the stream."""

    def __init__(self, blocks: Sequence[DocumentBlock]) -> None:
        self.blocks = tuple(blocks)
        stop = 0
        for block in self.blocks:
            assert block.start == stop and block.stop > block.start, "blocks must tile the stream"
            stop = block.stop
        self.tokens = stop

    @classmethod
    def documents(cls, lengths: Sequence[int]) -> Blocks:
        """Documents of these lengths one after another, causal inside each."""
        blocks, start = [], 0
        for length in lengths:
            blocks.append(DocumentBlock(start, start + length))
            start += length
        return cls(blocks)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `Attention.attend`; the layer does not matter here."""
        assert q.shape[0] == self.tokens, f"the stream has {q.shape[0]} tokens, the blocks {self.tokens}"
        outs = []
        for block in self.blocks:
            part = slice(block.start, block.stop)
            outs.append(grouped_attention(q[part], k[part], v[part], block.mask, causal=block.mask is None))
        return outs[0] if len(outs) == 1 else torch.cat(outs)


def positions_of(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Positions 0 … n-1 for each document in turn, (T,) int64."""
    return torch.cat([torch.arange(length, device=device) for length in lengths])
