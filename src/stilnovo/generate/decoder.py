"""A model as it writes: the same layers, computed for a few tokens at a time with as few calls as possible.

At one token a call of torch costs as much as the arithmetic in it. So q, k and v are one product, gate and up another, both
rotations one, and results are added in place. On a processor weights are in the form that `stilnovo.model.products` makes of them, and
the stream, norms and attention stay in fp32; on a card they are multiplied as they are (`stilnovo.model.card_products`), all in the
model's type, and nothing is asked of the host. `Llama.hidden` is the reference (`tests/test_decoder.py`, `tests/test_card_writer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from stilnovo.generate.elementwise_step import step_functions
from stilnovo.model.card_products import CardProduct
from stilnovo.model.llama import MLP, Layer, Llama, SelfAttention
from stilnovo.model.memory import give_back
from stilnovo.model.processor import CpuProducts
from stilnovo.model.products import Product, product, table_product


class RowAttention(Protocol):
    """Interface of attention over queries, keys and values that lie side by side; `layer` lets a cache find its own keys."""

    def attend_rows(self, rows: Tensor, layer: int) -> Tensor:
        """Attention output: rows (T, H + 2K, D) → (T, H, D)."""


@dataclass(frozen=True)
class _Layer:
    """One layer's products."""

    layer: Layer
    qkv: Product
    o: Product
    gate_up: Product
    down: Product


def _layer(layer: Layer, products: Iterator[Product]) -> _Layer:
    """One layer with the next four products, which add its biases."""
    attn, mlp = layer.self_attn, layer.mlp
    biases = ([attn.q_bias, attn.k_bias, attn.v_bias], [attn.o_bias], [mlp.gate_bias, mlp.up_bias], [mlp.down_bias])
    qkv, o, gate_up, down = (_biased(next(products), group) for group in biases)
    return _Layer(layer, qkv, o, gate_up, down)


def _biased(plain: Product, biases: list[Tensor | None]) -> Product:
    """A product that adds the biases of its projections, which have all one or none."""
    vectors = [bias for bias in biases if bias is not None]
    if not vectors:
        return plain
    vector = torch.cat(vectors)
    return lambda x: plain(x).add_(vector)


def projections(model: Llama) -> list[list[nn.Module]]:
    """The model's projections by the activation that they read: q, k, v; o; gate, up; down of each layer."""
    groups: list[list[nn.Module]] = []
    for layer in model.layers:
        attn, mlp = cast(SelfAttention, layer.self_attn), cast(MLP, layer.mlp)
        groups += [
            [attn.q_proj, attn.k_proj, attn.v_proj],
            [attn.o_proj],
            [mlp.gate_proj, mlp.up_proj],
            [mlp.down_proj],
        ]
    return groups


def _products(groups: list[list[nn.Module]], way: CpuProducts | None, dtype: torch.dtype) -> Iterator[Product]:
    """Make the products one after another; the dense matrices that it takes are given back."""
    for group in groups:
        if way is None:
            yield CardProduct(group, dtype)
            continue
        yield product(group, way)
        give_back()


class Decoder:
    """A model with its weights in a form for writing; the copies are made here and go with it.

    Args:
        model: Any Llama. On a CPU adapters are read at each step as they then are, on a card as they were at the last `refresh`.
        way: The form of the weights on a CPU; None: as they are, on a card.
    """

    def __init__(self, model: Llama, way: CpuProducts | None) -> None:
        self.model, self._way, self._groups = model, way, projections(model)
        with torch.no_grad():
            made = list(_products(self._groups, way, model.dtype))
            products = iter(made)
            self._layers = [_layer(cast(Layer, layer), products) for layer in model.layers]
            plain = way is None or model.head_logits is not None
            self._head = None if plain else table_product(model.head, cast(CpuProducts, way))
        self._elementwise = step_functions(model.device)
        self._on_card = [part for part in made if isinstance(part, CardProduct)]

    def refresh(self) -> None:
        """Copy the adapters' present parameters, where copies are kept (on a card)."""
        for part in self._on_card:
            part.refresh()

    @property
    def enabled(self) -> tuple[bool, ...]:
        """Which adapters count now, of a model on a card."""
        return tuple(enabled for part in self._on_card for enabled in part.enabled)

    @property
    def known(self) -> bool:
        """Whether a step on a card depends on nothing that its tensors and `enabled` do not say."""
        return all(part.known for part in self._on_card)

    def made_of(self, model: Llama, way: CpuProducts | None) -> bool:
        """Whether the copies were made of what this model computes with now, in this way."""
        mine, now = ([module for group in groups for module in group] for groups in (self._groups, projections(model)))
        return self.model is model and self._way == way and all(a is b for a, b in zip(mine, now, strict=True))

    def hidden(self, tokens: Tensor, positions: Tensor, attention: RowAttention) -> Tensor:
        """Compute final normalised hidden states (T, C) of tokens (T,) at positions (T,)."""
        model, config = self.model, self.model.config
        x, by = model.embed(tokens).clone(), self._elementwise
        angles = by.angles(*model.rotary(positions, x.dtype))
        heads = config.heads + config.kv_heads
        added: Tensor | None = None
        for part in self._layers:
            layer = part.layer
            read = part.qkv(by.normed(x, added, layer.input_layernorm, layer.eps))
            rows = read.view(len(x), heads + config.kv_heads, config.head_dim)
            by.turn_(rows[:, :heads], angles)
            attended = attention.attend_rows(rows, layer.index)
            added = part.o(attended.reshape(len(x), -1))
            added = part.down(by.gated(part.gate_up(by.normed(x, added, layer.post_attention_layernorm, layer.eps))))
        return by.normed(x, added, model.norm, config.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits (R, V) in fp32 from hidden states (R, C)."""
        return self.model.logits(hidden) if self._head is None else self._head(hidden)
