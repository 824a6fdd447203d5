"""Key/value cache on a card, for steps that are recorded once and repeated: whatever changes between them lies in tensors.

Shape letters: B texts, S room for tokens of a text, K key/value heads, G query heads per key/value head, D head size.

Unusual: the key and the value of a token lie side by side, (B, S, 2K, D), so that both are written by one copy. A step asks the
host for nothing: where it writes and how far it reads are computed from `positions`. How much of the room may be read at most
(`reach`) is a plain number; a recorded step keeps the one that it was recorded with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model.attention import grouped_attention, has_flash, positions_of
from stilnovo.plan.account import CARD_ROOM
from stilnovo.plan.shape import LlamaConfig


class CardCache:
    """Keys and values of `texts` texts with room for `room` tokens each, rounded up.

    Attributes:
        positions: Where each text's next token goes (B,), int64.
        room: S.
        reach: The most tokens of a text that a step reads, its own included.
    """

    def __init__(self, config: LlamaConfig, texts: int, room: int, device: torch.device, dtype: torch.dtype) -> None:
        # Masks of the memory-efficient kernel have to be aligned.
        self.room = self.reach = -(-room // CARD_ROOM) * CARD_ROOM
        self._heads, self._kv, self._size = config.heads, config.kv_heads, config.head_dim
        shape = (config.layers, texts, self.room, 2 * config.kv_heads, config.head_dim)
        self._rows = torch.zeros(shape, device=device, dtype=dtype)  # what is masked must be a number
        self.positions = torch.zeros(texts, dtype=torch.int64, device=device)
        self._flash = has_flash(device, dtype, config.head_dim)
        self._first = torch.arange(texts, device=device) * self.room  # row of each text's first token
        self._bounds = torch.arange(texts + 1, dtype=torch.int32, device=device)
        self._starts = self._bounds * self.room
        self._lengths: list[int] = []
        self._slots = self._used = self._prompt_bounds = self._first
        self._mask: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        return self._rows.nbytes

    def read_prompts(self, lengths: Sequence[int]) -> Tensor:
        """Announce a pass over prompts of these lengths, from the first token on; returns the tokens' positions (T,)."""
        self._lengths = list(lengths)
        device = self.positions.device
        positions = positions_of(lengths, device)
        counts = torch.tensor(self._lengths, device=device)
        self._slots = positions + self._first[: len(lengths)].repeat_interleave(counts, output_size=len(positions))
        self.positions[: len(lengths)].copy_(counts)
        self._prompt_bounds = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        return positions

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `stilnovo.model.attention.Attention.attend`: of the announced prompts; also stores their keys and values."""
        self._rows[layer].view(-1, 2 * self._kv, self._size).index_copy_(0, self._slots, torch.cat([k, v], 1))
        if self._flash:
            bounds, longest = self._prompt_bounds, max(self._lengths)
            return torch.ops.aten._flash_attention_forward(  # type: ignore[no-any-return]
                q, k, v, bounds, bounds, longest, longest, 0.0, True, False
            )[0]
        outs, start = [], 0
        for length in self._lengths:
            rows = slice(start, start + length)
            start = rows.stop
            outs.append(grouped_attention(q[rows], k[rows], v[rows], None, causal=True))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def begin_step(self, texts: int) -> None:
        """Compute where a step of one token of each of the first `texts` texts writes and reads; part of the step itself."""
        places = self.positions[:texts]
        self._slots = self._first[:texts] + places
        if self._flash:
            self._used = (places + 1).to(torch.int32)
            return
        seen = torch.arange(self.reach, device=places.device) <= places[:, None]
        # As numbers that are added: torch would make them of a bool mask again in every layer.
        hidden = torch.full((), -torch.inf, device=places.device, dtype=self._rows.dtype)
        self._mask = torch.zeros_like(hidden).where(seen, hidden)[:, None, None]  # (B, 1, 1, reach)

    def attend_rows(self, rows: Tensor, layer: int) -> Tensor:
        """Attention of a step: rows (B, H + 2K, D) of queries, keys and values, side by side → (B, H, D)."""
        texts, kv = len(rows), self._kv
        q, cached = rows[:, : self._heads], self._rows[layer]
        cached.view(-1, 2 * kv, self._size).index_copy_(0, self._slots, rows[:, self._heads :])
        if self._flash:
            keys, values = cached.view(-1, 2, kv, self._size).unbind(1)  # (B · S, K, D) each
            return torch.ops.aten._flash_attention_forward(  # type: ignore[no-any-return]
                q, keys, values, self._bounds[: texts + 1], self._starts[: texts + 1], 1, self.reach, 0.0, False, False,
                seqused_k=self._used,
            )[0]  # fmt: skip
        keys, values = cached[:texts, : self.reach].transpose(1, 2).chunk(2, 1)  # (B, K, reach, D) each
        grouped = q.view(texts, kv, -1, self._size)  # the G queries of one head are rows of one product
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self._mask)
        return out.reshape(texts, self._heads, self._size)

    def keep(self, texts: Sequence[int]) -> None:
        """Move these texts to the front, in their order."""
        for place, text in enumerate(texts):  # ascending: none is overwritten before it has moved
            if place != text:
                self._rows[:, place].copy_(self._rows[:, text])
                self.positions[place].copy_(self.positions[text])
