"""Asynchronous copies between card and host, pinned host memory, and what lives there: activations, streamed layers.

A copy is a `Ticket`; it holds both ends until somebody has waited for it, so that neither is freed or written over while
bytes are on the way. Where there are no streams (a CPU, shapes without storage) a copy is done when it returns.

All host memory for it comes from `Link.host`, pinned where that is possible (`stilnovo.engine.pinned`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stilnovo.engine.pinned import NotPinnedError, pinned_memory
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.levers import ALIGN, size_class


@dataclass
class Ticket:
    """A copy in progress; `done` is its event, None when complete."""

    source: Tensor
    target: Tensor
    done: Any = None


class Link:
    """Asynchronous copies between one card and the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.asynchronous = device.type == "cuda"
        self._pin = self.asynchronous
        if self.asynchronous:
            self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host(self, size: int) -> Tensor:
        """Allocate `size` bytes of host memory (uint8), pinned where possible."""
        if self._pin and size:
            try:
                return pinned_memory(size, self.device)
            except NotPinnedError as reason:
                self._pin = False
                logging.getLogger(__name__).warning("%s: copies are slower.", reason)
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def copy(self, source: Tensor, target: Tensor) -> Ticket:
        """Start copying, to the card or from it."""
        if not self.asynchronous:
            target.copy_(source)
            return Ticket(source, target)
        stream = self._down if target.device.type == "cpu" else self._up
        stream.wait_stream(torch.cuda.current_stream(self.device))  # the source is ready, the target no longer read
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
        return Ticket(source, target, event)

    def wait(self, ticket: Ticket) -> Tensor:
        """Make the compute stream wait for a copy; returns its target."""
        if ticket.done is not None:
            torch.cuda.current_stream(self.device).wait_event(ticket.done)
            ticket.done = None
        return ticket.target


def aligned(size: int) -> int:
    """`size` rounded up to where the next tensor may start."""
    return -(-size // ALIGN) * ALIGN


class HostKey:
    """Placeholder for a tensor offloaded to host memory."""


class ActivationStore:
    """Offloads activations to the host in forward and fetches them in backward; buffers are reused every step."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._free: dict[int, list[Tensor]] = {}  # by size class, so that batches of other lengths find room too
        self._kept: dict[Any, tuple[Tensor, Tensor]] = {}  # key → (buffer, view of it)
        self._leaving: dict[Any, Ticket] = {}
        self._coming: dict[Any, Ticket] = {}

    @property
    def nbytes(self) -> int:
        """Host memory held."""
        buffers = [b for pool in self._free.values() for b in pool] + [b for b, _ in self._kept.values()]
        return sum(b.nbytes for b in buffers)

    def put(self, key: Any, tensor: Tensor) -> None:
        """Start offloading a tensor; it must not be written to before `settle`."""
        size = size_class(tensor.nbytes)
        pool = self._free.get(size, [])
        buffer = pool.pop() if pool else self.link.host(size)
        view = buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        self._kept[key] = (buffer, view)
        self._leaving[key] = self.link.copy(tensor, view)

    def settle(self) -> None:
        """Make the compute stream wait for offloads, and free their sources."""
        while self._leaving:
            self.link.wait(self._leaving.popitem()[1])

    def prefetch(self, key: Any) -> None:
        """Start fetching a tensor."""
        if key in self._kept and key not in self._coming:
            view = self._kept[key][1]
            target = torch.empty(view.shape, dtype=view.dtype, device=self.link.device)
            self._coming[key] = self.link.copy(view, target)

    def get(self, key: Any) -> Tensor:
        """Fetch a tensor back to the card and release its host buffer."""
        self.prefetch(key)
        tensor = self.link.wait(self._coming.pop(key))
        buffer, _ = self._kept.pop(key)
        self._free.setdefault(buffer.nbytes, []).append(buffer)
        return tensor

    def drop(self, keys: Iterable[Any]) -> None:
        """Release the buffers that a pass whose backward will not come still has."""
        for key in [key for key in keys if key in self._kept]:
            for waiting in (self._leaving.pop(key, None), self._coming.pop(key, None)):
                if waiting is not None:
                    self.link.wait(waiting)
            buffer, _ = self._kept.pop(key)
            self._free.setdefault(buffer.nbytes, []).append(buffer)


#: Where a frozen projection's tensor lies in its layer's memory: module, name, bytes, type, shape.
_Place = tuple[nn.Module, str, slice, torch.dtype, torch.Size]


class LayerStream:
    """Streams the first `count` layers of a model: they live on the host and are fetched when used, one after another.

    Every streamed layer's kept form (packed weights, scales, tables) lies in host memory in one piece, pinned; the card has a few
    slots of one layer's size. Nothing ever goes back: the host's copy is the truth. While one layer computes, the next is on
    its way, in the direction in which the pass runs.

    A layer's modules are bound to views of the slot it is in. A hook on the layer brings it in for every other use of the
    model (evaluation, generation), so that nobody else needs to know.
    """

    def __init__(self, model: Llama, count: int, slots: int, link: Link) -> None:
        self.link, self.count, self.model = link, count, model
        self._places, ends = zip(*(_places(model.layers[index]) for index in range(count)), strict=True)
        self.layer_bytes = max(ends)
        self._homes = list[Tensor]()
        self._slots = [
            torch.empty(self.layer_bytes, dtype=torch.uint8, device=link.device) for _ in range(min(slots, count))
        ]
        self._holds: list[int | None] = [None] * len(self._slots)
        self._coming: dict[int, Ticket] = {}
        self._order = list(range(len(self._slots)))  # the slot used longest ago first
        self._current = -1
        for index in range(count):
            before = [getattr(module, name) for module, name, *_ in self._places[index]]
            self._homes.append(
                link.host(self.layer_bytes)
            )  # one after another: two copies of all would need twice the memory
            self._bind(index, self._homes[index])
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
        if index in self._coming:
            self.link.wait(self._coming.pop(index))
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
        self._coming[index] = self.link.copy(self._homes[index], self._slots[slot])
        self._bind(index, self._slots[slot])

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
