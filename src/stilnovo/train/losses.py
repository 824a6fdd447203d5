"""Chunked cross-entropy for torch's autograd: logits of a chunk of rows at a time, gradients included.

At a vocabulary of 128,256 one row of fp32 logits is 513 kB, and plain autograd keeps four copies of it. Here the forward
pass computes each chunk's losses and, because the head is frozen and a loss depends on its own row alone, their gradients
with respect to the hidden states at once; backward only scales the rows. The arithmetic is the floor: two products with
the head a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.engine.loss import by_chunks


def chunked_losses(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """−log p(target) of every row in nats, (T,).

    Args:
        hidden: (T, C) final hidden states; head: (V, C), frozen; targets: (T,) int64.
        chunk: Rows of logits that exist at once.
    """

    def step(rows: slice, losses: Tensor, gradient: Tensor | None) -> None:
        logits = F.linear(hidden[rows], head).float()  # (R, V)
        norm = torch.logsumexp(logits, dim=-1, keepdim=True)
        picked = targets[rows, None]
        losses[rows] = (norm - logits.gather(1, picked))[:, 0]
        if gradient is not None:
            # ∂ Σ(logsumexp − picked logit) / ∂ logits = softmax − one-hot
            logits.sub_(norm).exp_()
            logits.scatter_add_(1, picked, logits.new_full(picked.shape, -1.0))
            gradient.copy_(logits.to(head.dtype) @ head)

    losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
    return by_chunks(hidden, chunk, losses, step)
