"""KL(base ‖ model) per token without materialising the logits: chunks of tokens against tiles of the vocabulary.

The base is the model with its adapter off, so the teacher costs one more forward pass and no memory. As in `loss.py` the
head is frozen and the result a sum, so the gradient with respect to the student's hidden states is made in the forward
pass: ∂ Σ_j p_j (log p_j − log q_j) / ∂ logits_q = q − p, with p the base's and q the model's probabilities.

Both normalisers must be known before p and q are; a head of one tile keeps its logits meanwhile, one of many is visited
twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.engine.head import Head
from stilnovo.engine.loss import by_chunks, wide_type


def _chunk(student: Tensor, teacher: Tensor, head: Head, out: Tensor | None, wide: torch.dtype) -> Tensor:
    """Summed divergence of a chunk (R, C); its gradient is added to `out`."""
    pairs = list(_logits(student, teacher, head, wide)) if len(head.spans) == 1 else None
    norms = torch.full((2, student.shape[0], 1), -torch.inf, dtype=wide, device=student.device)
    for _, q, p in pairs or _logits(student, teacher, head, wide):
        norms = torch.logaddexp(norms, torch.stack([t.logsumexp(1, keepdim=True) for t in (q, p)]))
    total = torch.zeros((), dtype=wide, device=student.device)
    for weight, q, p in pairs or _logits(student, teacher, head, wide):
        log_q, log_p = q.sub_(norms[0]), p.sub_(norms[1])
        share = log_p.exp()
        total += share.mul(log_p.sub_(log_q)).sum()
        if out is not None:
            out += log_q.exp_().sub_(share).to(out.dtype) @ weight
    return total


def _logits(student: Tensor, teacher: Tensor, head: Head, wide: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each tile its weights (W, C) and both logits (R, W)."""
    for tile in head.tiles():
        yield tile.weight, F.linear(student, tile.weight).to(wide), F.linear(teacher, tile.weight).to(wide)


def tiled_divergence(student: Tensor, teacher: Tensor, head: Head, chunk: int) -> Tensor:
    """Sum over rows of KL(teacher ‖ student) in nats, in fp32 or wider (Kullback & Leibler 1951).

    Args:
        student: (T, C) hidden states of the model that learns.
        teacher: (T, C) of the base, without gradient.
        head: The frozen output head of both.
        chunk: Tokens whose two rows of logits exist at once.
    """
    wide = wide_type(student.dtype)

    def step(rows: slice, total: Tensor, gradient: Tensor | None) -> None:
        total += _chunk(student[rows], teacher[rows], head, gradient, wide)

    return by_chunks(student, chunk, torch.zeros((), dtype=wide, device=student.device), step)
