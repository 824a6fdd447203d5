"""Cross-entropy without materialising the logits: chunks of tokens against tiles of the vocabulary, gradients included.

Because the head is frozen and each loss depends on its own row alone, the gradient of every row with respect to its
hidden state is computed in the forward pass; backward only scales the rows. So any function of the losses may follow: a
sum, or the log-probabilities of whole answers (`stilnovo.train.objectives.dpo`).

A tile is visited once: while it is here its logits enter a running softmax (Milakov & Gimelshein 2018), and the gradient
Σ p_j w_j − w_target is accumulated with the same rescaling. So a chunk costs two products with the head a token, the
floor, and its memory is (chunk × tile) logits, whatever the vocabulary. `chunked_losses` does the same for torch's autograd:
a dense head and the plain softmax.

KL(base ‖ model): the base is the model with its adapter off, so the teacher costs one more forward pass and no memory. Its
gradient with respect to the student's hidden states is made in the forward pass too: ∂ Σ_j p_j (log p_j − log q_j) / ∂ logits_q
= q − p, with p the base's and q the model's probabilities. Both normalisers must be known before p and q are; a head of one
tile keeps its logits meanwhile (three products a token). Of many tiles each is visited once, too: two running sums, of
w (e^q − e^p) and of w e^p, give Σ (q − p) w once the normalisers are known (four products), and stay exact where p is near q.

Shape letters: T tokens, R of a chunk, V vocabulary, W rows of a tile, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from stilnovo.engine.elementwise import tiles
from stilnovo.engine.link import Link
from stilnovo.engine.matmul import matmul
from stilnovo.model import kernels
from stilnovo.model.kernels import operators
from stilnovo.model.llama import narrow_rows
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import HeadKind

#: Rows `start` … `stop`-1 of the head: start, stop, and their weights (rows, C), dense.
HeadTile = tuple[int, int, Tensor]


class Head:
    """The output head (V, C) in tiles of the vocabulary: dense, quantised to 8 or 4 bits, or streamed from host memory.

    At 128,256 × 4,096 the head in 16 bits takes an eighth of an 8 GB card. Nobody needs it whole: the losses ask for one tile
    after another, each once for a chunk of tokens.

    Args:
        weight: As it was loaded; only kept where the lever says `dense`.
        kind: How it is kept from now on.
        tile: Rows of a tile; None: all at once.
        link: The road to the host (for `streamed`).
        dtype: The type of the products, where it is not that of the weight, which then becomes wide a tile at a time.
    """

    def __init__(
        self, weight: Tensor, kind: HeadKind, tile: int | None, link: Link, dtype: torch.dtype | None = None
    ) -> None:  # fmt: skip
        self.kind, self.link, self.dtype = kind, link, dtype or weight.dtype
        self.vocab_size, self.width = weight.shape
        step = narrow_rows(weight, self.dtype, tile)
        self.spans = [(start, min(start + step, self.vocab_size)) for start in range(0, self.vocab_size, step)]
        if kind == "dense":
            self._weight = weight
        elif kind == "streamed":
            self._host = link.host(weight.nbytes).view(weight.dtype).view(weight.shape)
            self._host.copy_(weight)
            shape = (2, min(step, self.vocab_size), self.width)
            self._slots = torch.empty(shape, dtype=weight.dtype, device=link.device)
        else:
            self._tiles = [quantized_linear(weight[start:stop].to(link.device), kind) for start, stop in self.spans]

    def tiles(self) -> Iterator[HeadTile]:
        """Iterate over the tiles; a tile is valid only until the next one is requested."""
        if self.kind == "streamed":
            yield from self._streamed()
            return
        for index, (start, stop) in enumerate(self.spans):
            dense = self.kind == "dense"
            weight = self._weight[start:stop].to(self.dtype) if dense else self._tiles[index].dense(self.dtype)
            yield start, stop, weight
            del weight

    def _streamed(self) -> Iterator[HeadTile]:
        def bring(index: int) -> object:
            start, stop = self.spans[index]
            return self.link.copy(self._host[start:stop], self._slots[index % 2, : stop - start])

        ticket = bring(0)
        for index, (start, stop) in enumerate(self.spans):
            following = bring(index + 1) if index + 1 < len(self.spans) else None
            yield start, stop, self.link.wait(ticket).to(self.dtype)  # type: ignore[arg-type]
            ticket = following

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute all logits (R, V) in fp32 from hidden states (R, C)."""
        return torch.cat([(hidden @ weight.to(hidden.dtype).T).float() for _, _, weight in self.tiles()], dim=-1)


class _Known(Function):
    """Autograd function for a value whose gradient is already computed: element i scales row i (a single one: all rows)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        if gradient.dtype == torch.float16:  # a loss scale may be beyond its range where the product is not
            return torch.mul(gradient, grad[..., None], out=torch.empty_like(gradient)), None, None
        return gradient * grad.to(gradient.dtype)[..., None], None, None


def by_chunks(
    hidden: Tensor, chunk: int, total: Tensor, step: Callable[[slice, Tensor, Tensor | None], None]
) -> Tensor:
    """Sum a loss over chunks of rows by `step`, with a gradient for `hidden` where one is wanted.

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


def _cross_entropy(hidden: Tensor, head: Head, targets: Tensor, out: Tensor | None) -> Tensor:
    """Cross-entropy (R,) of a chunk (R, C); its gradients go into `out`."""
    wide, count = wide_type(hidden.dtype), hidden.shape[0]
    # Probabilities of a vocabulary are too small for fp16; relative to the largest, as below, more of them are not.
    if len(head.spans) == 1 and hidden.dtype != torch.float16 and kernels.wanted(hidden.device):
        return _whole_cross_entropy(hidden, head, targets, out)
    peak = torch.full((count, 1), -torch.inf, dtype=wide, device=hidden.device)
    mass, picked = torch.zeros_like(peak), torch.zeros_like(peak)
    mean = own = None
    for start, stop, weight in head.tiles():
        local = (targets - start).clamp_(0, stop - start - 1)[:, None]
        inside = ((targets >= start) & (targets < stop))[:, None]
        peak, shrink, share = _enter(hidden, weight, targets, start, local, inside, peak, mass, picked)
        if out is not None:
            part = matmul(share.to(hidden.dtype), weight)  # (R, C)
            mean = part.to(wide) if mean is None else mean.mul_(shrink).add_(part)
            del part
            row = F.embedding(local[:, 0], weight)
            own = row if own is None else torch.where(inside, row, own)
            del row
        del share, weight
    if out is not None:
        assert mean is not None and own is not None
        out.copy_(mean.div_(mass).sub_(own))  # Σ p w − w_target
    return mass.log_().add_(peak).sub_(picked)[:, 0]


def _enter(
    hidden: Tensor, weight: Tensor, targets: Tensor, start: int, local: Tensor, inside: Tensor,
    peak: Tensor, mass: Tensor, picked: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Let a tile's logits (R, W) enter the running softmax: the new peak, what earlier sums shrink by, exp(logits − peak)."""
    logits = matmul(hidden, weight.T)
    if kernels.wanted(logits.device):
        shrink = torch.empty_like(peak)
        operators.softmax_tile(logits, targets, start, peak, mass, picked, shrink, True)
        return peak, shrink, logits
    logits = logits.to(peak.dtype)
    picked += torch.where(inside, logits.gather(1, local), 0.0)
    higher = torch.maximum(peak, logits.amax(1, keepdim=True))
    shrink = (peak - higher).exp_()
    logits.sub_(higher).exp_()
    mass.mul_(shrink).add_(logits.sum(1, keepdim=True))
    return higher, shrink, logits


def _whole_cross_entropy(hidden: Tensor, head: Head, targets: Tensor, out: Tensor | None) -> Tensor:
    """The same by a kernel, with a head of one tile: the logits turn into their own gradient."""
    ((_, _, weight),) = head.tiles()
    logits = F.linear(hidden, weight)
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    operators.softmax_whole(logits, targets, out is not None, losses)
    if out is not None:
        torch.mm(logits, weight, out=out)
    return losses


def tiled_losses(hidden: Tensor, head: Head, targets: Tensor, chunk: int) -> Tensor:
    """Cross-entropy −log p(target) of every row in nats, (T,), in fp32 or wider.

    Args:
        hidden: (T, C) final hidden states.
        head: The frozen output head.
        targets: (T,) int64.
        chunk: Tokens whose logits exist at once.
    """

    def step(rows: slice, losses: Tensor, gradient: Tensor | None) -> None:
        losses[rows] = _cross_entropy(hidden[rows], head, targets[rows], gradient)

    losses = torch.empty(hidden.shape[0], dtype=wide_type(hidden.dtype), device=hidden.device)
    return by_chunks(hidden, chunk, losses, step)


def chunked_losses(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Cross-entropy −log p(target) of every row in nats, (T,), by chunks of rows with all their logits.

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


def _divergence(student: Tensor, teacher: Tensor, head: Head, out: Tensor | None) -> Tensor:
    """Summed divergence of a chunk (R, C); its gradient goes into `out`."""
    if len(head.spans) == 1:
        return _whole_divergence(student, teacher, head, out)
    wide = wide_type(student.dtype)
    peaks = torch.full((2, student.shape[0], 1), -torch.inf, dtype=wide, device=student.device)
    masses, apart = torch.zeros_like(peaks), torch.zeros_like(peaks[0])
    means = None if out is None else torch.zeros((2, *student.shape), dtype=wide, device=student.device)
    for _, _, weight in head.tiles():
        q, p = (matmul(rows, weight.T).to(wide) for rows in (student, teacher))
        higher = torch.maximum(peaks, torch.stack([q.amax(1, keepdim=True), p.amax(1, keepdim=True)]))
        shrink, peaks = (peaks - higher).exp_(), higher
        gap = p - q
        q.sub_(peaks[0]).exp_()
        p.sub_(peaks[1]).exp_()
        apart.mul_(shrink[1]).add_(gap.mul_(p).sum(1, keepdim=True))
        del gap
        masses.mul_(shrink).add_(torch.stack([q.sum(1, keepdim=True), p.sum(1, keepdim=True)]))
        if means is not None:  # of w by q − p, and by p: the difference of two large means would be rounding
            means[0].mul_(shrink[0]).add_(means[1] * (shrink[0] - shrink[1]))
            means[0].add_(matmul(q.sub_(p).to(student.dtype), weight))
            means[1].mul_(shrink[1]).add_(matmul(p.to(student.dtype), weight))
        del q, p, weight
    if out is not None and means is not None:
        out.copy_(means[0].div_(masses[0]).add_(means[1].mul_((masses[1] - masses[0]) / (masses[0] * masses[1]))))
    # Σ p (log p − log q): the mean gap of the logits, and that of the normalisers
    return apart.div_(masses[1]).add_((masses[0] / masses[1]).log_()).add_(peaks[0] - peaks[1]).sum()


def _whole_divergence(student: Tensor, teacher: Tensor, head: Head, out: Tensor | None) -> Tensor:
    """The same with a head of one tile, whose logits wait for their normalisers."""
    ((_, _, weight),) = head.tiles()
    q, p = (matmul(rows, weight.T).to(wide_type(rows.dtype)) for rows in (student, teacher))
    log_q, log_p = (logits.sub_(logits.logsumexp(1, keepdim=True)) for logits in (q, p))
    share = log_p.exp()
    divergence = share.mul(log_p.sub_(log_q)).sum()
    if out is not None:
        out.copy_(matmul(log_q.exp_().sub_(share).to(out.dtype), weight))
    return divergence


def tiled_divergence(student: Tensor, teacher: Tensor, head: Head, chunk: int) -> Tensor:
    """Summed KL(teacher ‖ student) over rows in nats, in fp32 or wider (Kullback & Leibler 1951).

    Args:
        student: (T, C) hidden states of the model that learns.
        teacher: (T, C) of the base, without gradient.
        head: The frozen output head of both.
        chunk: Tokens whose two rows of logits exist at once.
    """

    def step(rows: slice, total: Tensor, gradient: Tensor | None) -> None:
        total += _divergence(student[rows], teacher[rows], head, gradient)

    total = torch.zeros((), dtype=wide_type(student.dtype), device=student.device)
    return by_chunks(student, chunk, total, step)
