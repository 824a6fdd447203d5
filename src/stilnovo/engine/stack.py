"""Run all layers as one autograd node: which activations are kept, offloaded or recomputed.

`TrainingEngine.hidden` is one autograd node from token ids to final hidden states, so any loss may follow it (cross-entropy,
preference, a divergence from the base). Inside, autograd is off: `blocks.py` computes, this file decides. Gradients of
the adapter are added to its parameters as they appear, layer by layer; the node returns none.

Unusual: for each layer the plan says *keep* (its inside stays on the card), *offload* (it waits in host memory) or
*recompute* (only its input is kept, on the card or on the host). Spare memory and an idle link thus buy back arithmetic:
nothing is recomputed at 4N FLOPs a token, everything at about 5.5N.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.utils._pytree import tree_leaves, tree_map_only

from stilnovo.engine.blocks import LayerEngine, Saved, Stream
from stilnovo.engine.elementwise import norm_backward_, normed
from stilnovo.engine.link import ActivationStore, HostKey, LayerStream, Link
from stilnovo.engine.loss import Head
from stilnovo.engine.packed_attention import kernel_for
from stilnovo.engine.product import HostAdapter, Sink, narrowed
from stilnovo.model import lora, scaling
from stilnovo.model.attention import positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import LoraLinear
from stilnovo.model.memory import storage_bytes
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.levers import Levers


@dataclass
class _Pass:
    """A forward pass waiting for its backward."""

    stream: Stream
    last: Tensor
    saved: dict[int, Saved] = field(default_factory=dict)
    keys: list[HostKey] = field(default_factory=list)  # they stand in `saved` for what waits on the host


class _Hidden(Function):
    @staticmethod
    def forward(ctx: Any, engine: TrainingEngine, tokens: Tensor, lengths: Sequence[int], _handle: Tensor) -> Tensor:
        ctx.engine, (hidden, ctx.waiting) = engine, engine._forward(tokens, lengths, training=True)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        waiting, ctx.waiting = ctx.waiting, None
        ctx.engine._backward(grad, waiting)
        return None, None, None, None


class TrainingEngine:
    """Runs a model with an adapter by explicit passes, under one memory plan (`Levers`).

    Args:
        model: Its frozen parts are moved where the levers say; it stays usable by everybody else.
        levers: The setting.
        sink: Where the adapter's gradients go; None: into `parameter.grad`.
        dtype: The type of activations, products and kept dense copies; None: the model's. The model itself, which others evaluate
            meanwhile, keeps its own.
    """

    def __init__(
        self, model: Llama, levers: Levers, sink: Sink | None = None, dtype: torch.dtype | None = None
    ) -> None:  # fmt: skip
        assert len(levers.layers) == model.config.layers
        self.model, self.levers, self.dtype = model, levers, dtype or model.dtype
        self.sink = sink or Sink()
        self.link = sink.link if isinstance(sink, HostAdapter) else Link(model.device)
        self.store = ActivationStore(self.link)
        table = model.head
        # Narrowed once; what is kept in 16 bits becomes another type tile by tile.
        if table.dtype.itemsize > self.dtype.itemsize:
            table = table.to(self.dtype)
        self.head = Head(table, levers.head, levers.head_tile, self.link, self.dtype)
        if levers.head != "dense":
            model.replace_head(self.head.logits)
        if levers.embedding == "host":
            assert model.lm_head is not None, "a tied table is needed on the card"
            home = self.link.host(model.embed_tokens.nbytes).view(model.embed_tokens.dtype)
            model.embed_tokens = home.view(model.embed_tokens.shape).copy_(model.embed_tokens)
        self.stream = (
            LayerStream(model, levers.streamed_layers, levers.slots, self.link) if levers.streamed_layers else None
        )
        self.layers = [
            LayerEngine(layer, model.config.head_dim, levers, self.dtype)  # type: ignore[arg-type]
            for layer in model.layers
        ]
        learning = [scaling.layer_of(path) for path in lora.adapters(model)]
        self.lowest = min(learning, default=model.config.layers)  # below it no gradient is wanted
        self.saved_bytes = 0  # on the card, by the fullest forward pass

    def hidden(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Compute final normalised hidden states (T, C) from token ids (T,) of documents with these lengths."""
        handles = lora.parameters(self.model)
        if not torch.is_grad_enabled() or not handles or self.lowest == len(self.layers):
            return self._forward(tokens, lengths, training=False)[0]
        return _Hidden.apply(self, tokens, lengths, handles[0])  # type: ignore[no-untyped-call, no-any-return]

    def _forward(self, tokens: Tensor, lengths: Sequence[int], *, training: bool) -> tuple[Tensor, _Pass]:
        with torch.no_grad():
            model, device = self.model, self.model.device
            x = model.embed(tokens).to(self.dtype)
            cos, sin = model.rotary(positions_of(lengths, device), x.dtype)
            waiting = _Pass(Stream(cos, sin, kernel_for(lengths, device, x.dtype, model.config.head_dim)), cos)
            # A pass whose backward never comes (an error in between) gives its host buffers back when it is forgotten.
            weakref.finalize(waiting, self.store.drop, waiting.keys).atexit = False
            for index in range(len(self.layers)):
                x = self._layer_forward(index, x, waiting, training=training and index >= self.lowest)
            self.store.settle()
            waiting.last = x  # not before: a reference to the first layer's input would live through the whole pass
            leaves = tree_leaves([vars(saved) for saved in waiting.saved.values()])
            self.saved_bytes = max(self.saved_bytes, storage_bytes(filter(torch.is_tensor, leaves)))
            return normed(x, model.norm, model.config.rms_eps, self.levers.elementwise_bytes), waiting

    def _layer_forward(self, index: int, x: Tensor, waiting: _Pass, *, training: bool) -> Tensor:
        if self.stream is not None:
            self.stream.use(index)
            self.stream.prefetch(index + 1)
        choice, layer = self.levers.layers[index], self.layers[index]
        with narrowed(layer.products, self.dtype):
            y, saved = layer.forward(x, waiting.stream, choice if training else None)
        if not training:
            return y
        self.store.settle()  # the layer before has had this one's time to leave, whatever this one does
        if choice == "offload" or (choice != "keep" and self.levers.inputs == "host"):
            kernel, saved.kernel = saved.kernel, []
            saved = Saved(**tree_map_only(Tensor, partial(self._send, waiting.keys), vars(saved)))
            saved.kernel = kernel
        waiting.saved[index] = saved
        return y

    def _send(self, keys: list[HostKey], tensor: Tensor) -> HostKey:
        keys.append(HostKey())
        self.store.put(keys[-1], tensor)
        return keys[-1]

    def _backward(self, grad: Tensor, waiting: _Pass) -> None:
        with torch.no_grad():
            weight, eps, part = self.model.norm, self.model.config.rms_eps, self.levers.elementwise_bytes
            grad = norm_backward_(grad.contiguous(), waiting.last, weight, eps, part)
            del waiting.last
            for index in range(len(self.layers) - 1, self.lowest - 1, -1):
                if self.stream is not None:
                    self.stream.use(index)
                    self.stream.prefetch(index - 1)
                saved = Saved(**tree_map_only(HostKey, self.store.get, vars(waiting.saved.pop(index))))
                if index > self.lowest and self.levers.prefetch:
                    tree_map_only(HostKey, self.store.prefetch, vars(waiting.saved[index - 1]))
                layer = self.layers[index]
                with narrowed(layer.products, self.dtype):
                    layer.backward(grad, saved, waiting.stream, self.sink, wanted=index > self.lowest)
                self.sink.flush()
                del saved


def supports(model: Llama) -> bool:
    """Whether the engine supports the model: all projections frozen, or plain LoRA without dropout."""
    projections = [module for name, module in model.layers.named_modules() if name.endswith("_proj")]
    return all(
        isinstance(module, FrozenLinear) or (type(module) is LoraLinear and not module.dropout)
        for module in projections
    )
