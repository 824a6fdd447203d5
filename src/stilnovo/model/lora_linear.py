"""One projection with its LoRA adapter: y = W x + s · B (A x), with W frozen (Hu et al. 2022, eq. 3; report eq. 7–8).

A starts random, B at zero, so that training starts exactly at the base model. The 2024 report says that both are drawn
from a Gaussian: then B·A ≠ 0, the model is perturbed by noise of size s·r·σ² before the first step, and "before" would
no longer be the base. With both at zero no gradient would ever flow (∂L/∂A contains B, ∂L/∂B contains A): one of them
must be zero and the other not.

Unusual: adapters are kept and learn in fp32 whatever the model's type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.shape import LoraConfig


@dataclass(frozen=True)
class LowRank:
    """A low-rank update s · B·A of one matrix: A (r, in), B (out, r)."""

    a: Tensor
    b: Tensor
    scale: float


class _LoraLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, base: FrozenLinear, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.kept_dtype = a.dtype
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = x @ a.T
        ctx.base, ctx.scale = base, scale
        ctx.save_for_backward(x, low, a, b)
        return F.linear(x, base.dense(x.dtype)).addmm_(low, b.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, low, a, b = ctx.saved_tensors
        d_low = (grad @ b).mul_(ctx.scale)  # (T, r): the small products first
        d_b = (grad.T @ low).mul_(ctx.scale).to(ctx.kept_dtype)
        d_a = (d_low.T @ x).to(ctx.kept_dtype)
        d_x = (grad @ ctx.base.dense(x.dtype)).addmm_(d_low, a) if ctx.needs_input_grad[0] else None
        return d_x, None, d_a, d_b, None


class LoraLinear(nn.Module):
    """A frozen projection with its LoRA adapter; `enabled = False` gives the base alone."""

    def __init__(
        self, base: FrozenLinear, config: LoraConfig, generator: torch.Generator | None = None,
        update: LowRank | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.base, self.dropout, self.enabled = base, config.dropout, True
        device = device or next(base.buffers()).device
        if update is None:  # a new one
            # Kaiming-uniform with a = √5, i.e. uniform in ±1/√in, as PEFT starts A.
            bound = 1 / math.sqrt(base.in_features)
            a = torch.empty(config.r, base.in_features).uniform_(-bound, bound, generator=generator)
            update = LowRank(a, torch.zeros(base.out_features, config.r, device=device), config.scale)
        self.scale = update.scale
        self.lora_A = nn.Parameter(update.a.to(device, torch.float32))
        self.lora_B = nn.Parameter(update.b.to(device, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Output of the projection with its adapter: x (T, in) → (T, out)."""
        if not self.enabled:
            return self.base(x)  # type: ignore[no-any-return]
        if self.dropout and self.training:
            low = F.linear(F.dropout(x, self.dropout), self.lora_A.to(x.dtype))
            return self.base(x) + self.scale * F.linear(low, self.lora_B.to(x.dtype))  # type: ignore[no-any-return]
        frozen = self.base if isinstance(self.base, FrozenLoraLinear) else None
        weight = self.base if frozen is None else frozen.base
        y: Tensor = _LoraLinear.apply(x, weight, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-untyped-call]
        return y if frozen is None else y + frozen.low_rank(x)


class FrozenLoraLinear(FrozenLinear):
    """A frozen projection with a frozen adapter, a low-rank product of its own; A and B are kept in the model's type.

    Its `dense()` is the merged W + s · B·A, for those who need one matrix (`merged_weight`, quantisation-aware training).
    """

    def __init__(self, base: FrozenLinear, update: LowRank, dtype: torch.dtype) -> None:
        super().__init__(base.out_features, base.in_features)
        device = next(base.buffers()).device
        self.base, self.scale = base, update.scale
        self.lora_A: Tensor = nn.Buffer(update.a.to(device, dtype))
        self.lora_B: Tensor = nn.Buffer(update.b.to(device, dtype))

    def _make_dense(self, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        update = self.lora_B.to(wide) @ self.lora_A.to(wide)
        return self.base.dense(wide).add(update, alpha=self.scale).to(dtype)

    def keep_dense(self, dtype: torch.dtype | None) -> None:
        """See `FrozenLinear.keep_dense`; nothing here, the base beneath keeps its own."""

    def low_rank(self, x: Tensor) -> Tensor:
        """The adapter's part of the output, s · B (A x)."""
        return self.scale * F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Output of the projection with its adapter: x (T, in) → (T, out)."""
        return self.base(x) + self.low_rank(x)  # type: ignore[no-any-return]


def merged_weight(module: LoraLinear) -> Tensor:
    """Merge: W + s · B·A (out, in) in fp32, with W as the base computes it: dequantised, not the original checkpoint."""
    weight = module.base.dense_of_its_own(torch.float32)
    a, b = module.lora_A.detach().float(), module.lora_B.detach().float()
    return weight.addmm_(b, a, alpha=module.scale)
