"""Cross-entropy without materialising the logits: chunks of tokens against tiles of the vocabulary, gradients included.

Because the head is frozen and each loss depends on its own row alone, the gradient of every row with respect to its
hidden state is computed in the forward pass; backward only scales the rows. So any function of the losses may follow: a
sum, or the log-probabilities of whole answers (`stilnovo.train.preference`).

A tile is visited once: while it is here its logits enter a running softmax (Milakov & Gimelshein 2018), and the gradient
Σ p_j w_j − w_target is accumulated with the same rescaling. So a chunk costs two products with the head a token, the
floor, and its memory is (chunk × tile) logits, whatever the vocabulary.

Shape letters: T tokens, R of a chunk, V vocabulary, W rows of a tile, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.engine.blocks import tiles
from stilnovo.engine.head import Head


class _Known(Function):
    """A value with its gradient: element i of what comes back in backward scales row i (a single one: all rows)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype)[..., None], None, None


def by_chunks(
    hidden: Tensor, chunk: int, total: Tensor, step: Callable[[slice, Tensor, Tensor | None], None]
) -> Tensor:
    """`total`, filled by `step` for every chunk of rows, with a gradient for `hidden` where one is wanted.

    Args:
        hidden: (T, C) hidden states.
        chunk: Rows of a chunk.
        total: What the steps write or add to: one element, or one a row.
        step: Called with the rows of a chunk, `total` and the place of their gradient, zeros (None: not wanted).
    """
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    with torch.no_grad():
        gradient = torch.zeros_like(hidden) if wanted else None
        for rows in tiles(hidden.shape[0], chunk):
            step(rows, total, None if gradient is None else gradient[rows])
    return total if gradient is None else _Known.apply(hidden, total, gradient)  # type: ignore[no-untyped-call]


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """fp32, or the type itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)


def _chunk(hidden: Tensor, head: Head, targets: Tensor, out: Tensor | None) -> Tensor:
    """Losses (R,) of a chunk (R, C); their gradients go into `out`."""
    wide, count = wide_type(hidden.dtype), hidden.shape[0]
    peak = torch.full((count, 1), -torch.inf, dtype=wide, device=hidden.device)
    mass, picked = torch.zeros_like(peak), torch.zeros_like(peak)
    mean = own = None
    for tile in head.tiles():
        logits = F.linear(hidden, tile.weight).to(wide)  # (R, W)
        local = (targets - tile.start).clamp_(0, tile.stop - tile.start - 1)[:, None]
        inside = ((targets >= tile.start) & (targets < tile.stop))[:, None]
        picked += torch.where(inside, logits.gather(1, local), 0.0)
        higher = torch.maximum(peak, logits.amax(1, keepdim=True))
        shrink = (peak - higher).exp_()
        logits.sub_(higher).exp_()
        mass.mul_(shrink).add_(logits.sum(1, keepdim=True))
        peak = higher
        if out is not None:
            part = logits.to(hidden.dtype) @ tile.weight  # (R, C)
            mean = part.to(wide) if mean is None else mean.mul_(shrink).add_(part)
            del part
            row = F.embedding(local[:, 0], tile.weight)
            own = row if own is None else torch.where(inside, row, own)
            del row
        del logits
    if out is not None:
        assert mean is not None and own is not None
        out.copy_(mean.div_(mass).sub_(own))  # Σ p w − w_target
    return mass.log_().add_(peak).sub_(picked)[:, 0]


def tiled_losses(hidden: Tensor, head: Head, targets: Tensor, chunk: int) -> Tensor:
    """−log p(target) of every row in nats, (T,), in fp32 or wider.

    Args:
        hidden: (T, C) final hidden states.
        head: The frozen output head.
        targets: (T,) int64.
        chunk: Tokens whose logits exist at once.
    """

    def step(rows: slice, losses: Tensor, gradient: Tensor | None) -> None:
        losses[rows] = _chunk(hidden[rows], head, targets[rows], gradient)

    losses = torch.empty(hidden.shape[0], dtype=wide_type(hidden.dtype), device=hidden.device)
    return by_chunks(hidden, chunk, losses, step)
