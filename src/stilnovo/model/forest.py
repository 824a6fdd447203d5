"""Attention for scoring: many small trees of tokens side by side, and one prefix that all of them follow.

A question with its endings is a tree (`stilnovo.scoring.encode`); a pass holds many of them. Trees of nearly equal size
lie in one padded batch for attention alone, because one call over a batch is about twice as fast as a call a tree;
everything else in the model runs over the stream without padding. A few-shot header that all trees of a pass begin with
is not in the stream at all: its keys and values were recorded once, layer by layer, and stand before each tree's own.

Shape letters: T tokens of the stream, B trees of a batch, L rows of the longest of them, P tokens of the prefix, H query
heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model.attention import grouped_attention

FULLEST = 0.8  # a tree shorter than this share of its batch's longest begins a new batch
MASK_BYTES = 32 * 2**20  # a batch ends where its mask would be larger


# Keys and values of tokens that come before others, each (P, K, D), one pair a layer; recorded by `Recorder`.
Prefix = list[tuple[Tensor, Tensor]]


class Recorder:
    """Causal attention over one sequence that remembers its keys and values: an `Attention`."""

    def __init__(self) -> None:
        self.prefix: Prefix = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `stilnovo.model.attention.Attention`; layers come in their order."""
        assert layer == len(self.prefix), "a recorder is for one pass"
        self.prefix.append((k, v))
        return grouped_attention(q, k, v, None, causal=True)


# Trees attended together: where their rows lie in the stream, (B·L,), how many there are, and what they see,
# (B, 1, L, P + L); None: one sequence without prefix, plainly causal.
_Batch = tuple[Tensor, int, Tensor | None]


class Forest:
    """Trees that tile the stream, each seeing the first `shared` tokens of a prefix and its own ancestors.

    Args:
        masks: For each tree, in the order of the stream, (L, L) bool: True where row i may attend to column j.
        device: Where the model computes.
        dtype: In what type.
        prefix: Its keys and values.
        shared: How much of it the trees follow.
    """

    def __init__(
        self,
        masks: Sequence[Tensor],
        device: torch.device,
        dtype: torch.dtype,
        prefix: Prefix | None = None,
        shared: int = 0,
    ) -> None:
        self._prefix, self._shared = prefix, shared if prefix is not None else 0
        self._batches: list[_Batch] = []
        back: list[Tensor] = []
        start = padded = 0
        for batch in _batches(masks, self._shared, dtype.itemsize):
            longest = max(len(mask) for mask in batch)
            rows = []
            for mask in batch:
                own = torch.arange(len(mask))
                # a padding row repeats the tree's first one: nobody sees it, and its result is dropped
                rows.append(F.pad(own + start, (0, longest - len(mask)), value=start))
                back.append(own + padded)
                start, padded = start + len(mask), padded + longest
            causal = len(batch) == 1 and not self._shared and batch[0].equal(torch.ones_like(batch[0]).tril())
            seen = None if causal else _additive(batch, longest, self._shared, dtype).to(device)
            self._batches.append((torch.cat(rows).to(device), len(batch), seen))
        self._back = torch.cat(back).to(device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `stilnovo.model.attention.Attention`."""
        assert len(q) == len(self._back), f"the stream has {len(q)} tokens, the trees {len(self._back)}"
        outs = [self._attend(batch, q, k, v, layer) for batch in self._batches]
        return (outs[0] if len(outs) == 1 else torch.cat(outs))[self._back]

    def _attend(self, batch: _Batch, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        rows, trees, mask = batch
        if mask is None:
            return grouped_attention(q[rows], k[rows], v[rows], None, causal=True)
        queries, keys, values = (
            part[rows].view(trees, -1, *part.shape[1:]).transpose(1, 2) for part in (q, k, v)
        )  # (B, H or K, L, D)
        if self._prefix is not None and self._shared:
            before = (
                part[: self._shared].transpose(0, 1).expand(trees, -1, -1, -1) for part in self._prefix[layer]
            )  # (B, K, P, D)
            keys, values = (torch.cat(pair, dim=2) for pair in zip(before, (keys, values), strict=True))
        grouped = q.device.type == "cpu"  # on a card grouped queries and a mask together have no fused kernel
        if not grouped:
            groups = q.shape[1] // k.shape[1]
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)
        return out.transpose(1, 2).flatten(0, 1)  # (B·L, H, D)


def _batches(masks: Sequence[Tensor], shared: int, itemsize: int) -> list[list[Tensor]]:
    """Group consecutive trees of nearly one size."""
    batches: list[list[Tensor]] = []
    longest = shortest = 0
    for mask in masks:
        longest, shortest = max(longest, len(mask)), min(shortest, len(mask))
        size = (len(batches[-1]) + 1) * longest * (longest + shared) * itemsize if batches else 0
        if not batches or shortest < FULLEST * longest or size > MASK_BYTES:
            batches.append([])
            longest = shortest = len(mask)
        batches[-1].append(mask)
    return batches


def _additive(batch: Sequence[Tensor], longest: int, shared: int, dtype: torch.dtype) -> Tensor:
    """Additive masks (B, 1, L, P + L): 0 where a key is seen, minus infinity elsewhere."""
    seen = torch.zeros(len(batch), 1, longest, shared + longest, dtype=torch.bool)
    for tree, mask in zip(seen, batch, strict=True):
        size = len(mask)
        tree[0, :, :shared] = True
        tree[0, :size, shared : shared + size] = mask
        tree[0, size:, shared] = True  # a padding row sees something, or it would be no number
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
