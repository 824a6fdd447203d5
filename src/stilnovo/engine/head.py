"""The output head in tiles of the vocabulary: dense, quantised to 8 or 4 bits, or streamed from host memory.

At 128,256 × 4,096 the head in 16 bits takes an eighth of an 8 GB card. Nobody needs it whole: the loss (`loss.py`) asks
for one tile after another, each once for a chunk of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stilnovo.engine.link import Link
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import HeadKind

#: Rows `start` … `stop`-1 of the head: start, stop, and their weights (rows, C), dense.
HeadTile = tuple[int, int, Tensor]


class Head:
    """The output head (V, C), stored as the memory plan says.

    Args:
        weight: As it was loaded; only kept where the lever says `dense`.
        kind: How it is kept from now on.
        tile: Rows of a tile; None: all at once.
        link: The road to the host (for `streamed`).
    """

    def __init__(self, weight: Tensor, kind: HeadKind, tile: int | None, link: Link) -> None:
        self.kind, self.link, self.dtype = kind, link, weight.dtype
        self.vocab_size, self.width = weight.shape
        step = tile or self.vocab_size
        self.spans = [(start, min(start + step, self.vocab_size)) for start in range(0, self.vocab_size, step)]
        if kind == "dense":
            self._weight = weight
        elif kind == "streamed":
            self._host = link.host(weight.nbytes).view(weight.dtype).view(weight.shape)
            self._host.copy_(weight)
            shape = (2, min(step, self.vocab_size), self.width)
            self._slots = torch.empty(shape, dtype=weight.dtype, device=link.device)
        else:
            self._tiles = [quantized_linear(weight[start:stop], kind) for start, stop in self.spans]

    def tiles(self) -> Iterator[HeadTile]:
        """Iterate over the tiles; a tile is valid only until the next one is requested."""
        if self.kind == "streamed":
            yield from self._streamed()
            return
        for index, (start, stop) in enumerate(self.spans):
            weight = self._weight[start:stop] if self.kind == "dense" else self._tiles[index].dense(self.dtype)
            yield start, stop, weight
            del weight

    def _streamed(self) -> Iterator[HeadTile]:
        def bring(index: int) -> object:
            start, stop = self.spans[index]
            return self.link.copy(self._host[start:stop], self._slots[index % 2, : stop - start])

        ticket = bring(0)
        for index, (start, stop) in enumerate(self.spans):
            following = bring(index + 1) if index + 1 < len(self.spans) else None
            yield start, stop, self.link.wait(ticket)  # type: ignore[arg-type]
            ticket = following

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (R, C) → all logits (R, V) in fp32."""
        return torch.cat([(hidden @ weight.T).float() for _, _, weight in self.tiles()], dim=-1)
