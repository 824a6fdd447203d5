"""Attention over one flat stream of tokens in which nothing crosses the boundary of a document.

Shape letters: T tokens in the stream, H query heads, K key/value heads (H a multiple of K), D head size.

Every use of the model is such a stream. Training packs documents (`Blocks`). Scoring packs questions, trees of several
endings over one shared context (`stilnovo.model.forest`). Generation keeps keys and values (`stilnovo.generate.kv_cache`).
The model itself knows only the interface.

Unusual: documents are attended one by one with torch's own scaled_dot_product_attention. No padding is computed and no
T × T mask exists, so cost and memory follow the documents, not the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """Interface of attention over a stream of tokens; `layer` lets a cache find its own keys."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """Attention output: q (T, H, D), k and v (T, K, D) → (T, H, D)."""


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


def has_flash(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether torch's flash attention computes heads of this size there; on shapes alone (meta) what a newer card would do."""
    fits = dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and size <= 256
    return fits and (
        device.type == "meta" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0))
    )


class Blocks:
    """Causal attention inside consecutive documents of the given lengths."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.spans = [slice(stop - length, stop) for length, stop in zip(lengths, accumulate(lengths), strict=True)]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """See `Attention.attend`; the layer does not matter here."""
        assert q.shape[0] == self.spans[-1].stop, "the stream has as many tokens as the documents"
        outs = [grouped_attention(q[span], k[span], v[span], None, causal=True) for span in self.spans]
        return outs[0] if len(outs) == 1 else torch.cat(outs)


def positions_of(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Positions 0 … n-1 for each document in turn, (T,) int64."""
    return torch.cat([torch.arange(length, device=device) for length in lengths])
