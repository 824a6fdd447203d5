"""Attention kernels over packed documents, forward and backward; nothing crosses a document boundary.

Backward is called explicitly by `blocks.py`, one group of heads at a time where memory counts, so each kernel here is a
pair of functions and not an autograd node. Unusual:
- `FlashVarlen` is torch's own variable-length flash attention (`aten._flash_attention_forward`, Dao 2023): no padding,
  no mask, no external wheel; bf16 or fp16 on Ampere and later.
- `PerDocument` loops over documents on older cards (Turing: no bf16, no flash) or in fp32, by torch's memory-efficient kernel
  (Rabe & Staats 2021).
- `query_blocks.QueryBlocks` is a processor's.
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

from stilnovo.engine.query_blocks import QueryBlocks
from stilnovo.errors import InputError
from stilnovo.model.attention import has_flash

_aten = torch.ops.aten

VECTOR_BYTES = 16  # what the card's kernels load at once: a head's first value must be aligned to it
FLASH_BACKWARD_HEAD = (
    192  # the widest head of the flash kernel's backward, but on the data centre's cards (8.0, 9.0, 10.0): 256
)


class FlashVarlen:
    """torch's variable-length flash attention: one launch for all documents.

    What `aten._flash_attention_forward` and `_backward` read: q, k and v (T, heads, D) of one 16-bit type, D a multiple of 8 and at
    most 256 (`has_flash`), with any strides between tokens and heads that keep a head's values side by side and aligned
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
        assert q.dtype in (torch.float16, torch.bfloat16) and q.shape[2] <= 256 and q.shape[1] % k.shape[1] == 0
        assert all(x.dtype == q.dtype and _readable(x) for x in (q, k, v))


class PerDocument:
    """Attention one document after another by a card's memory-efficient kernel.

    What `aten._scaled_dot_product_efficient_attention` and its backward read, each operand as (1, H, L, D): q, k and v of one
    type, each with H heads, as `_readable` says. **`out`'s rows must lie H × D values apart**, which is what its own forward
    gives and what no check of torch's looks at: the half-precision backward takes the stride between tokens as known
    (`o_strideM`), all others from the tensor. `logsumexp` is the forward's own (1, H, L rounded up to 32); the gradient of `out` is
    made contiguous by torch; gradients come back with rows H × D apart. So the heads of all groups go together, with keys and
    values repeated for the queries that share them.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        ends = accumulate(lengths)
        self.documents = [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """See `FlashVarlen.forward`."""
        out, saved = torch.empty(q.shape, dtype=q.dtype, device=q.device), []
        for rows in self.documents:
            part = _whole_heads(q[rows], k[rows], v[rows])
            result, *rest = _aten._scaled_dot_product_efficient_attention(*part, None, True, 0.0, True)
            out[rows] = result[0].transpose(0, 1)
            saved.append(rest)
        return out, saved

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, saved: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `FlashVarlen.backward`."""
        gradients = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        for rows, rest in zip(self.documents, saved, strict=True):
            parts = self._document_backward(grad[rows], q[rows], k[rows], v[rows], out[rows], rest)
            for whole, found in zip(gradients, parts, strict=True):
                whole[rows] = found
        return gradients  # type: ignore[return-value]

    def _document_backward(
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


Kernel = FlashVarlen | PerDocument | QueryBlocks


def kernel_for(lengths: Sequence[int], device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel:
    """The fastest attention kernel for this device and type, for documents of these lengths and heads of this size.

    Raises:
        InputError: for heads that no kernel of a card reads.
    """
    if device.type == "meta":  # shapes alone: what a card would do
        return FlashVarlen(lengths, device)
    if device.type == "cpu":
        return QueryBlocks(lengths)
    if head_dim * dtype.itemsize % VECTOR_BYTES:
        raise InputError(
            f"A model with heads of {head_dim} values cannot be trained on a card.",
            f"Its kernels read {VECTOR_BYTES // dtype.itemsize} values of a head at once.",
            "Train it on the processor: --set model.device=cpu",
        )
    flash = has_flash(device, dtype, head_dim)
    if flash and head_dim > FLASH_BACKWARD_HEAD:
        flash = torch.cuda.get_device_capability(device) in ((8, 0), (9, 0), (10, 0))
    return FlashVarlen(lengths, device) if flash else PerDocument(lengths)
