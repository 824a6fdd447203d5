"""Explicit matrix products of frozen projections with their adapters: y = x Wᵀ + Σ s (x Aᵀ) Bᵀ, and its gradients.

A projection may have two adapters, one that learns and a frozen one of an earlier training, which is never switched off. Their
ranks stand side by side, those that learn first, so that only these are multiplied again in backward.

One `Product` takes all projections that read the same input (q, k, v; gate and up of a small model): one matrix is made
dense, one product computed. Nothing is saved for backward but the input itself. Gradients of A and B go into a sink as
soon as they exist.

Shape letters: t tokens of a tile, I inputs, O outputs of all parts together, R ranks of all parts together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stilnovo.engine.link import Link, Ticket
from stilnovo.engine.matmul import add_matmul_, matmul
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import FrozenLoraLinear, LoraLinear
from stilnovo.model.quantize import FrozenLinear


class Sink:
    """Collects the adapter's gradients: here in `parameter.grad`, in the parameter's type; a subclass may do otherwise."""

    def add(self, parameter: nn.Parameter, gradient: Tensor, rows: slice | None = None) -> None:
        """Add a gradient of the whole parameter, or of some of its rows."""
        if parameter.grad is None:
            if rows is None:
                parameter.grad = gradient.to(parameter.dtype)
                return
            parameter.grad = torch.zeros_like(parameter)
        target = parameter.grad if rows is None else parameter.grad[rows]
        target += gradient

    def flush(self) -> None:
        """Called when a layer's gradients are complete."""


class HostAdapter(Sink):
    """Optimizer offload: the adapter's fp32 master weights, its gradients and the optimizer states live in host memory.

    The card holds the adapter in the type it computes in (the products round it to that anyway, so nothing changes), and
    the gradients of one layer at a time: they leave as soon as the layer is done and are added up on the host in fp32.

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
        self._free: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}  # host buffers, used again for every layer

    def add(self, parameter: nn.Parameter, gradient: Tensor, rows: slice | None = None) -> None:
        """See `Sink.add`."""
        index = self._index[id(parameter)]
        if index not in self._layer:
            wide = torch.promote_types(gradient.dtype, torch.float32)
            self._layer[index] = torch.zeros(parameter.shape, dtype=wide, device=gradient.device)
        target = self._layer[index] if rows is None else self._layer[index][rows]
        target += gradient

    def flush(self) -> None:
        """Send the gradients of the finished layer to the host; add in those of the layer before."""
        before, self._leaving = self._leaving, []
        for index, gradient in self._layer.items():
            self._leaving.append((index, self.link.copy(gradient, self._home(gradient))))
        self._layer.clear()
        for index, ticket in before:
            if ticket.done is not None:
                ticket.done.synchronize()
            master = self.masters[index]
            arrived = ticket.target
            master.grad = arrived.to(torch.float32, copy=True) if master.grad is None else master.grad.add_(arrived)
            self._free.setdefault((arrived.shape, arrived.dtype), []).append(arrived)

    def _home(self, gradient: Tensor) -> Tensor:
        free = self._free.get((gradient.shape, gradient.dtype))
        return free.pop() if free else self.link.host(gradient.nbytes).view(gradient.dtype).view(gradient.shape)

    def collect(self) -> None:
        """Wait until every gradient has arrived; call before reading them."""
        self.flush()  # sends the last layer's
        self.flush()  # takes them in

    def publish(self) -> None:
        """Copy the master weights to the GPU; call after every optimizer step."""
        for card, master in zip(self.cards, self.masters, strict=True):
            card.data.copy_(master.detach())

    def restore(self) -> None:
        """Give the adapter its master weights back in full precision; call when training is over."""
        for card, master in zip(self.cards, self.masters, strict=True):
            card.data = master.detach().to(card.device)


class ProductPart:
    """One projection of a product: its frozen matrix, its adapters (a learning one only while enabled), its output columns."""

    def __init__(self, module: nn.Module, start: int) -> None:
        self.lora = module if isinstance(module, LoraLinear) else None
        base = module.base if isinstance(module, LoraLinear) else module
        self.frozen = base if isinstance(base, FrozenLoraLinear) else None
        base = base.base if isinstance(base, FrozenLoraLinear) else base
        assert isinstance(base, FrozenLinear)
        self.base = base
        self.columns = slice(start, start + base.out_features)

    @property
    def adapter(self) -> LoraLinear | None:
        """The enabled adapter; None where there is none or it is disabled."""
        return self.lora if self.lora is not None and self.lora.enabled else None


#: A part of a product, one of its adapters, and that one's columns of the low-rank product.
Adapted = tuple[ProductPart, LoraLinear | FrozenLoraLinear, slice]


class Product:
    """Projections of one input, computed together."""

    def __init__(
        self, modules: Sequence[nn.Module], biases: Sequence[Tensor | None] = (), *, keep_dense: bool = False
    ) -> None:
        self.parts: list[ProductPart] = []
        for module in modules:
            self.parts.append(ProductPart(module, self.parts[-1].columns.stop if self.parts else 0))
        self.outputs, self.inputs = self.parts[-1].columns.stop, self.parts[0].base.in_features
        #: (index of the part, its bias), of those that have one; what backward computes does not depend on them
        self.biases = [(index, bias) for index, bias in enumerate(biases) if bias is not None]
        self._keep = keep_dense
        self._dense: Tensor | None = None
        self._narrow: dict[int, Tensor] = {}

    def dense(self, dtype: torch.dtype) -> Tensor:
        """All frozen matrices stacked, (O, I)."""
        if self._dense is not None and self._dense.dtype == dtype:
            return self._dense
        if len(self.parts) == 1:
            dense = self.parts[0].base.dense(dtype)
        else:
            dense = torch.empty(self.outputs, self.inputs, dtype=dtype, device=self.parts[0].base.device)
            for part in self.parts:
                part.base.dense_into(dense[part.columns])
        if self._keep:
            self._dense = dense
        return dense

    def low(self, x: Tensor, *, learning: bool = False) -> Tensor:
        """Low-rank product of the adapted parts: x (t, I) → x Aᵀ side by side, (t, R); R is 0 where none is adapted.

        With `learning`, of those adapters alone that learn.
        """
        return matmul(x, self.down(x, learning=learning).T)

    def down(self, like: Tensor, *, learning: bool = False) -> Tensor:
        """A of all adapters, (R, I), of `like`'s type; with `learning`, of those that learn."""
        adapters = [adapter for _, adapter, _ in self.adapted() if not learning or isinstance(adapter, LoraLinear)]
        matrices = [self.narrow(adapter.lora_A, like.dtype) for adapter in adapters]
        return matrices[0] if len(matrices) == 1 else torch.cat([like.new_empty(0, self.inputs), *matrices])

    def narrow(self, matrix: Tensor, dtype: torch.dtype) -> Tensor:
        """An adapter's matrix in the type of the products: its copy inside `narrowed`, else made now."""
        made = self._narrow.get(id(matrix))
        return matrix.detach().to(dtype) if made is None else made

    def adapted(self) -> list[Adapted]:
        """(part, adapter, its columns of `low`) of each adapter, those that learn first."""
        found: list[tuple[ProductPart, LoraLinear | FrozenLoraLinear]] = []
        found += [(part, part.adapter) for part in self.parts if part.adapter is not None]
        found += [(part, part.frozen) for part in self.parts if part.frozen is not None]
        placed, start = [], 0
        for part, adapter in found:
            stop = start + adapter.lora_A.shape[0]
            placed.append((part, adapter, slice(start, stop)))
            start = stop
        return placed

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Forward: x (t, I) → (t, O), into `out` where given."""
        places = self.adapted()
        if on_card(x) and places:
            out = x.new_empty(len(x), self.outputs) if out is None else out
            return self._add_biases_(self._adapters_first(x, out, places, fresh=True))
        dense = self.dense(x.dtype)
        y = matmul(x, dense.T, out)
        del dense
        low = self.low(x)
        for part, adapter, ranks in places:
            add_matmul_(y[:, part.columns], low[:, ranks], self.narrow(adapter.lora_B, x.dtype).T, adapter.scale)
        return self._add_biases_(y)

    def _add_biases_(self, y: Tensor) -> Tensor:
        for index, bias in self.biases:
            y[:, self.parts[index].columns] += bias
        return y

    def forward_add(self, x: Tensor, total: Tensor, out: Tensor | None = None) -> None:
        """Forward and add: x (t, I) and `total` (t, O) → their sum, into `out` or over `total`."""
        if not on_card(x):
            torch.add(self.forward(x), total, out=total if out is None else out)
            return
        y = total if out is None else out.copy_(total)
        self._add_biases_(self._adapters_first(x, y, self.adapted(), fresh=False))

    def _adapters_first(self, x: Tensor, y: Tensor, places: list[Adapted], *, fresh: bool) -> Tensor:
        """Add to y, or write over it if `fresh`: the adapters' small products, which wait for memory, and then the large one.

        In this order y is read again inside the large product, which waits for arithmetic.
        """
        low = self.low(x)
        begun: set[int] = set()
        for part, adapter, ranks in places:
            beta = 0 if fresh and part.columns.start not in begun else 1
            b = self.narrow(adapter.lora_B, x.dtype)
            y[:, part.columns].addmm_(low[:, ranks], b.T, beta=beta, alpha=adapter.scale)
            begun.add(part.columns.start)
        for part in self.parts if fresh else ():
            if part.columns.start not in begun:
                y[:, part.columns].zero_()
        return y.addmm_(x, self.dense(x.dtype).T)

    def backward(self, grad: Tensor, x: Tensor, sink: Sink) -> Tensor:
        """Backward: gradient (t, O) of the output → gradient (t, I) of x; A's and B's go to the sink."""
        d_x, d_low = self.backward_input(grad)
        self.adapter_backward(grad, x, sink, d_low)
        return d_x

    def backward_input(self, grad: Tensor, total: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Backward to the input alone, which need not be known: gradient (t, O) → gradients of x (t, I) and of `low` (t, R).

        That of x is added to `total` where there is one.
        """
        if not on_card(grad):
            d_x = matmul(grad, self.dense(grad.dtype))
            d_low = self.low_backward(grad)
            add_matmul_(d_x, d_low, self.down(grad))
            return d_x if total is None else total.add_(d_x), d_low
        d_low = self.low_backward(grad)
        if total is None and d_low.shape[1] == 0:
            return grad @ self.dense(grad.dtype), d_low
        d_x = d_low @ self.down(grad) if total is None else total.addmm_(d_low, self.down(grad))
        return d_x.addmm_(grad, self.dense(grad.dtype)), d_low

    def low_backward(self, grad: Tensor) -> Tensor:
        """Gradient (t, R) of `low` from that of the output (t, O)."""
        places = self.adapted()
        d_low = grad.new_empty(len(grad), places[-1][2].stop if places else 0)
        for part, adapter, ranks in places:
            slope, b = grad[:, part.columns], self.narrow(adapter.lora_B, grad.dtype)
            if on_card(grad):
                d_low[:, ranks].addmm_(slope, b, beta=0, alpha=adapter.scale)
            else:
                matmul(slope, b, d_low[:, ranks])
                d_low[:, ranks].mul_(adapter.scale)
        return d_low

    def adapter_backward(self, grad: Tensor, x: Tensor, sink: Sink, d_low: Tensor | None = None) -> None:
        """Backward of the adapters only: A's and B's gradients, from that of the output (t, O) and the input, to the sink."""
        low = self.low(x, learning=True)
        for part, adapter, ranks in self.adapted():
            if isinstance(adapter, LoraLinear):
                sink.add(adapter.lora_B, matmul(grad[:, part.columns].T, low[:, ranks]).mul_(adapter.scale))
        self.finish(self.low_backward(grad) if d_low is None else d_low, x, sink)

    def finish(self, d_low: Tensor, x: Tensor, sink: Sink) -> None:
        """Compute the gradient of every learning A from that of `low` (t, R) and the input (t, I)."""
        learning = [(adapter, ranks) for _, adapter, ranks in self.adapted() if isinstance(adapter, LoraLinear)]
        if learning:
            d_down = matmul(d_low[:, : learning[-1][1].stop].T, x)
            for adapter, ranks in learning:
                sink.add(adapter.lora_A, d_down[ranks])


def on_card(x: Tensor) -> bool:
    """Whether products are a card's, whose rounding differs between generations anyway; shapes alone play a card."""
    return x.device.type != "cpu"


@contextmanager
def narrowed(products: Sequence[Product], dtype: torch.dtype) -> Iterator[None]:
    """Context manager in which the adapters of these products have copies in `dtype`, made in one launch on a card."""
    wide = {
        id(matrix): matrix.detach()
        for product in products
        for _, adapter, _ in product.adapted()
        for matrix in (adapter.lora_A, adapter.lora_B)
        if matrix.dtype != dtype and on_card(matrix)
    }
    made = [torch.empty_like(matrix, dtype=dtype) for matrix in wide.values()]
    if made:
        torch._foreach_copy_(made, list(wide.values()))
    try:
        for product in products:
            product._narrow = dict(zip(wide, made, strict=True))
        yield
    finally:
        for product in products:
            product._narrow = {}
