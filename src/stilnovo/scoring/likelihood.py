"""Log-probabilities of chosen tokens, without ever holding the logits of a whole pass.

The head (V, C) is applied tile by tile: a few thousand words of the vocabulary for many rows at once, so that the
product is large, its result stays near the processor, and memory does not follow the vocabulary. Each tile leaves its
log-sum-exp; those of all tiles together are the normaliser. Log-softmax is fp32 whatever the model computes in, sums
over tokens are fp64: sums in bf16 flip close choices.

Shape letters: T tokens of a pass, R rows that predict, C hidden size, V vocabulary, W words of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stilnovo.model.llama import Llama, narrow_rows, row_tiles

TILE_BYTES = 8 * 2**20  # of fp32 logits at once: larger leaves the cache, smaller wastes the product
TILE_ROWS = 1024


def token_scores(model: Llama, hidden: Tensor, rows: Sequence[int], targets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute the log-probability of each target after its row, and whether it is the argmax.

    Args:
        model: Its head is applied.
        hidden: (T, C) final hidden states.
        rows: N indices into them; equal ones go through the head once.
        targets: N token ids.

    Returns:
        log p(target | row), (N,) fp64, and whether no token is more probable, (N,) bool; both on the CPU.
    """
    device = hidden.device
    distinct, inverse = torch.unique(torch.tensor(rows, device=device), return_inverse=True)  # sorted
    order = torch.argsort(inverse)
    wanted = torch.tensor(targets, device=device)[order]
    ends = torch.cumsum(torch.bincount(inverse, minlength=len(distinct)), 0).tolist()
    values = torch.empty(len(rows), dtype=torch.float64)
    greedy = torch.empty(len(rows), dtype=torch.bool)
    tiled = model.head_logits is None
    step = (
        TILE_ROWS if tiled else max(1, 8 * TILE_BYTES // (4 * model.config.vocab_size))
    )  # rows through the head at once
    for first in range(0, len(distinct), step):
        last = min(first + step, len(distinct))
        pairs = slice(ends[first - 1] if first else 0, ends[last - 1])
        where = order[pairs].cpu()
        values[where], greedy[where] = _chunk(
            model, hidden[distinct[first:last]], inverse[order[pairs]] - first, wanted[pairs]
        )
    return values, greedy


def _chunk(model: Llama, hidden: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `token_scores` for some rows (R, C) at once; `rows` and `targets` (N,)."""
    picked = torch.empty(len(rows), device=hidden.device)
    peaks, sums = [], []
    for start, logits in _tiles(model, hidden):
        inside = ((targets >= start) & (targets < start + logits.shape[1])).nonzero()[:, 0]
        picked[inside] = logits[rows[inside], targets[inside] - start]
        peak = logits.amax(dim=-1, keepdim=True)
        # in place: another matrix would cost more time than the arithmetic
        sums.append(logits.sub_(peak).exp_().sum(dim=-1).log_().add_(peak[:, 0]))
        peaks.append(peak[:, 0])
    normaliser, peak = torch.stack(sums).logsumexp(dim=0), torch.stack(peaks).amax(dim=0)  # (R,)
    return (picked - normaliser[rows]).double().cpu(), (picked >= peak[rows]).cpu()


def _tiles(model: Llama, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Iterate over tiles of logits: (first word, logits (R, W) in fp32); each tile overwrites the one before."""
    if model.head_logits is not None:  # a head kept elsewhere knows its own tiles
        yield 0, model.logits(hidden)
        return
    head = model.head
    width = max(256, TILE_BYTES // (4 * len(hidden)))
    width = narrow_rows(head, hidden.dtype, width)
    room = torch.empty(len(hidden) * min(width, len(head)), device=hidden.device, dtype=hidden.dtype)
    for start, part in row_tiles(head, hidden.dtype, width):
        logits = torch.mm(hidden, part.T, out=room[: len(hidden) * len(part)].view(len(hidden), -1))
        yield start, logits.float()
