"""Explicit forward and backward of one Llama layer, to control what is alive at each moment.

All parts that look at one token at a time (norms, projections, MLP, residuals) run over tiles of the stream; only
attention sees whole documents, and it may run over groups of heads. At the narrowest moment a token then holds, in units
of the hidden size: the gradient, the layer's input, the attention's output and its gradient, the gradient of the normed
input, and one group's share of the rest.

What backward does not need is not computed again: neither the down projection (16 % of a Llama 3 layer is never
recomputed) nor anything that was kept.

Equations are those of `stilnovo.model.llama` (report eq. 1–5, 7); derivatives are written beside the lines that need it.
Shape letters: T tokens, t of a tile, C hidden size, F feed-forward size, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from stilnovo.engine.elementwise import (
    added_normed,
    gated,
    gated_backward_,
    norm_backward_add,
    norm_backward_again,
    normed,
    rotate_,
    rotated_back,
    tiles,
)
from stilnovo.engine.matmul import add_matmul_, matmul
from stilnovo.engine.packed_attention import Kernel
from stilnovo.engine.product import Product, Sink, on_card
from stilnovo.model.llama import Layer
from stilnovo.model.lora_linear import LoraLinear
from stilnovo.plan.levers import FUSED_BYTES, LayerChoice, Levers


@dataclass
class Saved:
    """Activations that a layer's forward saves for its backward; all but `x` may be missing and are then recomputed.

    `out` is attention's output: with it and what the kernel keeps (`kernel`), attention's forward is not repeated.
    """

    x: Tensor
    qkv: list[Tensor] = field(default_factory=list)
    out: Tensor | None = None
    h: Tensor | None = None
    gate_up: list[Tensor] = field(default_factory=list)
    kernel: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Stream:
    """Shared by all layers in one pass: rotary tables (T, 1, D/2) and the attention kernel of these documents."""

    cos: Tensor
    sin: Tensor
    kernel: Kernel


class LayerEngine:
    """One layer's explicit passes under the levers, in `dtype`."""

    def __init__(self, layer: Layer, head_dim: int, levers: Levers, dtype: torch.dtype) -> None:
        self.layer, self.levers, self.head_dim, self.part = layer, levers, head_dim, levers.elementwise_bytes
        attn, mlp, keep = layer.self_attn, layer.mlp, levers.keep_dense
        self.qkv = Product(
            [attn.q_proj, attn.k_proj, attn.v_proj], [attn.q_bias, attn.k_bias, attn.v_bias], keep_dense=keep
        )
        self.o = Product([attn.o_proj], [attn.o_bias], keep_dense=keep)
        both, biases = [mlp.gate_proj, mlp.up_proj], [mlp.gate_bias, mlp.up_bias]
        size = sum(Product([m]).outputs for m in both) * self.qkv.inputs * dtype.itemsize
        fused = size <= FUSED_BYTES
        parts = [(both, biases)] if fused else [([m], [bias]) for m, bias in zip(both, biases, strict=True)]
        self.gate_up = [Product(modules, vectors, keep_dense=keep) for modules, vectors in parts]
        self.down = Product([mlp.down_proj], [mlp.down_bias], keep_dense=keep)
        self.groups = _head_groups(self.qkv, head_dim, levers.attention_groups)
        self.products = (self.qkv, self.o, *self.gate_up, self.down)

    def forward(self, x: Tensor, stream: Stream, choice: LayerChoice | None) -> tuple[Tensor, Saved]:
        """Forward one layer: x (T, C) → (T, C), and the activations `choice` saves; None saves nothing and overwrites x."""
        saved, keep = Saved(x=x), choice in ("keep", "offload")
        out, kernel, qkv = self._attention(x, stream, keep=keep)
        y = x if choice is None else torch.empty_like(x)
        if choice not in (None, "recompute"):
            saved.kernel, saved.out = kernel, out
        if keep:
            saved.qkv = qkv
            saved.h = torch.empty_like(x)
            saved.gate_up = [x.new_empty(x.shape[0], product.outputs) for product in self.gate_up]
        inside = on_card(x) and choice in ("attention", "recompute")  # the residual's sum grows in the output's place
        for rows in tiles(x.shape[0], self.levers.tile):
            h = self.o.forward(out[rows], saved.h[rows] if saved.h is not None else y[rows] if inside else None)
            wide = added_normed(h, x[rows], self.layer.post_attention_layernorm, self.layer.eps, self.part)
            places = [whole[rows] for whole in saved.gate_up] if keep else [None] * len(self.gate_up)
            branches = [p.forward(wide, place) for p, place in zip(self.gate_up, places, strict=True)]
            del wide
            act = gated(*_two(branches), self.part)
            del branches
            self.down.forward_add(act, h, None if inside else y[rows])
        return y, saved

    def backward(self, grad: Tensor, saved: Saved, stream: Stream, sink: Sink, *, wanted: bool) -> None:
        """Backward one layer: turn the gradient (T, C) of the output into the input's, in place; partial where not `wanted`."""
        x, ungrouped = saved.x, len(self.groups) == 1
        if saved.out is None:
            out, kernel, qkv = self._attention(x, stream, keep=ungrouped)
        else:
            out, kernel, qkv = saved.out, saved.kernel, saved.qkv
        d_out = torch.empty_like(out)
        for rows in tiles(x.shape[0], self.levers.tile):
            self._token_wise_backward(rows, grad, x, out, d_out, saved, sink)
        saved.h, saved.gate_up = None, []
        if ungrouped:
            inside = qkv.pop() if qkv else self._group_qkv(x, self.groups[0], None, None, stream)
            d_qkv = self._attend_backward(0, d_out, inside, out, kernel[0], stream)
            del d_out, out
            weight, eps = self.layer.input_layernorm, self.layer.eps
            for rows in tiles(x.shape[0], self.levers.tile):  # through the projections and the first norm
                if not wanted:
                    self.qkv.adapter_backward(d_qkv[rows], normed(x[rows], weight, eps, self.part), sink)
                    continue
                wide, d_low = self.qkv.backward_input(d_qkv[rows])  # the norm's gradient, then the norm itself
                norm_backward_again(wide, x[rows], weight, eps, grad[rows], self.part)
                self.qkv.adapter_backward(d_qkv[rows], wide, sink, d_low)
        else:
            self._grouped_backward(grad, x, d_out, out, qkv, kernel, stream, sink)

    def _attention(self, x: Tensor, stream: Stream, *, keep: bool) -> tuple[Tensor, list[Any], list[Tensor]]:
        """Forward attention: output (T, H·D), what its kernels save, and with `keep` each group's rotated q, k, v."""
        kernels: list[Any] = []
        all_qkv: list[Tensor] = []
        out: Tensor | None = None
        low = self._low(x) if len(self.groups) > 1 else None
        dense = self.qkv.dense(x.dtype) if len(self.groups) > 1 else None
        for group in self.groups:
            qkv = self._group_qkv(x, group, dense, low, stream)
            q, k, v = group.heads(qkv, self.head_dim)
            heads_out, rest = stream.kernel.forward(q, k, v)
            del q, k, v
            kernels.append(rest)
            if keep:
                all_qkv.append(qkv)
            del qkv
            if len(self.groups) == 1:
                out = heads_out.reshape(x.shape[0], -1)
            else:
                out = out if out is not None else x.new_empty(x.shape[0], self.o.inputs)
                out[:, group.rows[0]] = heads_out.flatten(1)
            del heads_out
        assert out is not None
        return out, kernels, all_qkv

    def _low(self, x: Tensor) -> Tensor:
        """Low-rank products x Aᵀ of q, k and v after the norm, tile by tile, (T, R)."""
        down = self.qkv.down(x)
        low = x.new_empty(x.shape[0], down.shape[0])
        for rows in tiles(x.shape[0], self.levers.tile) if len(down) else ():
            matmul(normed(x[rows], self.layer.input_layernorm, self.layer.eps, self.part), down.T, low[rows])
        return low

    def _group_qkv(self, x: Tensor, group: _Heads, dense: Tensor | None, low: Tensor | None, stream: Stream) -> Tensor:
        """Rotated queries and keys, and values, of a group of heads, side by side (T, width)."""
        qkv = x.new_empty(x.shape[0], group.columns[2].stop)
        weight = None if dense is None else torch.cat([dense[rows] for rows in group.rows])
        for rows in tiles(x.shape[0], self.levers.tile):
            wide = normed(x[rows], self.layer.input_layernorm, self.layer.eps, self.part)
            if weight is None:
                self.qkv.forward(wide, qkv[rows])
                continue
            matmul(wide, weight.T, qkv[rows])
            for part, adapter, ranks in self.qkv.adapted():
                assert low is not None
                index = self.qkv.parts.index(part)
                b = self.qkv.narrow(adapter.lora_B, x.dtype)[group.local[index]]
                add_matmul_(qkv[rows, group.columns[index]], low[rows, ranks], b.T, adapter.scale)
            for index, bias in self.qkv.biases:
                qkv[rows, group.columns[index]] += bias[group.local[index]]
        rotate_(group.rotating(qkv, self.head_dim), stream.cos, stream.sin, self.part)
        return qkv

    def _token_wise_backward(
        self, rows: slice, grad: Tensor, x: Tensor, out: Tensor, d_out: Tensor, saved: Saved, sink: Sink
    ) -> None:
        """Backward MLP, second norm and output projection: `grad[rows]` becomes the gradient of the attention residual."""
        eps, weight = self.layer.eps, self.layer.post_attention_layernorm
        wide = None
        if saved.h is None:
            h = self.o.forward(out[rows])
            wide = added_normed(h, x[rows], weight, eps, self.part)
        else:
            h = saved.h[rows]
        if saved.gate_up:
            branches = [whole[rows] for whole in saved.gate_up]
        else:
            wide = normed(h, weight, eps, self.part) if wide is None else wide
            branches = [product.forward(wide) for product in self.gate_up]
        slope = grad[rows]
        act, d_low = self.down.backward_input(slope)  # the gradient of the product, until the product takes its place
        gated_backward_(act, *_two(branches), self.part)
        self.down.adapter_backward(slope, act, sink, d_low)
        del act, d_low
        d_wide, *lows = self.gate_up[0].backward_input(branches[0])
        for product, branch in zip(self.gate_up[1:], branches[1:], strict=True):
            lows.append(product.backward_input(branch, d_wide)[1])
        if wide is None:
            wide = norm_backward_again(d_wide, h, weight, eps, slope, self.part)
        else:
            norm_backward_add(d_wide, h, weight, eps, slope, self.part)
        del d_wide
        for product, branch, d_low in zip(self.gate_up, branches, lows, strict=True):
            product.adapter_backward(branch, wide, sink, d_low)
        del wide, branches, branch
        d_out[rows] = self.o.backward(slope, out[rows], sink)

    def _attend_backward(
        self, index: int, d_out: Tensor, qkv: Tensor, out: Tensor, kernel: Any, stream: Stream
    ) -> Tensor:
        """Gradient (T, width) of a group's projections, before rotation, from that of its output."""
        group = self.groups[index]
        q, k, v = group.heads(qkv, self.head_dim)
        columns = group.rows[0]
        shape = (out.shape[0], -1, self.head_dim)
        gradients = stream.kernel.backward(
            d_out[:, columns].reshape(shape), q, k, v, out[:, columns].reshape(shape), kernel
        )
        # over q, k and v, which nobody needs any more
        rotated_back(gradients, group.heads(qkv, self.head_dim), stream.cos, stream.sin, self.part)
        return qkv

    def _grouped_backward(
        self, grad: Tensor, x: Tensor, d_out: Tensor, out: Tensor, qkv: list[Tensor], kernel: list[Any],
        stream: Stream, sink: Sink,
    ) -> None:  # fmt: skip
        """Attention's backward one group of heads at a time; q, k and v of a group are computed again unless kept."""
        weight, eps = self.layer.input_layernorm, self.layer.eps
        low, dense = self._low(x), self.qkv.dense(x.dtype)
        d_low = torch.zeros_like(low)
        d_wide = torch.zeros_like(x)
        for index, group in enumerate(self.groups):
            part = qkv[index] if qkv else self._group_qkv(x, group, dense, low, stream)
            d_qkv = self._attend_backward(index, d_out, part, out, kernel[index], stream)
            del part
            matrix = torch.cat([dense[rows] for rows in group.rows])
            for rows in tiles(x.shape[0], self.levers.tile):
                add_matmul_(d_wide[rows], d_qkv[rows], matrix)
            for which, adapter, ranks in self.qkv.adapted():
                position = self.qkv.parts.index(which)
                slope, local = d_qkv[:, group.columns[position]], group.local[position]
                b = self.qkv.narrow(adapter.lora_B, x.dtype)[local]
                add_matmul_(d_low[:, ranks], slope, b, adapter.scale)
                if isinstance(adapter, LoraLinear):
                    sink.add(adapter.lora_B, matmul(slope.T, low[:, ranks]).mul_(adapter.scale), local)
                del slope  # a view: the next group would be computed beside all of this one's gradients
            del d_qkv, matrix
        del dense, d_out, out
        down = self.qkv.down(x)
        for rows in tiles(x.shape[0], self.levers.tile):
            if len(down):
                add_matmul_(d_wide[rows], d_low[rows], down)
            wide = norm_backward_again(d_wide[rows], x[rows], weight, eps, grad[rows], self.part)
            self.qkv.finish(d_low[rows], wide, sink)


@dataclass(frozen=True)
class _Heads:
    """A group of heads: its rows in the joint projection, in each projection, and its columns in its own (T, width)."""

    rows: tuple[slice, ...]
    local: tuple[slice, ...]
    columns: tuple[slice, ...]

    def heads(self, qkv: Tensor, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Views (T, heads, D) of queries, keys and values."""
        q, k, v = (qkv[:, columns].view(len(qkv), -1, head_dim) for columns in self.columns)
        return q, k, v

    def rotating(self, qkv: Tensor, head_dim: int) -> Tensor:
        """A view (T, heads, D) of queries and keys together."""
        return qkv[:, : self.columns[1].stop].view(len(qkv), -1, head_dim)


def _head_groups(qkv: Product, head_dim: int, count: int) -> list[_Heads]:
    """Split the heads into `count` equal groups, each with its key/value heads and their queries."""
    q, k, v = (part.columns.stop - part.columns.start for part in qkv.parts)
    assert (k // head_dim) % count == 0, "groups of heads must hold whole key/value heads"
    sizes = (q // count, k // count, v // count)
    columns = tuple(slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True))
    groups = []
    for index in range(count):
        local = tuple(slice(index * size, (index + 1) * size) for size in sizes)
        rows = tuple(slice(start + at.start, start + at.stop) for start, at in zip((0, q, q + k), local, strict=True))
        groups.append(_Heads(rows, local, columns))
    return groups


def _two(branches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Gate and up, whether they were computed together or apart."""
    gate, up = branches if len(branches) == 2 else branches[0].chunk(2, dim=-1)
    return gate, up
