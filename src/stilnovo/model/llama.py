"""The Llama architecture in plain PyTorch, in one readable file.

Equations are those of the 2024 report (§2–3): RMSNorm before each block (1), residual stream (2), rotary positions (3),
grouped-query attention (4), SwiGLU (5). Unusual about this one:
- it reads one flat stream of T tokens holding many documents, not a padded batch; who sees whom is the `Attention`'s;
- every weight of the base is a frozen buffer behind `FrozenLinear`, dense or quantised; only LoRA adds parameters;
- it is built weight by weight from a source, so that loading never holds two copies of the model;
- the hidden states and the head are separate calls: training never makes all logits, scoring only the rows it needs.

Shape letters: T tokens, C hidden size, H query heads, K key/value heads, D head size, F feed-forward size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stilnovo.model.attention import Attention
from stilnovo.model.functions import rms_norm, rotate, swiglu
from stilnovo.model.quantize import DenseLinear, FrozenLinear
from stilnovo.model.rotary import RotaryTable
from stilnovo.plan.shape import LlamaConfig, projection_path

HEAD_TILE_BYTES = 2**26  # what is made wide at once of a table that is kept in a narrower type

TensorSource = Callable[[str, tuple[int, ...]], Tensor]
LinearMaker = Callable[[Tensor], FrozenLinear]
BiasMaker = Callable[[str], Tensor | None]


def random_source(seed: int = 0, std: float = 0.02) -> TensorSource:
    """Random weights for tests: normal matrices, norms near one."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        return 1 + 0.1 * noise if len(shape) == 1 else std * noise

    return tensor


class SelfAttention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, config: LlamaConfig, projection: Callable[[str], FrozenLinear], bias: BiasMaker) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj, self.q_bias = _projection("q_proj", projection, bias)
        self.k_proj, self.k_bias = _projection("k_proj", projection, bias)
        self.v_proj, self.v_bias = _projection("v_proj", projection, bias)
        self.o_proj, self.o_bias = _projection("o_proj", projection, bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention: Attention, layer: int) -> Tensor:
        """Attention output: x (T, C) → (T, C)."""
        q = _biased(self.q_proj(x), self.q_bias).unflatten(-1, (-1, self.head_dim))  # (T, H, D)
        k = _biased(self.k_proj(x), self.k_bias).unflatten(-1, (-1, self.head_dim))  # (T, K, D)
        v = _biased(self.v_proj(x), self.v_bias).unflatten(-1, (-1, self.head_dim))
        out = attention.attend(rotate(q, cos, sin), rotate(k, cos, sin), v, layer)
        return _biased(self.o_proj(out.flatten(1)), self.o_bias)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """The gated feed-forward block."""

    def __init__(self, projection: Callable[[str], FrozenLinear], bias: BiasMaker) -> None:
        super().__init__()
        self.gate_proj, self.gate_bias = _projection("gate_proj", projection, bias)
        self.up_proj, self.up_bias = _projection("up_proj", projection, bias)
        self.down_proj, self.down_bias = _projection("down_proj", projection, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Feed-forward output: x (T, C) → (T, C)."""
        gate, up = _biased(self.gate_proj(x), self.gate_bias), _biased(self.up_proj(x), self.up_bias)
        return _biased(self.down_proj(swiglu(gate, up)), self.down_bias)  # type: ignore[no-any-return]


def _projection(
    name: str, projection: Callable[[str], FrozenLinear], bias: BiasMaker
) -> tuple[nn.Module, Tensor | None]:
    """A projection and its bias, in the order of the weights; the bias is no part of the module, which others replace."""
    made, vector = projection(name), bias(name)
    return made, None if vector is None else nn.Buffer(vector)


def _biased(y: Any, bias: Tensor | None) -> Any:
    return y if bias is None else y + bias


class Layer(nn.Module):
    """One transformer layer: attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, config: LlamaConfig, index: int, tensor: TensorSource, linear: LinearMaker) -> None:
        super().__init__()
        prefix, shapes = f"model.layers.{index}", config.linear_shapes()
        self.index, self.eps = index, config.rms_eps

        def projection(name: str) -> FrozenLinear:
            return linear(tensor(f"{prefix}.{projection_path(name)}.weight", shapes[name]))

        def bias(name: str) -> Tensor | None:
            return tensor(f"{prefix}.{projection_path(name)}.bias", shapes[name][:1]) if name in config.biases else None

        width = (config.hidden_size,)
        self.input_layernorm: Tensor = nn.Buffer(tensor(f"{prefix}.input_layernorm.weight", width))
        self.post_attention_layernorm: Tensor = nn.Buffer(tensor(f"{prefix}.post_attention_layernorm.weight", width))
        self.self_attn = SelfAttention(config, projection, bias)
        self.mlp = MLP(projection, bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
        """Layer output: x (T, C) → (T, C)."""
        x = x + self.self_attn(rms_norm(x, self.input_layernorm, self.eps), cos, sin, attention, self.index)
        return x + self.mlp(rms_norm(x, self.post_attention_layernorm, self.eps))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """Llama over one flat stream of tokens; the module says what is unusual.

    Args:
        config: Its shape.
        tensor: Gives each weight by its Hugging Face name and shape; asked in the order of the layers, once each.
        linear: Turns a projection's weight into its frozen, perhaps quantised, module.

    Attributes:
        checkpointing: Recompute each layer in backward instead of keeping its inside (Chen et al. 2016; report §5.3).
        head_logits: Takes the place of the dense head where that is kept otherwise (`stilnovo.engine.loss`).
    """

    def __init__(
        self, config: LlamaConfig, tensor: TensorSource | None = None, linear: LinearMaker = DenseLinear
    ) -> None:
        super().__init__()
        tensor = tensor or random_source()
        self.config = config
        self.checkpointing = False
        self.head_logits: Callable[[Tensor], Tensor] | None = None
        table = (config.vocab_size, config.hidden_size)
        self.embed_tokens: Tensor = nn.Buffer(tensor("model.embed_tokens.weight", table))
        self.rotary = RotaryTable(config)
        self.layers = nn.ModuleList(Layer(config, index, tensor, linear) for index in range(config.layers))
        self.norm: Tensor = nn.Buffer(tensor("model.norm.weight", (config.hidden_size,)))
        self.lm_head: Tensor | None = None if config.tie_embeddings else nn.Buffer(tensor("lm_head.weight", table))

    @property
    def device(self) -> torch.device:
        """Device on which the model computes."""
        return self.norm.device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the model computes."""
        return self.norm.dtype

    @property
    def head(self) -> Tensor:
        """The output head (V, C); the embedding itself when tied."""
        return self.embed_tokens if self.lm_head is None else self.lm_head

    def embed(self, tokens: Tensor) -> Tensor:
        """Embed token ids (T,) as vectors (T, C), from wherever the table lies."""
        table = self.embed_tokens
        return F.embedding(tokens.to(table.device), table).to(self.device, self.dtype)

    def hidden(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Compute final normalised hidden states (T, C) of tokens (T,) at positions (T,)."""
        x = self.embed(tokens)
        cos, sin = self.rotary(positions, x.dtype)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, attention, use_reentrant=False)
            else:
                x = layer(x, cos, sin, attention)
        return rms_norm(x, self.norm, self.config.rms_eps)

    def replace_head(self, logits: Callable[[Tensor], Tensor]) -> None:
        """Replace the output head by a function; the dense head is freed unless it is tied to the embedding."""
        self.head_logits = logits
        if self.lm_head is not None:
            self.lm_head = self.lm_head.new_empty(0, self.config.hidden_size)  # no logits come of it

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits (R, V) in fp32 from hidden states (R, C)."""
        if self.head_logits is not None:
            return self.head_logits(hidden)
        if self.head.dtype == hidden.dtype:
            return F.linear(hidden, self.head).float()
        return torch.cat([F.linear(hidden, part).float() for _, part in row_tiles(self.head, hidden.dtype)], dim=-1)

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Compute logits (T, V) of every token; for tests and short texts (V is large)."""
        return self.logits(self.hidden(tokens, positions, attention))


def narrow_rows(table: Tensor, dtype: torch.dtype, most: int | None = None) -> int:
    """Rows of an embedding or head that a product takes at once: `most` (all), fewer of a table of another type.

    Such a table, of 16 bits beside products in fp32, becomes wide a tile at a time: whole it would be twice what is kept.
    """
    rows = most or len(table)
    return rows if table.dtype == dtype else max(1, min(rows, HEAD_TILE_BYTES // (dtype.itemsize * table.shape[1])))


def row_tiles(table: Tensor, dtype: torch.dtype, most: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Iterate over (first row, rows in `dtype`) of an embedding or head; see `narrow_rows`."""
    step = narrow_rows(table, dtype, most)
    for start in range(0, len(table), step):
        yield start, table[start : start + step].to(dtype)


@contextmanager
def evaluating(model: Llama) -> Iterator[None]:
    """Context manager: evaluation mode (dropout off)."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
