"""A model as it writes on a processor: the same layers, computed for a few tokens at a time with as few calls as possible.

At one token a call of torch costs as much as the arithmetic in it. So q, k and v are one product, gate and up another, both
rotations one, and results are added in place. Weights are in the form that `stilnovo.model.products` makes of them; the stream, norms
and attention stay in fp32. `Llama.hidden` is the reference (`tests/test_decoder.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stilnovo.model.attention import Attention
from stilnovo.model.llama import MLP, Layer, Llama, SelfAttention
from stilnovo.model.memory import give_back
from stilnovo.model.processor import CpuProducts
from stilnovo.model.products import Product, product, table_product


@dataclass(frozen=True)
class _Layer:
    """One layer's products."""

    layer: Layer
    qkv: Product
    o: Product
    gate_up: Product
    down: Product


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


def _products(groups: list[list[nn.Module]], way: CpuProducts) -> Iterator[Product]:
    """Make the products one after another; the dense matrices that it takes are given back."""
    for group in groups:
        yield product(group, way)
        give_back()


class Decoder:
    """A model with its weights in a form for writing; the copies are made here and go with it.

    Args:
        model: Any Llama on a CPU; adapters are read at each step as they then are.
        way: The form of the weights.
    """

    def __init__(self, model: Llama, way: CpuProducts) -> None:
        self.model, self._way, self._groups = model, way, projections(model)
        with torch.no_grad():
            products = _products(self._groups, way)
            self._layers = [
                _Layer(cast(Layer, layer), next(products), next(products), next(products), next(products))
                for layer in model.layers
            ]
            self._head = table_product(model.head, way) if model.head_logits is None else None

    def made_of(self, model: Llama, way: CpuProducts) -> bool:
        """Whether the copies were made of what this model computes with now, in this way."""
        mine, now = ([module for group in groups for module in group] for groups in (self._groups, projections(model)))
        return self.model is model and self._way == way and all(a is b for a, b in zip(mine, now, strict=True))

    def hidden(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Compute final normalised hidden states (T, C) of tokens (T,) at positions (T,)."""
        model, config = self.model, self.model.config
        x = model.embed(tokens).clone()
        cos, sin = model.rotary(positions, x.dtype)
        cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)  # (T, 1, D)
        heads, width = config.heads + config.kv_heads, (config.hidden_size,)
        for part in self._layers:
            layer = part.layer
            read = part.qkv(F.rms_norm(x, width, layer.input_layernorm, layer.eps))
            rows = read.view(len(x), heads + config.kv_heads, config.head_dim)
            qk = rows[:, :heads]
            # Dimension i turns with i + D/2: the halves change places, one of them with its sign changed (in `sin`).
            turned = (qk * cos).addcmul_(qk.roll(config.head_dim // 2, -1), sin)
            attended = attention.attend(
                turned[:, : config.heads], turned[:, config.heads :], rows[:, heads:], layer.index
            )
            x.add_(part.o(attended.reshape(len(x), -1)))
            gate_up = part.gate_up(F.rms_norm(x, width, layer.post_attention_layernorm, layer.eps))
            gate, up = gate_up.chunk(2, -1)
            x.add_(part.down(F.silu(gate).mul_(up)))
        return F.rms_norm(x, width, model.norm, config.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits (R, V) in fp32 from hidden states (R, C)."""
        return self.model.logits(hidden) if self._head is None else self._head(hidden)
