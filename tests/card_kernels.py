"""The card's attention kernels, emulated on a processor: what they read by which strides, what they refuse, what they give back.

Torch's own kernels take some strides from the tensors and others for granted, and check few of them. These read memory the same
way, so that a caller who hands them another layout gets the wrong numbers here too.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

LSE_ROWS = 32  # the softmax sums of the memory-efficient kernel are padded to as many


def exact(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention in double precision: q, k, v (B, H, L, D) → out, softmax sums (B, H, L)."""
    scores = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    sums = scores.logsumexp(-1)
    return (scores - sums[..., None]).exp() @ v.double(), sums


def exact_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, sums: Tensor, inner: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v in double precision, from the softmax sums and rowsum(grad · out), (B, H, L)."""
    q, k, v, grad = (x.double() for x in (q, k, v, grad))
    scale = q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2) * scale
    scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    share = (scores - sums[..., None]).exp()
    d_scores = share * (grad @ v.transpose(-1, -2) - inner[..., None]) * scale
    return d_scores @ k, d_scores.transpose(-1, -2) @ q, share.transpose(-1, -2) @ grad


def as_read(x: Tensor, *strides: int) -> Tensor:
    """What a kernel sees that takes these strides for granted, whatever the tensor's are."""
    last = x.storage_offset() + sum((n - 1) * s for n, s in zip(x.shape, strides, strict=True))
    if last >= x.untyped_storage().nbytes() // x.element_size():
        raise AssertionError("the kernel reads beyond the tensor's memory")
    return torch.as_strided(x, x.shape, strides)


def aligned(x: Tensor) -> None:
    """What loads of 16 bytes need of (…, heads, tokens, D) or any other order: the last dimension is D."""
    assert x.stride(-1) == 1, "a head's values lie side by side"
    apart = [x.storage_offset(), *(x.stride(i) for i in range(x.dim() - 1) if x.shape[i] > 1)]
    assert all(value * x.element_size() % 16 == 0 for value in apart), "16 bytes are loaded at once"


class CardKernels:
    """Stands in for `torch.ops.aten` in `stilnovo.engine.packed_attention`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _scaled_dot_product_efficient_attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: None, sums: bool, dropout: float, causal: bool
    ) -> tuple[Tensor, ...]:
        self.calls.append("efficient forward")
        assert sums and causal and not dropout and bias is None
        assert q.shape[:2] == k.shape[:2] == v.shape[:2]
        for x in (q, k, v):
            aligned(x)
        found, lse = exact(q, k, v)
        batch, heads, tokens, size = q.shape
        out = torch.empty(batch, tokens, heads, size, dtype=q.dtype).copy_(found.transpose(1, 2))
        wide = torch.promote_types(q.dtype, torch.float32)
        padded = torch.full((batch, heads, -(-tokens // LSE_ROWS) * LSE_ROWS), torch.inf, dtype=wide)
        padded[..., :tokens] = lse
        return out.transpose(1, 2), padded, torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)

    def _scaled_dot_product_efficient_attention_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: None, out: Tensor, lse: Tensor, seed: Tensor,
        offset: Tensor, dropout: float, wanted: list[bool], causal: bool,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        self.calls.append("efficient backward")
        batch, heads, tokens, size = q.shape
        assert causal and wanted == [True, True, True, False] and bias is None and not dropout
        assert grad.shape == out.shape == q.shape == k.shape == v.shape
        assert lse.shape == (batch, heads, -(-tokens // LSE_ROWS) * LSE_ROWS) and lse.is_contiguous()
        for x in (q, k, v):
            aligned(x)
        rows = out.transpose(1, 2)  # the kernel's own order, (B, M, H, D)
        rows = as_read(rows, rows.stride(0), heads * size, rows.stride(2), 1)
        inner = (grad.double() * rows.transpose(1, 2).double()).sum(-1)
        found = exact_backward(grad, q, k, v, lse[..., :tokens].double(), inner)
        made = [torch.empty(batch, tokens, heads, size, dtype=q.dtype).copy_(x.transpose(1, 2)) for x in found]
        return (*(x.transpose(1, 2) for x in made), None)

    def _flash_attention_forward(
        self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, second: Tensor, longest: int, other: int, dropout: float,
        causal: bool, debug: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        self.calls.append("flash forward")
        spans = self._flash(q, k, v, first, second, longest, other)
        assert causal and not dropout and not debug
        out, lse = torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[1], len(q))
        for rows in spans:
            found, sums = exact(*_repeated(q[rows], k[rows], v[rows]))
            out[rows], lse[:, rows] = found[0].transpose(0, 1).to(q.dtype), sums[0].float()
        empty = torch.zeros((), dtype=torch.uint64)
        return out, lse, torch.zeros(2, dtype=torch.uint64), empty, empty

    def _flash_attention_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, first: Tensor, second: Tensor,
        longest: int, other: int, dropout: float, causal: bool, state: Tensor, unused: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        self.calls.append("flash backward")
        spans = self._flash(q, k, v, first, second, longest, other)
        assert state.shape == (2,) and lse.shape == (q.shape[1], len(q)) and lse.dtype == torch.float32
        assert causal and not dropout and grad.dtype == out.dtype == q.dtype
        made = [torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v)]
        for rows in spans:
            slope, result = (x[rows].transpose(0, 1)[None] for x in (grad, out))
            inner = (slope.double() * result.double()).sum(-1)
            found = exact_backward(slope, *_repeated(q[rows], k[rows], v[rows]), lse[None, :, rows].double(), inner)
            for whole, part in zip(made, found, strict=True):
                heads = part[0].unflatten(0, (whole.shape[1], -1)).sum(1)
                whole[rows] = heads.transpose(0, 1).to(whole.dtype)
        return tuple(made)

    @staticmethod
    def _flash(q: Tensor, k: Tensor, v: Tensor, first: Tensor, second: Tensor, longest: int, other: int) -> list[slice]:
        """Check what the kernel's wrapper checks, and what it does not; returns the documents."""
        assert q.dtype in (torch.float16, torch.bfloat16) and q.dtype == k.dtype == v.dtype
        assert q.shape[2] % 8 == 0 and q.shape[2] <= 256 and q.shape[1] % k.shape[1] == 0 and k.shape == v.shape
        for x in (q, k, v):
            aligned(x)
        assert first.dtype == second.dtype == torch.int32 and first.is_contiguous() and torch.equal(first, second)
        ends = first.tolist()
        assert ends[0] == 0 and ends[-1] == len(q) and ends == sorted(ends)
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        assert longest == other == max(s.stop - s.start for s in spans)
        return spans


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    return tuple(x.transpose(0, 1)[None] for x in (q, k, v))


def pretend_card(monkeypatch: Any, *, flash: bool) -> CardKernels:
    """Make the engine compute on this processor as it would on a card, with these kernels."""
    from stilnovo.engine import packed_attention, stack

    kernels = CardKernels()
    monkeypatch.setattr(packed_attention, "_aten", kernels)
    make = packed_attention.FlashVarlen if flash else lambda lengths, _: packed_attention.PerDocument(lengths)
    monkeypatch.setattr(stack, "kernel_for", lambda lengths, device, _dtype, _size: make(lengths, device))
    return kernels
