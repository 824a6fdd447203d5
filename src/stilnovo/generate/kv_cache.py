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
        self._one_each = False
        self._texts = torch.arange(texts, device=device)
        self._places = self._texts  # where each text's next token goes, when it is one
        self._mask: Tensor | None = None

    def expect(self, counts: Sequence[int]) -> Tensor:
        """Announce how many tokens of each text the next forward pass has; returns their positions (T,) int64."""
        assert len(counts) == len(self.lengths)
        self._incoming = list(counts)
        device = self._keys.device
        self._one_each = all(count == 1 for count in counts)
        if self._one_each:
            self._places = torch.tensor(self.lengths, device=device)
            self._mask = None
            if min(self.lengths) < max(self.lengths):
                seen = torch.arange(max(self.lengths) + 1, device=device) <= self._places[:, None]
                # As numbers that are added: torch would make them of a bool mask again in every layer.
                hidden = torch.full((), -torch.inf, device=device, dtype=self._keys.dtype)
                self._mask = torch.zeros_like(hidden).where(seen, hidden)[:, None, None]  # (B, 1, 1, S)
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
        self._texts = torch.arange(len(index), device=index.device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `Attention.attend`; also stores the new keys and values."""
        if self._one_each:
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

    def attend_rows(self, rows: Tensor, layer: int) -> Tensor:
        """Attention of queries, keys and values side by side (T, H + 2K, D) → (T, H, D); see `attend`."""
        kv = self._keys.shape[2]
        return self.attend(rows[:, : -2 * kv], rows[:, -2 * kv : -kv], rows[:, -kv:], layer)

    def _attend_one_each(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        texts, heads, size = q.shape
        room = max(self.lengths) + 1
        keys, values = self._keys[layer], self._values[layer]  # (B, K, S, D)
        if texts == 1:
            keys[0, :, room - 1] = k[0]
            values[0, :, room - 1] = v[0]
        else:
            keys[self._texts, :, self._places] = k
            values[self._texts, :, self._places] = v
        keys, values = keys[:, :, :room], values[:, :, :room]
        grouped = q.view(texts, keys.shape[1], -1, size)  # the G queries of one head are rows of one product
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self._mask).reshape(texts, heads, size)
