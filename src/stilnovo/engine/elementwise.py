"""The element-wise parts of a layer's explicit step, in torch or by one kernel each, as `kernels.wanted` says.

Where no gradient is wanted `stilnovo.model.functions` chooses in the same way, and `stilnovo.generate.elementwise_step` while
a card writes.

All of them work in place where they can. In torch they go in sub-tiles of `part` bytes in fp32, so that their temporaries
stay small; the kernels have none. Shape letters as in `blocks.py`: T tokens, t of a tile, C hidden size, F feed-forward size, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model import kernels
from stilnovo.model.functions import at_least_single
from stilnovo.model.kernels import operators
from stilnovo.plan.levers import ELEMENTWISE_BYTES, sub_tile


def normed(x: Tensor, weight: Tensor, eps: float, part: int = ELEMENTWISE_BYTES, out: Tensor | None = None) -> Tensor:
    """RMSNorm (report eq. 1) of (t, C), into `out` where given (not x); the weight is taken in x's type."""
    out, weight = torch.empty_like(x) if out is None else out, weight.to(x.dtype)
    if kernels.wanted(x.device):
        operators.rms_norm(x, weight, eps, out)
        return out
    for rows in _sub_tiles(x, part):
        wide = at_least_single(x[rows])
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True).add_(eps))
        torch.mul((wide * scale).to(x.dtype), weight, out=out[rows])
    return out


def added_normed(x: Tensor, residual: Tensor, weight: Tensor, eps: float, part: int = ELEMENTWISE_BYTES) -> Tensor:
    """Add the residual to x (t, C), in place, and then RMSNorm of it."""
    if not kernels.wanted(x.device):
        return normed(x.add_(residual), weight, eps, part)
    out = torch.empty_like(x)
    operators.add_rms_norm(x, residual, weight.to(x.dtype), eps, out)
    return out


def norm_backward_(grad: Tensor, x: Tensor, weight: Tensor, eps: float, part: int = ELEMENTWISE_BYTES) -> Tensor:
    """Gradient of x from that of `normed(x)`, written over `grad`: with n = x·r, r (w g − n · mean(n w g))."""
    weight = weight.to(x.dtype)
    if kernels.wanted(x.device):
        operators.rms_norm_backward_(grad, x, weight, eps)
        return grad
    for rows in _sub_tiles(x, part):
        wide = at_least_single(x[rows])
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True).add_(eps))
        wide = wide * scale
        slope = at_least_single(grad[rows] * weight)
        inner = (slope * wide).mean(-1, keepdim=True)
        grad[rows] = slope.sub_(wide.mul_(inner)).mul_(scale)
    return grad


def norm_backward_add(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, total: Tensor, part: int = ELEMENTWISE_BYTES
) -> None:
    """Add the gradient of x from that of `normed(x)` to `total`; `grad` may be written over."""
    if kernels.wanted(x.device):
        operators.rms_norm_backward_add(grad, x, weight.to(x.dtype), eps, total)
    else:
        total += norm_backward_(grad, x, weight, eps, part)


def norm_backward_again(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, total: Tensor, part: int = ELEMENTWISE_BYTES
) -> Tensor:
    """The same, and `normed(x)` over `grad`, which is returned."""
    if kernels.wanted(x.device):
        operators.rms_norm_backward_again(grad, x, weight.to(x.dtype), eps, total)
        return grad
    norm_backward_add(grad, x, weight, eps, total, part)
    return normed(x, weight, eps, part, grad)


def gated(gate: Tensor, up: Tensor, part: int = ELEMENTWISE_BYTES) -> Tensor:
    """Gated activation SiLU(gate) · up (report eq. 5), (t, F)."""
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    if kernels.wanted(gate.device):
        operators.swiglu(gate, up, out)
        return out
    for rows in _sub_tiles(gate, part):
        torch.mul(F.silu(gate[rows]), up[rows], out=out[rows])
    return out


def gated_backward_(grad: Tensor, gate: Tensor, up: Tensor, part: int = ELEMENTWISE_BYTES) -> None:
    """From the gradient of `gated(gate, up)`: gradients of gate and up over them, and the product itself over `grad`."""
    if kernels.wanted(gate.device):
        operators.swiglu_backward(grad, gate, up)
        return
    for rows in _sub_tiles(gate, part):
        silu, slope = F.silu(gate[rows]), grad[rows] * up[rows]
        torch.ops.aten.silu_backward.grad_input(slope, gate[rows], grad_input=gate[rows])
        torch.mul(silu, up[rows], out=slope)
        torch.mul(silu, grad[rows], out=up[rows])
        grad[rows] = slope
        del silu, slope


def rotate_(x: Tensor, cos: Tensor, sin: Tensor, part: int = ELEMENTWISE_BYTES, *, back: bool = False) -> None:
    """Rotary embedding (report eq. 3) of (T, heads, D), in place; `back` undoes it, which is also its gradient."""
    if kernels.wanted(x.device):
        operators.rotate(x, cos, sin, back, x)
        return
    sign = -1 if back else 1
    for rows in _sub_tiles(x, part):
        first, second = x[rows].chunk(2, dim=-1)
        before = first.clone()
        first.mul_(cos[rows]).addcmul_(second, sin[rows], value=-sign)
        second.mul_(cos[rows]).addcmul_(before, sin[rows], value=sign)


def rotated_back(gradients: Sequence[Tensor], places: Sequence[Tensor], cos: Tensor, sin: Tensor, part: int) -> None:
    """Gradients of rotated q and k and of v (T, heads, D) into `places`, those of q and k rotated back."""
    turned = kernels.wanted(cos.device)
    for index, (gradient, place) in enumerate(zip(gradients, places, strict=True)):
        if turned and index < 2:
            operators.rotate(gradient, cos, sin, True, place)
            continue
        place.copy_(gradient)
        if index < 2:
            rotate_(place, cos, sin, part, back=True)


def tiles(tokens: int, size: int | None) -> Iterator[slice]:
    """Slices of at most `size` that cover 0 … tokens-1."""
    step = size or tokens
    for start in range(0, tokens, step):
        yield slice(start, min(start + step, tokens))


def _sub_tiles(x: Tensor, part: int) -> Iterator[slice]:
    return tiles(x.shape[0], sub_tile(x[0].numel(), part))
