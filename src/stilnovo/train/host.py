"""Optimizer offload: the adapter's fp32 master weights, its gradients and the optimizer states live in host memory.

The card holds the adapter in the type it computes in (the products round it to that anyway, so nothing changes), and the
gradients of one layer at a time: they leave as soon as the layer is done and are added up on the host in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stilnovo.engine.link import Link, Ticket
from stilnovo.engine.product import Sink
from stilnovo.model import lora
from stilnovo.model.llama import Llama


class HostAdapter(Sink):
    """A sink for the engine, and the parameters that an optimizer on the host updates.

    Attributes:
        masters: fp32 parameters on the host, in the order of `lora.parameters`.
    """

    def __init__(self, model: Llama) -> None:
        self.link = Link(model.device)
        self.cards = lora.parameters(model)
        self.masters = [nn.Parameter(card.detach().to("cpu", torch.float32, copy=True)) for card in self.cards]
        self._index = {id(card): index for index, card in enumerate(self.cards)}
        for card in self.cards:
            card.data = card.data.to(model.dtype)
        self._layer: dict[int, Tensor] = {}
        self._leaving: list[tuple[int, Ticket]] = []

    def add(self, parameter: nn.Parameter, gradient: Tensor, rows: slice | None = None) -> None:
        """See `stilnovo.engine.product.Sink.add`."""
        index = self._index[id(parameter)]
        if index not in self._layer:
            wide = torch.promote_types(gradient.dtype, torch.float32)
            self._layer[index] = torch.zeros(parameter.shape, dtype=wide, device=gradient.device)
        target = self._layer[index] if rows is None else self._layer[index][rows]
        target += gradient

    def flush(self) -> None:
        """Send the gradients of the layer just done; take in those of the layer before."""
        before, self._leaving = self._leaving, []
        for index, gradient in self._layer.items():
            home = torch.empty(gradient.shape, dtype=gradient.dtype, pin_memory=self.link.asynchronous)
            self._leaving.append((index, self.link.copy(gradient, home)))
        self._layer.clear()
        for index, ticket in before:
            if ticket.done is not None:
                ticket.done.synchronize()
            master = self.masters[index]
            arrived = ticket.target.float()
            master.grad = arrived if master.grad is None else master.grad.add_(arrived)

    def collect(self) -> None:
        """See that every gradient has arrived; before they are read."""
        self.flush()  # sends the last layer's
        self.flush()  # takes them in

    def publish(self) -> None:
        """Give the card the masters as they are now; after every optimizer step."""
        for card, master in zip(self.cards, self.masters, strict=True):
            card.data.copy_(master.detach())

    def restore(self) -> None:
        """Give the adapter its masters back in full precision; when training is over."""
        for card, master in zip(self.cards, self.masters, strict=True):
            card.data = master.detach().to(card.device)
