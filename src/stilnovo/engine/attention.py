"""Attention over packed documents, forward and backward, on whatever the machine has; nothing crosses a document.

Backward is called explicitly by `blocks.py`, one group of heads at a time where memory counts, so each kernel here is a
pair of functions and not an autograd node. Unusual:
- `FlashVarlen` is torch's own variable-length flash attention (`aten._flash_attention_forward`, Dao 2023): no padding,
  no mask, no external wheel; bf16 or fp16 on Ampere and later.
- `PerDocument` loops over documents for everything else: the CPU's flash kernel in any float type, and on older cards
  (Turing: no bf16, no flash) or in fp32 torch's memory-efficient kernel (Rabe & Staats 2021).
- Grouped queries are never repeated in memory: the key/value head is the batch, its queries share an expanded view.

Shape letters: T tokens in the stream, H query heads, K key/value heads, G = H / K, D head size, L tokens of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

_aten = torch.ops.aten


class Kernel(Protocol):
    """Causal attention inside each document of a stream."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """q (T, H, D), k and v (T, K, D) → out (T, H, D), and what backward needs beside it."""
        ...

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, kept: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v, from the gradient (T, H, D) of `out`."""
        ...


class FlashVarlen:
    """torch's variable-length flash attention: one launch for all documents."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        self.bounds = ends.to(device)
        self.longest = max(lengths)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """See `Kernel.forward`."""
        out, logsumexp, seed, unused, _ = _aten._flash_attention_forward(
            q, k, v, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, False
        )
        return out, (logsumexp, seed, unused)

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, kept: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel.backward`."""
        logsumexp, seed, unused = kept
        d_q, d_k, d_v = _aten._flash_attention_backward(
            grad, q, k, v, out, logsumexp, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, seed, unused
        )
        return d_q, d_k, d_v


class PerDocument:
    """One document after another, with the CPU's flash kernel or the card's memory-efficient one."""

    def __init__(self, lengths: Sequence[int]) -> None:
        starts = [sum(lengths[:index]) for index in range(len(lengths))]
        self.spans = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """See `Kernel.forward`."""
        out, kept, groups = torch.empty_like(q), [], k.shape[1]
        for span in self.spans:
            part = (_by_group(q[span], groups), _shared(k[span], q.shape[1]), _shared(v[span], q.shape[1]))
            if q.device.type == "cuda":
                found, *rest = _aten._scaled_dot_product_efficient_attention(
                    *(t.contiguous() for t in part), None, True, 0.0, True
                )
            else:
                found, *rest = _aten._scaled_dot_product_flash_attention_for_cpu(*part, 0.0, True)
            _by_group(out[span], groups).copy_(found)
            kept.append(rest)
        return out, kept

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, kept: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel.backward`."""
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        groups, heads = k.shape[1], q.shape[1]
        for span, rest in zip(self.spans, kept, strict=True):
            part = (_by_group(q[span], groups), _shared(k[span], heads), _shared(v[span], heads))
            result, slope = _by_group(out[span], groups), _by_group(grad[span], groups)
            if q.device.type == "cuda":
                whole = tuple(t.contiguous() for t in part)
                found = _aten._scaled_dot_product_efficient_attention_backward(
                    slope.contiguous(), *whole, None, result, *rest, 0.0, [True, True, True, False], True
                )[:3]
            else:
                found = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    slope, *part, result, rest[0], 0.0, True
                )
            _by_group(d_q[span], groups).copy_(found[0])
            d_k[span] = found[1].sum(1).transpose(0, 1)  # its queries share a key: their gradients add up
            d_v[span] = found[2].sum(1).transpose(0, 1)
        return d_q, d_k, d_v


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(L, H, D) → (K, G, L, D), a view."""
    return x.unflatten(1, (groups, -1)).permute(1, 2, 0, 3)


def _shared(x: Tensor, heads: int) -> Tensor:
    """(L, K, D) → (K, G, L, D), a view in which the G queries share their key."""
    groups = x.shape[1]
    return x.transpose(0, 1).unsqueeze(1).expand(groups, heads // groups, x.shape[0], x.shape[2])


def kernel_for(lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel that this device has for this type; documents of the given lengths, one after another."""
    if device.type == "meta":  # shapes alone: what a card would do
        return FlashVarlen(lengths, device)
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return FlashVarlen(lengths, device)
    return PerDocument(lengths)
