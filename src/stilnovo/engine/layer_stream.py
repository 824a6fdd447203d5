"""Stream frozen layers from host memory to the card, one after another.

Every streamed layer's kept form (packed weights, scales, tables) lies in one host arena, pinned once; the card has a few
slots of one layer's size. Nothing ever goes back: the host's copy is the truth. While one layer computes, the next is on
its way, in the direction in which the pass runs.

A layer's modules are bound to views of the slot it is in. A hook on the layer brings it in for every other use of the
model (evaluation, generation), so that nobody else needs to know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stilnovo.engine.link import Link, Ticket, aligned
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear

#: Where a frozen projection's tensor lies in its layer's memory: module, name, bytes, type, shape.
_Place = tuple[nn.Module, str, slice, torch.dtype, torch.Size]


class LayerStream:
    """The first `count` layers of a model, moved to the host and fetched when used."""

    def __init__(self, model: Llama, count: int, slots: int, link: Link) -> None:
        self.link, self.count, self.model = link, count, model
        self._places, ends = zip(*(_places(model.layers[index]) for index in range(count)), strict=True)
        self.layer_bytes = max(ends)
        self._host = link.host(self.layer_bytes * count)
        self._slots = [
            torch.empty(self.layer_bytes, dtype=torch.uint8, device=link.device) for _ in range(min(slots, count))
        ]
        self._holds: list[int | None] = [None] * len(self._slots)
        self._coming: dict[int, Ticket] = {}
        self._order = list(range(len(self._slots)))  # the slot used longest ago first
        self._current = -1
        for index in range(count):
            before = [getattr(module, name) for module, name, *_ in self._places[index]]
            self._bind(index, self._home(index))
            for (module, name, *_), tensor in zip(self._places[index], before, strict=True):
                getattr(module, name).copy_(tensor)
            del before, tensor  # the card's copy goes before the next layer's is made room for
            model.layers[index].register_forward_pre_hook(lambda _module, _inputs, index=index: self.use(index))

    def use(self, index: int) -> None:
        """Ensure that a layer is on the card; the compute stream waits for it."""
        if index >= self.count:
            return
        self._current = index
        if index not in self._holds:
            self._bring(index, self._order[0])
        ticket = self._coming.pop(index, None)
        if ticket is not None:
            self.link.wait(ticket)
        slot = self._holds.index(index)
        self._order.remove(slot)
        self._order.append(slot)

    def prefetch(self, index: int) -> None:
        """Start fetching a layer into the least recently used slot, but never over the current layer."""
        if not 0 <= index < self.count or index in self._holds:
            return
        free = [slot for slot in self._order if self._holds[slot] != self._current]
        if free:
            self._bring(index, free[0])

    def _bring(self, index: int, slot: int) -> None:
        left = self._holds[slot]
        if left is not None and left in self._coming:
            self.link.wait(self._coming.pop(left))
        self._holds[slot] = index
        self._coming[index] = self.link.copy(self._home(index), self._slots[slot])
        self._bind(index, self._slots[slot])

    def _home(self, index: int) -> Tensor:
        return self._host[index * self.layer_bytes : (index + 1) * self.layer_bytes]

    def _bind(self, index: int, memory: Tensor) -> None:
        for module, name, place, dtype, shape in self._places[index]:
            setattr(module, name, memory[place].view(dtype).view(shape))


def _places(layer: nn.Module) -> tuple[list[_Place], int]:
    """Room for everything that a layer's frozen projections keep, and where it ends."""
    places: list[_Place] = []
    end = 0
    for module in layer.modules():
        if isinstance(module, FrozenLinear):
            for name, tensor in module.named_buffers(recurse=False):
                places.append((module, name, slice(end, end + tensor.nbytes), tensor.dtype, tensor.shape))
                end += aligned(tensor.nbytes)
    return places, end
