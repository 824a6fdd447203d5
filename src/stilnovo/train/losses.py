"""Cross-entropy that never holds all logits: a chunk of rows at a time, gradients included.

At a vocabulary of 128,256 one row of fp32 logits is 513 kB, and plain autograd keeps four copies of it. Here the forward
pass computes each chunk's losses and, because the head is frozen and a loss depends on its own row alone, their gradients
with respect to the hidden states at once; backward only scales the rows. The arithmetic is the floor: two products with
the head a token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class _ChunkedLosses(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            logits = F.linear(hidden[rows], head).float()  # (R, V)
            norm = torch.logsumexp(logits, dim=-1, keepdim=True)
            picked = targets[rows, None]
            losses[rows] = (norm - logits.gather(1, picked))[:, 0]
            if gradient is not None:
                # ∂ Σ(logsumexp − picked logit) / ∂ logits = softmax − one-hot
                logits.sub_(norm).exp_()
                logits.scatter_add_(1, picked, logits.new_full(picked.shape, -1.0))
                gradient[rows] = logits.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype)[:, None], None, None, None


def chunked_losses(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """−log p(target) of every row in nats, (T,).

    Args:
        hidden: (T, C) final hidden states; head: (V, C), frozen; targets: (T,) int64.
        chunk: Rows of logits that exist at once.
    """
    return _ChunkedLosses.apply(hidden, head, targets, chunk)  # type: ignore[no-untyped-call, no-any-return]
