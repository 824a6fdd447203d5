"""Products with frozen matrices on a card while text is written: a few tokens at a time, each weight read once as it is kept.

Dequantising a matrix for one token moves about nine times the bytes of its 4-bit form, and what writing costs on a card are
bytes. How each scheme is multiplied, and what of a weight is read or written for that (arithmetic, not measured):

| scheme | product | bytes a weight |
|---|---|---|
| `nf4`, `fp4` | bitsandbytes' `gemm_4bit`, which takes the nested scales as they are | 0.52 |
| `int8`, `int4` | a product for each group of 64 inputs with whole numbers in the model's type, scaled afterwards | 5, 6.5 |
| the same, up to 4 tokens | our kernel, where kernels are wanted (`kernels.few_tokens`) | 1.05, 0.55 |
| `none` | as everywhere | 2 |

`STILNOVO_CARD` chooses how a card writes: `captured` (these products, the whole step as one CUDA graph; what `auto` means),
`fused` (these products, launched one by one) or `plain` (every matrix dequantised for its product, as in training).

Unusual: nothing of a weight is kept a second time, and q, k and v stay three products, because their scales have offsets of
their own. Adapters are copied in the model's type when a text is begun (`CardProduct.refresh`): to convert them in each step
would move more bytes than their products do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stilnovo.model import kernels
from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.model.kernels import operators
from stilnovo.model.lora_linear import FrozenLoraLinear, LoraLinear
from stilnovo.model.processor import chosen_way
from stilnovo.model.quantize import AffineLinear, FourBitLinear, FrozenLinear
from stilnovo.plan.levers import BLOCK

CardWriting = Literal["captured", "fused", "plain"]

VARIABLE = "STILNOVO_CARD"
WAYS = ("captured", "fused", "plain")
#: Up to so many tokens at once a matrix is multiplied as it is kept; beyond, dequantising it once is cheaper: that moves 4 bytes a
#: weight more, the time of some 110 (RTX 4060) to 190 tokens (H200) of the arithmetic that a fused kernel loses beside cuBLAS if
#: it reaches a third of the card's peak. Below the limit bitsandbytes chooses once more, by its makers' measurements a card.
FUSED_TOKENS = 64
#: Up to so many our kernel reads affine weights no more often than torch's way moves bytes for them, whatever its cache holds.
_KERNEL_TOKENS = 4


def card_writing() -> CardWriting:
    """How a card writes: what `STILNOVO_CARD` says, else `captured`.

    Raises:
        InputError: when the variable names no way.
    """
    asked = chosen_way(VARIABLE, WAYS, "write")
    return "captured" if asked == "auto" else cast(CardWriting, asked)


def few_tokens_product(base: FrozenLinear) -> Callable[[Tensor], Tensor]:
    """The product x (T, in) → (T, out) with a frozen matrix for a few tokens, by the matrix's scheme."""
    if isinstance(base, FourBitLinear) and not base.in_features % BLOCK:
        return _FourBitProduct(base)
    if isinstance(base, AffineLinear) and not base.in_features % BLOCK:
        return _AffineProduct(base)
    return base


class _FourBitProduct:
    """bitsandbytes' product with 4-bit weights and nested scales, as they are kept."""

    def __init__(self, base: FourBitLinear) -> None:
        bitsandbytes_functional()  # defines the operator
        self._base = base

    def __call__(self, x: Tensor) -> Tensor:
        base = self._base
        if len(x) > FUSED_TOKENS:
            return F.linear(x, base.dense(x.dtype))
        return torch.ops.bitsandbytes.gemm_4bit.default(  # type: ignore[no-any-return]
            x.contiguous(), base.packed, [base.out_features, base.in_features], base.nested_absmax, BLOCK, base.scheme,
            absmax_8bit=base.absmax, absmax_code=base.nested_code, absmax_offset=base.offset.reshape(()),
        )  # fmt: skip


class _AffineProduct:
    """The product with affine weights w = s · (q − z), a group of inputs at a time: Σ_g s_g · Σ (q − z_g) x.

    The whole numbers q − z are exact in 16 bits and made in one operation; what is scaled are sums.
    """

    def __init__(self, base: AffineLinear) -> None:
        self._base = base

    def __call__(self, x: Tensor) -> Tensor:
        base, tokens = self._base, len(x)
        if tokens > FUSED_TOKENS:
            return F.linear(x, base.dense(x.dtype))
        if tokens <= _KERNEL_TOKENS and kernels.wanted(x.device):
            out = torch.empty(tokens, base.out_features, dtype=x.dtype, device=x.device)
            operators.affine_product(x.contiguous(), base.packed, base.scale, base.zero, base.bits, out)
            return out
        groups = x.reshape(tokens, -1, BLOCK)  # (T, groups, 64)
        packed, zero = base.packed.view(base.out_features, groups.shape[1], -1), base.zero.to(x.dtype)[:, :, None]
        halves = [(packed, groups)]
        if base.bits == 4:  # a byte holds two neighbours, the first in its low half
            halves = [(packed & 15, groups[..., ::2]), (packed >> 4, groups[..., 1::2])]
        # a product (groups, T, out) for each group of inputs
        sums = [torch.bmm(part.transpose(0, 1), (q - zero).permute(1, 2, 0)).float() for q, part in halves]
        total = sums[0] if len(sums) == 1 else sums[0].add_(sums[1])
        return total.mul_(base.scale.T[:, None].float()).sum(0).to(x.dtype)


@dataclass
class _LowRankPart:
    """An adapter's copies: all stacked A (ranks, in), its B (out, r), and which outputs and ranks are its own."""

    module: LoraLinear | FrozenLoraLinear
    stacked: Tensor
    b: Tensor
    outputs: slice
    ranks: slice

    @property
    def enabled(self) -> bool:
        """Whether it counts now; a frozen one always does."""
        return not isinstance(self.module, LoraLinear) or self.module.enabled


class CardProduct:
    """One product of several projections that read the same activation, outputs side by side, with their adapters.

    Args:
        modules: Frozen projections, plain or with adapters, also one on another. Others (quantisation-aware ones) compute as
            they are.
        dtype: The model's type.

    Attributes:
        known: Whether what is computed depends on nothing but the input, the weights and which adapters are enabled.
    """

    def __init__(self, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        unwrapped = [_unwrapped(module) for module in modules]
        self.known = all(base is not None for base, _ in unwrapped)
        self._products: list[Callable[[Tensor], Tensor]] = list(modules)
        found: list[tuple[LoraLinear | FrozenLoraLinear, slice]] = []
        if self.known:
            bases = [base for base, _ in unwrapped if base is not None]
            self._products = [few_tokens_product(base) for base in bases]
            ends = list(accumulate(base.out_features for base in bases))
            for base, end, (_, adapters) in zip(bases, ends, unwrapped, strict=True):
                found += [(adapter, slice(end - base.out_features, end)) for adapter in adapters]
        self._parts = list(_copied(found, dtype))
        self._a = None if not self._parts else self._parts[0].stacked
        self.refresh()

    def refresh(self) -> None:
        """Copy the adapters' present parameters."""
        for part in self._parts:
            part.stacked[part.ranks].copy_(part.module.lora_A.detach())
            part.b.copy_(part.module.lora_B.detach())

    @property
    def enabled(self) -> tuple[bool, ...]:
        """Which adapters count now."""
        return tuple(part.enabled for part in self._parts)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: x (T, in) → (T, out)."""
        made = [product(x) for product in self._products]
        y = made[0] if len(made) == 1 else torch.cat(made, -1)
        if not any(self.enabled):
            return y
        assert self._a is not None
        low = F.linear(x, self._a)  # all ranks at once
        for part in self._parts:
            if part.enabled:
                y[:, part.outputs].addmm_(low[:, part.ranks], part.b.T, alpha=part.module.scale)
        return y


def _unwrapped(module: nn.Module) -> tuple[FrozenLinear | None, list[LoraLinear | FrozenLoraLinear]]:
    """The frozen matrix under a projection's adapters, and these from below; None where it is none of ours."""
    adapters: list[LoraLinear | FrozenLoraLinear] = []
    under: nn.Module = module
    if type(under) is LoraLinear:
        adapters, under = [under], under.base
    if isinstance(under, FrozenLoraLinear):
        adapters, under = [under, *adapters], under.base
    return (under, adapters) if isinstance(under, FrozenLinear) else (None, [])


def _copied(found: Sequence[tuple[LoraLinear | FrozenLoraLinear, slice]], dtype: torch.dtype) -> Iterator[_LowRankPart]:
    """Room for copies of the adapters: all A in one matrix, because they read the same activation."""
    if not found:
        return
    device, width = found[0][0].lora_A.device, found[0][0].lora_A.shape[1]
    stacked = torch.empty(sum(len(module.lora_A) for module, _ in found), width, dtype=dtype, device=device)
    start = 0
    for module, outputs in found:
        ranks = slice(start, start + len(module.lora_A))
        start = ranks.stop
        b = torch.empty(module.lora_B.shape, dtype=dtype, device=device)
        yield _LowRankPart(module, stacked, b, outputs, ranks)
