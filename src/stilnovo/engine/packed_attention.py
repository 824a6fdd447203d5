"""Attention kernels over packed documents, forward and backward; nothing crosses a document boundary.

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
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


class FlashVarlen:
    """torch's variable-length flash attention: one launch for all documents."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
        self.longest = max(lengths)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """Forward: q (T, H, D), k and v (T, K, D) → out (T, H, D), and what backward needs."""
        out, logsumexp, seed, unused, _ = _aten._flash_attention_forward(
            q, k, v, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, False
        )
        return out, (logsumexp, seed, unused)

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward: gradients of q, k and v from the gradient (T, H, D) of `out`."""
        logsumexp, seed, unused = saved
        d_q, d_k, d_v = _aten._flash_attention_backward(
            grad, q, k, v, out, logsumexp, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, seed, unused
        )
        return d_q, d_k, d_v


class PerDocument:
    """Attention one document after another: the GPU's memory-efficient kernel, or the CPU's flash kernel in query blocks.

    The CPU's kernel computes the whole square of a document up to 512 tokens though half of it is masked. So its queries
    go in blocks of `QUERIES`, each against the keys up to its own end.
    """

    QUERIES = 128

    def __init__(self, lengths: Sequence[int]) -> None:
        ends = list(accumulate(lengths))
        self.whole = [(slice(end - length, end),) * 2 for length, end in zip(lengths, ends, strict=True)]
        self.spans = [  # (queries, keys)
            (
                slice(first, min(first + self.QUERIES, span.stop)),
                slice(span.start, min(first + self.QUERIES, span.stop)),
            )
            for span, _ in self.whole
            for first in range(span.start, span.stop, self.QUERIES)
        ]
        self._masks: dict[tuple[tuple[int, int], torch.dtype], Tensor] = {}

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """See `FlashVarlen.forward`."""
        out, saved, groups, card = torch.empty_like(q), [], k.shape[1], q.device.type == "cuda"
        for rows, keys in self.whole if card else self.spans:
            part = (_by_group(q[rows], groups), *_shared(k[keys], v[keys], q.shape[1]))
            if card:
                part = tuple(t.contiguous() for t in part)
                result, *rest = _aten._scaled_dot_product_efficient_attention(*part, None, True, 0.0, True)
            else:
                mask = self._mask(rows, keys, q.dtype)
                result, *rest = _aten._scaled_dot_product_flash_attention_for_cpu(*part, 0.0, False, attn_mask=mask)
            _by_group(out[rows], groups).copy_(result)
            saved.append(rest)
        return out, saved

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `FlashVarlen.backward`."""
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        groups, card = k.shape[1], q.device.type == "cuda"
        for (rows, keys), rest in zip(self.whole if card else self.spans, saved, strict=True):
            part = (_by_group(q[rows], groups), *_shared(k[keys], v[keys], q.shape[1]))
            slope, result = _by_group(grad[rows], groups), _by_group(out[rows], groups)
            if card:
                part, every = tuple(t.contiguous() for t in part), [True, True, True, False]
                gradients = _aten._scaled_dot_product_efficient_attention_backward(
                    slope.contiguous(), *part, None, result, *rest, 0.0, every, True
                )
            elif q.dtype.itemsize == 2:
                query, key, value = part
                gradients = _block_backward(
                    slope, query, key, value, result, rest[0], self._mask(rows, keys, torch.float32)
                )
            else:
                gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    slope, *part, result, *rest, 0.0, False, attn_mask=self._mask(rows, keys, q.dtype)
                )
            _by_group(d_q[rows], groups).copy_(gradients[0])
            for whole, part in ((d_k, gradients[1]), (d_v, gradients[2])):
                # (K, G, S, D) → (S, K, D): queries that share a key add up
                whole[keys] += (part.sum(1) if part.dim() == 4 else part).transpose(0, 1)
        return d_q, d_k, d_v

    def _mask(self, rows: slice, keys: slice, dtype: torch.dtype) -> Tensor:
        """(queries, keys): 0 where a query may look, −∞ beyond it; the last query sees every key."""
        shape = (rows.stop - rows.start, keys.stop - keys.start)
        if (shape, dtype) not in self._masks:
            above = torch.ones(shape, dtype=torch.bool).triu_(shape[1] - shape[0] + 1)
            self._masks[shape, dtype] = torch.zeros(shape, dtype=dtype).masked_fill_(above, -torch.inf)
        return self._masks[shape, dtype]


def _block_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a block of queries in a 16-bit type on a CPU: q, grad, out (K, G, L, D), k and v expanded (K, G, S, D).

    The probabilities P are made again from the kept `logsumexp` (K, G, L), their scores in fp32; all other products are of the
    type. With D = rowsum(dO · O): dS = P · (dO Vᵀ − D), dQ = dS K, dK = dSᵀ Q, dV = Pᵀ dO (Dao 2023, eq. 4). The queries that
    share a key are rows of one matrix, so the gradients of k and v come out added up, (K, S, D).
    """
    groups, shared, count, width = q.shape
    scale = width**-0.5
    k, v = k[:, 0], v[:, 0]  # (K, S, D)
    rows = [x.reshape(groups, shared * count, width) for x in (grad, q, out)]
    slope, queries, result = rows
    scores = torch.bmm(queries.float().mul_(scale), k.float().transpose(1, 2))  # (K, G·L, S)
    scores.view(groups, shared, count, -1)[..., -count:].add_(mask[:, -count:])  # earlier keys are seen by all
    share = scores.sub_(logsumexp.reshape(groups, -1, 1)).exp_()
    d_v = torch.bmm(share.to(q.dtype).transpose(1, 2), slope)
    inner = (slope.float() * result.float()).sum(-1, keepdim=True)
    d_scores = torch.bmm(slope, v.transpose(1, 2)).float().sub_(inner).mul_(share).to(q.dtype)
    d_q = torch.bmm(d_scores, k).mul_(scale).view_as(q)
    d_k = torch.bmm(d_scores.transpose(1, 2), queries).mul_(scale)
    return d_q, d_k, d_v


def _by_group(x: Tensor, groups: int) -> Tensor:
    """View queries by group of shared key/value heads: (L, H, D) → (K, G, L, D)."""
    return x.view(x.shape[0], groups, -1, x.shape[2]).permute(1, 2, 0, 3)


def _shared(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Expand keys and values to the G queries that share them: (L, K, D) → (K, G, L, D), views."""
    size = (k.shape[1], heads // k.shape[1], *k.shape[::2])
    return tuple(x.transpose(0, 1).unsqueeze(1).expand(size) for x in (k, v))


Kernel = FlashVarlen | PerDocument


def kernel_for(lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest attention kernel for this device and type, for documents of these lengths."""
    half = dtype in (torch.bfloat16, torch.float16)
    able = half and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    # Shapes alone (meta): what a card would do.
    return FlashVarlen(lengths, device) if able or device.type == "meta" else PerDocument(lengths)
