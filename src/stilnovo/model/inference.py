"""The Llama read without a backward: the same numbers as `Llama.hidden`, fewer passes over memory.

On a CPU nearly all of the time of reading is matrix products, and most of the rest is memory: fresh results, sums and
gates that leave the cache before they are used. Here, in fp32 on a CPU, results are written into buffers made once a pass,
sums happen inside the products, everything after attention is done for a block of rows at a time, and the last layer
goes on with those rows only that are asked for. Elsewhere, and where dropout may be on, the model's own pass is taken.

Shape letters: T tokens, R rows asked for, N rows of a block, C hidden size, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stilnovo.model.attention import Attention
from stilnovo.model.functions import rotate
from stilnovo.model.llama import Layer, Llama
from stilnovo.model.lora import LoraLinear
from stilnovo.model.quantize import FrozenLinear

BLOCK_ROWS = 1024  # fewer, and the products slow down; more, and 2 x 1,536 x 4 bytes of each leave the cache


@torch.inference_mode()
def hidden_states(
    model: Llama, tokens: Tensor, positions: Tensor, attention: Attention, rows: Tensor | None = None
) -> Tensor:
    """Tokens (T,) at positions (T,) → final normalised hidden states of `rows` (R,), or of all: (R, C)."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or model.training:
        hidden = model.hidden(tokens, positions, attention)
        return hidden if rows is None else hidden[rows]
    x = model.embed(tokens)
    angles = model.rotary(positions, x.dtype)
    blocks = -(-len(x) // BLOCK_ROWS)
    room = _Room(model, len(x), -(-len(x) // blocks))
    for layer in model.layers:
        assert isinstance(layer, Layer)
        attended = _attended(layer, x, angles, attention, room)
        if rows is not None and layer is model.layers[-1]:
            x, attended = x[rows], attended[rows]
        for start in range(0, len(x), room.rows):
            block = slice(start, start + room.rows)
            _finish(layer, x[block], attended[block], room)
    return F.rms_norm(x, x.shape[-1:], model.norm, model.config.rms_eps)


class _Room:
    """Buffers of a pass: q, k and v of all tokens side by side, gate and up of a block of `rows` tokens."""

    def __init__(self, model: Llama, tokens: int, rows: int) -> None:
        config = model.config
        self.rows, self.heads, self.kv_heads = rows, config.heads, config.kv_heads
        self.qkv = torch.empty(tokens, (config.heads + 2 * config.kv_heads) * config.head_dim)
        self.gate, self.up = (torch.empty(rows, config.intermediate_size) for _ in range(2))


def _attended(layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor], attention: Attention, room: _Room) -> Tensor:
    """What a layer's attention finds for every token, (T, H·D)."""
    block = layer.self_attn
    normed = F.rms_norm(x, x.shape[-1:], layer.input_layernorm, layer.eps)
    start = 0
    for projection, heads in ((block.q_proj, room.heads), (block.k_proj, room.kv_heads), (block.v_proj, room.kv_heads)):
        stop = start + heads * block.head_dim
        _project(projection, normed, room.qkv[:, start:stop])
        start = stop
    qkv = room.qkv.view(len(x), -1, block.head_dim)  # (T, H + 2K, D)
    turned = rotate(qkv[:, : room.heads + room.kv_heads], *angles)
    v = qkv[:, room.heads + room.kv_heads :]
    return attention.attend(turned[:, : room.heads], turned[:, room.heads :], v, layer.index).flatten(1)


def _finish(layer: Layer, x: Tensor, attended: Tensor, room: _Room) -> None:
    """The rest of a layer for a block of rows (N, C), in place."""
    mlp = layer.mlp
    _project(layer.self_attn.o_proj, attended, x, add=True)
    normed = F.rms_norm(x, x.shape[-1:], layer.post_attention_layernorm, layer.eps)
    gate, up = room.gate[: len(x)], room.up[: len(x)]
    _project(mlp.gate_proj, normed, gate)
    _project(mlp.up_proj, normed, up)
    _project(mlp.down_proj, F.silu(gate, inplace=True).mul_(up), x, add=True)


def _project(projection: nn.Module, x: Tensor, out: Tensor, *, add: bool = False) -> None:
    """x (N, in) through a projection into `out` (N, out), or added to it."""
    adapted = projection if type(projection) is LoraLinear else None
    base = projection if adapted is None else adapted.base
    if not isinstance(base, FrozenLinear):  # quantisation-aware: its effective weight is its own affair
        result = base(x)
        out.add_(result) if add else out.copy_(result)
        return
    weight = base.dense(x.dtype)
    torch.addmm(out, x, weight.T, out=out) if add else torch.mm(x, weight.T, out=out)
    if adapted is not None and adapted.enabled:
        out.addmm_(x @ adapted.lora_A.to(x.dtype).T, adapted.lora_B.to(x.dtype).T, alpha=adapted.scale)
