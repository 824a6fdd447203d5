"""Attention over packed documents on a processor, forward and backward, in blocks of queries.

A block of queries of one document sees the keys up to its own end, so half of the square is never computed. The queries that
share a key are rows of one matrix: products are few and large, and the gradients of keys and values come out added up.
Scores stay in the processor's cache: a block is computed for as many key/value heads at once as keep them there.

Unusual: nothing but the output is kept for backward, where the softmax is computed again by the same steps. Scores are fp32
in every type, the other products of the type. In fp64, and under `STILNOVO_CPU=fp32`, torch's flash kernel computes instead:
its sums are the reference.

Shape letters: T tokens of the stream, H query heads, K key/value heads, G = H / K, D head size; L queries of a block and S keys
that they see; B key/value heads at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from stilnovo.engine.matmul import batched_matmul
from stilnovo.model.processor import onednn_products

_aten = torch.ops.aten
_CACHED = 2**18  # scores at once: 1 MiB in fp32


class QueryBlocks:
    """Attention in blocks of `QUERIES` queries, each against the keys up to its own end."""

    QUERIES = 128

    def __init__(self, lengths: Sequence[int]) -> None:
        ends = accumulate(lengths)
        self.documents = [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]
        self._masks: dict[tuple[int, int, torch.dtype], Tensor] = {}

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """Forward: q (T, H, D), k and v (T, K, D) → out (T, H, D), and what backward needs."""
        if _by_flash(q):
            return self._flash_forward(q, k, v)
        out, shared = q.new_empty(q.shape), q.shape[1] // k.shape[1]
        for document in self.documents:
            for heads in _head_batches(document, k.shape[1], shared, self.QUERIES):
                keys, values = (_by_head(x, document, heads) for x in (k, v))
                wide = keys.float()
                for rows, seen in self._blocks(document):
                    queries = _by_head(q, rows, heads, shared)
                    share = self._share(queries, wide[:, seen], rows).to(q.dtype)
                    _put(out, rows, heads, shared, batched_matmul(share, values[:, seen]))
        return out, []

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Backward: gradients of q, k and v from the gradient (T, H, D) of `out`.

        With P the softmax and D = rowsum(dO · O): dS = P · (dO Vᵀ − D), dQ = dS K, dK = dSᵀ Q, dV = Pᵀ dO (Dao 2023, eq. 4).
        """
        if _by_flash(q):
            return self._flash_backward(grad, q, k, v, out, saved)
        d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
        shared, scale = q.shape[1] // k.shape[1], q.shape[2] ** -0.5
        for document in self.documents:
            for heads in _head_batches(document, k.shape[1], shared, self.QUERIES):
                keys, values = (_by_head(x, document, heads) for x in (k, v))
                wide = keys.float()
                sums = wide.new_zeros(2, *wide.shape)  # of dK and dV, rounded once
                for rows, seen in self._blocks(document):
                    queries, slope, result = (_by_head(x, rows, heads, shared) for x in (q, grad, out))
                    share = self._share(queries, wide[:, seen], rows)
                    inner = (slope.float() * result.float()).sum(-1, keepdim=True)
                    slopes = batched_matmul(slope, values[:, seen].transpose(1, 2)).float()
                    slopes = slopes.sub_(inner).mul_(share).to(q.dtype)
                    sums[1][:, seen] += batched_matmul(share.to(q.dtype).transpose(1, 2), slope)
                    sums[0][:, seen] += batched_matmul(slopes.transpose(1, 2), queries)
                    _put(d_q, rows, heads, shared, batched_matmul(slopes, keys[:, seen]).mul_(scale))
                d_k[document, heads] = sums[0].mul_(scale).transpose(0, 1)
                d_v[document, heads] = sums[1].transpose(0, 1)
        return d_q, d_k, d_v

    def _blocks(self, document: slice) -> Iterator[tuple[slice, slice]]:
        """(queries in the stream, keys in the document) of each block."""
        for first in range(document.start, document.stop, self.QUERIES):
            last = min(first + self.QUERIES, document.stop)
            yield slice(first, last), slice(0, last - document.start)

    def _share(self, queries: Tensor, keys: Tensor, rows: slice) -> Tensor:
        """Softmax of the scores of queries (B, L·G, D) over fp32 keys (B, S, D), (B, L·G, S) in fp32."""
        count = rows.stop - rows.start
        scores = batched_matmul(queries.float() * queries.shape[2] ** -0.5, keys.transpose(1, 2))
        # Earlier keys are seen by all.
        scores.view(len(scores), count, -1, scores.shape[2])[..., -count:] += self._mask(count, count)[:, None]
        return torch.softmax(scores, -1)

    def _flash_forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        out, saved, groups = q.new_empty(q.shape), [], k.shape[1]
        for rows, keys in self._spans():
            part = (_by_group(q[rows], groups), *_expanded(k[keys], v[keys], q.shape[1]))
            mask = self._mask(rows.stop - rows.start, keys.stop - keys.start, q.dtype)
            result, *rest = _aten._scaled_dot_product_flash_attention_for_cpu(*part, 0.0, False, attn_mask=mask)
            _by_group(out[rows], groups).copy_(result)
            saved.append(rest)
        return out, saved

    def _flash_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        d_q, d_k, d_v = q.new_empty(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
        groups = k.shape[1]
        for (rows, keys), rest in zip(self._spans(), saved, strict=True):
            part = (_by_group(q[rows], groups), *_expanded(k[keys], v[keys], q.shape[1]))
            slope, result = _by_group(grad[rows], groups), _by_group(out[rows], groups)
            mask = self._mask(rows.stop - rows.start, keys.stop - keys.start, q.dtype)
            gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                slope, *part, result, *rest, 0.0, False, attn_mask=mask
            )
            _by_group(d_q[rows], groups).copy_(gradients[0])
            for whole, found in ((d_k, gradients[1]), (d_v, gradients[2])):
                whole[keys] += found.sum(1).transpose(0, 1)  # (K, G, S, D) → (S, K, D): queries that share a key add up
        return d_q, d_k, d_v

    def _spans(self) -> list[tuple[slice, slice]]:
        """(queries, keys) of each block, in the stream."""
        return [
            (rows, slice(document.start, rows.stop))
            for document in self.documents
            for rows, _ in self._blocks(document)
        ]

    def _mask(self, queries: int, keys: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(queries, keys): 0 where a query may look, −∞ beyond it; the last query sees every key."""
        if (queries, keys, dtype) not in self._masks:
            above = torch.ones(queries, keys, dtype=torch.bool).triu_(keys - queries + 1)
            self._masks[queries, keys, dtype] = torch.zeros(queries, keys, dtype=dtype).masked_fill_(above, -torch.inf)
        return self._masks[queries, keys, dtype]


def _by_flash(q: Tensor) -> bool:
    return q.dtype == torch.float64 or (q.dtype == torch.float32 and not onednn_products())


def _head_batches(document: slice, groups: int, shared: int, most: int) -> Iterator[slice]:
    """Slices of the key/value heads, as many at once as keep the scores of a block of the document in the cache."""
    tokens = document.stop - document.start
    step = max(1, _CACHED // (shared * min(tokens, most) * tokens))
    return (slice(start, min(start + step, groups)) for start in range(0, groups, step))


def _by_head(x: Tensor, rows: slice, heads: slice, shared: int = 1) -> Tensor:
    """Copy some rows of some key/value heads out of (T, heads, D), or of the queries that share them: (B, rows · shared, D)."""
    part = _grouped(x[rows], shared)[:, heads]  # (rows, B, shared, D)
    return part.transpose(0, 1).reshape(part.shape[1], -1, part.shape[3])


def _put(whole: Tensor, rows: slice, heads: slice, shared: int, part: Tensor) -> None:
    """Put (B, L·G, D) in its place in (T, H, D)."""
    _grouped(whole[rows], shared)[:, heads].copy_(part.view(len(part), -1, shared, part.shape[2]).transpose(0, 1))


def _grouped(x: Tensor, shared: int) -> Tensor:
    """View (L, H, D) as (L, K, shared, D)."""
    return x.view(x.shape[0], -1, shared, x.shape[2])


def _by_group(x: Tensor, groups: int) -> Tensor:
    """View queries by group of shared key/value heads: (L, H, D) → (K, G, L, D)."""
    return x.view(x.shape[0], groups, -1, x.shape[2]).permute(1, 2, 0, 3)


def _expanded(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Expand keys and values to the G queries that share them: (L, K, D) → (K, G, L, D), views."""
    size = (k.shape[1], heads // k.shape[1], *k.shape[::2])
    return tuple(x.transpose(0, 1).unsqueeze(1).expand(size) for x in (k, v))
