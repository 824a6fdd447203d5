"""Quantisation-aware training of an adapter (2024 report §5.1).

A plain adapter is trained on W x + s · B (A x) and merged and rounded afterwards; rounding then moves every weight by up to
half a grid step, which the training never saw. Here the forward pass computes with Q(W + s · B·A), Q being the affine int8
or int4 rounding of `quantize.AffineLinear` and exactly what an export ships, and the adapter learns to make the
rounded matrix good.

Rounding has no useful derivative, so its gradient is taken as the identity (straight-through; Bengio et al. 2013). With
dW = gradᵀ x that gives dB = s · dW Aᵀ and dA = s · Bᵀ dW, which need no dW: dB = s · gradᵀ (x Aᵀ), dA = (s · grad B)ᵀ x. So
memory is that of a plain adapter plus one dense matrix at a time, and the price is a rounding of W in each direction.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.model.lora import adapters, replace_projection
from stilnovo.model.lora_linear import LoraLinear, merged_weight
from stilnovo.model.quantize import AffineLinear

Bits = Literal[8, 4]


class _QuantizationAware(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: QuantizationAwareLinear, a: Tensor, b: Tensor) -> Tensor:
        ctx.module = module
        # Saved though the module has them: autograd refuses a backward after they were changed in place.
        ctx.save_for_backward(x, a, b)
        return F.linear(x, module.effective(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        x, a, b = ctx.saved_tensors
        scale = ctx.module.scale
        low = x @ a.to(x.dtype).T
        d_b = (grad.T @ low).mul_(scale).to(b.dtype)
        d_low = (grad @ b.to(grad.dtype)).mul_(scale)
        d_a = (d_low.T @ x).to(a.dtype)
        d_x = grad @ ctx.module.effective(grad.dtype) if ctx.needs_input_grad[0] else None
        return d_x, None, d_a, d_b


class QuantizationAwareLinear(LoraLinear):
    """A frozen projection with its adapter, computed as the rounded merge of both.

    Args:
        plain: The adapted projection; base, A and B are shared with it.
        bits: Width of the rounding; None switches it off, which leaves plain LoRA computed on the merged matrix.
    """

    def __init__(self, plain: LoraLinear, bits: Bits | None) -> None:
        nn.Module.__init__(self)
        self.base, self.scale, self.dropout, self.enabled = plain.base, plain.scale, 0.0, plain.enabled
        self.lora_A, self.lora_B = plain.lora_A, plain.lora_B
        self.bits = bits

    def effective(self, dtype: torch.dtype) -> Tensor:
        """Rounded merged weight Q(W + s · B·A) (out, in) in `dtype`."""
        if self.bits is None:
            return merged_weight(self).to(dtype)
        return AffineLinear(merged_weight(self), self.bits).dense(dtype)  # the merged one is let go of between

    def forward(self, x: Tensor) -> Tensor:
        """Output of the projection: x (T, in) → (T, out)."""
        if not self.enabled:
            return self.base(x)  # type: ignore[no-any-return]
        return _QuantizationAware.apply(x, self, self.lora_A, self.lora_B)  # type: ignore[no-untyped-call, no-any-return]


def make_aware(model: Llama, bits: Bits | None) -> None:
    """Make the training of all adapters quantisation-aware (`bits`), in place; parameters stay the same objects.

    Raises:
        InputError: without an adapter, or with dropout, which has no meaning for a merged matrix.
    """
    adapted = adapters(model)
    if not adapted:
        raise InputError("There is no adapter to train.", next="Attach one first.")
    if any(module.dropout and not isinstance(module, QuantizationAwareLinear) for module in adapted.values()):
        raise InputError(
            "Quantisation-aware training computes with the merged matrix and knows no dropout.",
            next="Set lora.dropout to 0.",
        )
    for path, module in adapted.items():
        replace_projection(model, path, QuantizationAwareLinear(module, bits))
