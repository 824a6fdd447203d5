"""Key/value cache for batched generation.

Shape letters: B texts, S room for tokens of a text, K key/value heads, G query heads per key/value head, D head size.
The cache is an `Attention` (see `stilnovo.model.attention`): the model does not know that it exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model.attention import grouped_attention
from stilnovo.plan.shape import LlamaConfig


class KVCache:
    """A key/value cache with room for `room` tokens of each of `texts` texts.

    Attributes:
        lengths: Cached tokens of each text.
    """

    def __init__(self, config: LlamaConfig, texts: int, room: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.layers, texts, config.kv_heads, room, config.head_dim)
        self._keys = torch.zeros(shape, device=device, dtype=dtype)
        self._values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = [0] * texts
        self._incoming: list[int] = []
        self._mask: Tensor | None = None

    def expect(self, counts: Sequence[int]) -> Tensor:
        """Announce how many tokens of each text the next forward pass has; returns their positions (T,) int64."""
        assert len(counts) == len(self.lengths)
        self._incoming = list(counts)
        device = self._keys.device
        if all(count == 1 for count in counts):
            places = torch.arange(max(self.lengths) + 1, device=device)
            self._mask = (places <= torch.tensor(self.lengths, device=device)[:, None])[:, None, None]  # (B, 1, 1, S)
        return torch.cat(
            [torch.arange(done, done + new, device=device) for done, new in zip(self.lengths, counts, strict=True)]
        )

    def advance(self) -> None:
        """Count the announced tokens as cached, once every layer has read them."""
        self.lengths = [done + new for done, new in zip(self.lengths, self._incoming, strict=True)]

    def keep(self, texts: Sequence[int]) -> None:
        """Drop all texts but these."""
        index = torch.tensor(list(texts), device=self._keys.device)
        self._keys, self._values = self._keys[:, index], self._values[:, index]
        self.lengths = [self.lengths[i] for i in texts]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `Attention.attend`; also stores the new keys and values."""
        if all(count == 1 for count in self._incoming):
            return self._attend_one_each(q, k, v, layer)
        outs, start = [], 0
        for text, (done, new) in enumerate(zip(self.lengths, self._incoming, strict=True)):
            rows = slice(start, start + new)
            start += new
            keys, values = self._keys[layer, text], self._values[layer, text]  # (K, S, D)
            keys[:, done : done + new] = k[rows].transpose(0, 1)
            values[:, done : done + new] = v[rows].transpose(0, 1)
            if done == 0:
                outs.append(grouped_attention(q[rows], k[rows], v[rows], None, causal=True))
                continue
            places = torch.arange(done + new, device=q.device)
            read = keys[:, : done + new].transpose(0, 1), values[:, : done + new].transpose(0, 1)
            outs.append(grouped_attention(q[rows], *read, places <= places[done:, None], causal=False))
        return torch.cat(outs)

    def _attend_one_each(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        texts, heads, size = q.shape
        for text, done in enumerate(self.lengths):
            self._keys[layer, text, :, done] = k[text]
            self._values[layer, text, :, done] = v[text]
        assert self._mask is not None
        longest = self._mask.shape[-1]
        keys, values = self._keys[layer, :, :, :longest], self._values[layer, :, :, :longest]  # (B, K, S, D)
        grouped = q.view(texts, keys.shape[1], -1, size)  # the G queries of one head are rows of one product
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self._mask).reshape(texts, heads, size)
