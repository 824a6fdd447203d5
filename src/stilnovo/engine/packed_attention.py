"""Attention kernels over packed documents, forward and backward; nothing crosses a document boundary.

Backward is called explicitly by `blocks.py`, one group of heads at a time where memory counts, so each kernel here is a
pair of functions and not an autograd node. Unusual:
- `FlashVarlen` is torch's own variable-length flash attention (`aten._flash_attention_forward`, Dao 2023): no padding,
  no mask, no external wheel; bf16 or fp16 on Ampere and later.
- `PerDocument` loops over documents for everything else: the CPU's flash kernel in any float type, and on older cards
  (Turing: no bf16, no flash) or in fp32 torch's memory-efficient kernel (Rabe & Staats 2021).
- On a CPU grouped queries are never repeated in memory: the key/value head is the batch, its queries share an expanded view.
- The kernels are called below torch's own checks, so what each expects of its operands is written and asserted here: one that is
  handed another layout reads other numbers and says nothing.

Shape letters: T tokens in the stream, H query heads, K key/value heads, G = H / K, D head size, L tokens of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

VECTOR_BYTES = 16  # what the card's kernels load at once: a head's first value must be aligned to it
FLASH_HEAD = 256  # the widest head of the flash kernel
FLASH_BACKWARD_HEAD = 192  # and of its backward, but on the data centre's cards (8.0, 9.0, 10.0)


class FlashVarlen:
    """torch's variable-length flash attention: one launch for all documents.

    What `aten._flash_attention_forward` and `_backward` read: q, k and v (T, heads, D) of one 16-bit type, D a multiple of 8 and at
    most `FLASH_HEAD`, with any strides between tokens and heads that keep a head's values side by side and aligned
    (`_readable`); H a multiple of K; bounds in int32, on the card, from 0 to T. `out` and its gradient are made contiguous by
    torch before the backward kernel sees them; softmax sums are those of the forward call, fp32 (H, T).
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
        self.longest = max(lengths)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """Forward: q (T, H, D), k and v (T, K, D) → out (T, H, D), and what backward needs."""
        self._check(q, k, v)
        out, logsumexp, seed, unused, _ = _aten._flash_attention_forward(
            q, k, v, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, False
        )
        return out, (logsumexp, seed, unused)

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward: gradients of q, k and v from the gradient (T, H, D) of `out`."""
        logsumexp, seed, unused = saved
        self._check(q, k, v)
        assert (
            grad.dtype == out.dtype == q.dtype
            and logsumexp.dtype == torch.float32
            and out.shape == q.shape == grad.shape
        )
        d_q, d_k, d_v = _aten._flash_attention_backward(
            grad, q, k, v, out, logsumexp, self.bounds, self.bounds, self.longest, self.longest, 0.0, True, seed, unused
        )
        return d_q, d_k, d_v

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """The kernel's contract; see the class."""
        assert self.bounds.dtype == torch.int32 and self.bounds.is_contiguous()
        assert q.dtype in (torch.float16, torch.bfloat16) and q.shape[2] <= FLASH_HEAD and q.shape[1] % k.shape[1] == 0
        assert all(x.dtype == q.dtype and _readable(x) for x in (q, k, v))


class PerDocument:
    """Attention one document after another: the GPU's memory-efficient kernel, or the CPU's flash kernel in query blocks.

    What `aten._scaled_dot_product_efficient_attention` and its backward read, each operand as (1, H, L, D): q, k and v of one
    type, each with H heads, as `_readable` says. **`out`'s rows must lie H × D values apart**, which is what its own forward
    gives and what no check of torch's looks at: the half-precision backward takes the stride between tokens as known
    (`o_strideM`), all others from the tensor. `logsumexp` is the forward's own (1, H, L rounded up to 32); the gradient of `out` is
    made contiguous by torch; gradients come back with rows H × D apart. So the heads of all groups go together, with keys and
    values repeated for the queries that share them.

    What the CPU's kernels read: operands (K, G, L, D) with D side by side and any other strides, a mask of their type.

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
        out, saved, groups = torch.empty(q.shape, dtype=q.dtype, device=q.device), [], k.shape[1]
        if _on_card(q):
            for rows, _ in self.whole:
                part = _whole_heads(q[rows], k[rows], v[rows])
                result, *rest = _aten._scaled_dot_product_efficient_attention(*part, None, True, 0.0, True)
                out[rows] = result[0].transpose(0, 1)
                saved.append(rest)
            return out, saved
        for rows, keys in self.spans:
            part = (_by_group(q[rows], groups), *_shared(k[keys], v[keys], q.shape[1]))
            mask = self._mask(rows, keys, q.dtype)
            result, *rest = _aten._scaled_dot_product_flash_attention_for_cpu(*part, 0.0, False, attn_mask=mask)
            _by_group(out[rows], groups).copy_(result)
            saved.append(rest)
        return out, saved

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `FlashVarlen.backward`."""
        d_q, d_k, d_v = (
            torch.empty(q.shape, dtype=q.dtype, device=q.device),
            *(k.new_zeros(k.shape) for _ in range(2)),
        )
        groups = k.shape[1]
        if _on_card(q):
            for (rows, _), rest in zip(self.whole, saved, strict=True):
                parts = self._card_backward(grad[rows], q[rows], k[rows], v[rows], out[rows], rest)
                for whole, found in zip((d_q, d_k, d_v), parts, strict=True):
                    whole[rows] = found
            return d_q, d_k, d_v
        for (rows, keys), rest in zip(self.spans, saved, strict=True):
            part = (_by_group(q[rows], groups), *_shared(k[keys], v[keys], q.shape[1]))
            slope, result = _by_group(grad[rows], groups), _by_group(out[rows], groups)
            if q.dtype.itemsize == 2:
                query, key, value = part
                gradients = _block_backward(
                    slope, query, key, value, result, rest[0], self._mask(rows, keys, torch.float32)
                )
            else:
                gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    slope, *part, result, *rest, 0.0, False, attn_mask=self._mask(rows, keys, q.dtype)
                )
            _by_group(d_q[rows], groups).copy_(gradients[0])
            for whole, found in ((d_k, gradients[1]), (d_v, gradients[2])):
                # (K, G, S, D) → (S, K, D): queries that share a key add up
                whole[keys] += (found.sum(1) if found.dim() == 4 else found).transpose(0, 1)
        return d_q, d_k, d_v

    def _card_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of one document by the memory-efficient kernel: all (L, heads, D); see the class for what it reads."""
        slope, result = (x.contiguous().transpose(0, 1)[None] for x in (grad, out))  # rows H × D apart
        d_q, *shared, _ = _aten._scaled_dot_product_efficient_attention_backward(
            slope, *_whole_heads(q, k, v), None, result, *saved, 0.0, [True, True, True, False], True
        )
        # (1, H, L, D) → (L, K, D): queries that share a key add up, in fp32 and rounded once
        wide = torch.promote_types(k.dtype, torch.float32)
        d_k, d_v = (x[0].unflatten(0, (k.shape[1], -1)).sum(1, dtype=wide).to(k.dtype).transpose(0, 1) for x in shared)
        return d_q[0].transpose(0, 1), d_k, d_v

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


def _on_card(q: Tensor) -> bool:
    return q.device.type == "cuda"


def _whole_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """One document's operands for the card's kernel, (1, H, L, D): queries as they lie, keys and values once for each query head."""
    heads = (len(q), k.shape[1], q.shape[1] // k.shape[1], q.shape[2])
    parts = (q, *(x.unsqueeze(2).expand(heads).reshape(q.shape) for x in (k, v)))
    assert all(x.dtype == q.dtype and _readable(x) for x in parts)
    return tuple(x.transpose(0, 1)[None] for x in parts)


def _readable(x: Tensor) -> bool:
    """Whether a card's kernel can read (tokens, heads, D): a head's values side by side, and each head aligned to `VECTOR_BYTES`."""
    apart = (x.shape[2], x.storage_offset(), *(x.stride(i) for i in range(2) if x.shape[i] > 1))
    return x.stride(2) == 1 and all(values * x.element_size() % VECTOR_BYTES == 0 for values in apart)


def _shared(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Expand keys and values to the G queries that share them: (L, K, D) → (K, G, L, D), views."""
    size = (k.shape[1], heads // k.shape[1], *k.shape[::2])
    return tuple(x.transpose(0, 1).unsqueeze(1).expand(size) for x in (k, v))


Kernel = FlashVarlen | PerDocument


def kernel_for(lengths: Sequence[int], device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel:
    """The fastest attention kernel for this device and type, for documents of these lengths and heads of this size."""
    if device.type == "meta":  # shapes alone: what a card would do
        return FlashVarlen(lengths, device)
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return PerDocument(lengths)
    generation = torch.cuda.get_device_capability(device)
    widest = FLASH_HEAD if generation in ((8, 0), (9, 0), (10, 0)) else FLASH_BACKWARD_HEAD
    return FlashVarlen(lengths, device) if generation >= (8, 0) and head_dim <= widest else PerDocument(lengths)
