"""Three operations with a memory-saving backward: each saves only what its backward reads.

Where no gradient is wanted, an evaluation or a token on a card, each is one kernel if kernels are used there.

All weights of the base are frozen, so no backward here computes a weight gradient: that alone is a third of the
arithmetic of full training (2N instead of 4N FLOPs a token backward, N parameters).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.model import kernels
from stilnovo.model.kernels import operators


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        # d silu / d gate = σ(g) + silu(g) (1 − σ(g))
        d_gate = (1 - sigmoid).mul_(silu).add_(sigmoid).mul_(up).mul_(grad)
        return d_gate, silu.mul_(grad)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU: SiLU(gate) · up, elementwise (Shazeer 2020, eq. 5; report §3). Saves its two inputs, not the product's parts."""
    if _by_kernel(gate, up):
        out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        operators.swiglu(_rows(gate), _rows(up), _rows(out))
        return out
    return _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call, no-any-return]


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = at_least_single(x)
        rstd = torch.rsqrt((x32 * x32).mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weight, rstd)
        # The product in fp32 (or more), rounded to the model's type before the weight: as transformers and the original do.
        return weight * (x32 * rstd).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, rstd = ctx.saved_tensors
        normed = at_least_single(x) * rstd
        scaled = at_least_single(grad * weight)
        inner = (scaled * normed).mean(-1, keepdim=True)
        return scaled.sub_(normed.mul_(inner)).mul_(rstd).to(x.dtype), None, None


def at_least_single(x: Tensor) -> Tensor:
    """Convert x to fp32, unless its own type is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm: x / sqrt(mean(x²) + eps) · weight over the last dimension (Zhang & Sennrich 2019, eq. 4; report eq. 1)."""
    if _by_kernel(x, weight):
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        operators.rms_norm(_rows(x), weight, eps, _rows(out))
        return out
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call, no-any-return]


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None  # the transpose of a rotation is the rotation back


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = torch.empty_like(x)
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, eq. 34; report eq. 3) of x (T, heads, D) with cos, sin (T, 1, D/2).

    Dimension i turns with dimension i + D/2 (the layout of transformers' checkpoints; GGUF's is undone on loading).
    """
    if x.dim() == 3 and x.stride(2) == 1 and _by_kernel(x, cos):
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        operators.rotate(x, cos, sin, False, out)
        return out
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call, no-any-return]


def _by_kernel(x: Tensor, other: Tensor) -> bool:
    """Whether a kernel takes these two: of one type, on a card that uses them, and nobody asks for a gradient."""
    if not kernels.wanted(x.device) or x.dtype != other.dtype or x.dtype == torch.float64:
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or other.requires_grad))


def _rows(x: Tensor) -> Tensor:
    """View x as rows of its last dimension, which lie side by side."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
