"""Merge an adapter into its base, W' = W + s · B·A, keep W' under a quantisation again, and measure what rounding did.

The right order: the base as it computes (dequantised, not the checkpoint from which it was quantised), plus the adapter,
then rounded once. What rounding does to a light adapter is measured: where the base lies on the same grid already, an
update of less than half a step rounds back to nothing; elsewhere it arrives on average, under noise that may be larger
than itself. `stilnovo.model.qat` trains against both.

Needs: stilnovo.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.model.lora import adapters, replace_projection
from stilnovo.model.lora_linear import LoraLinear, merged_weight
from stilnovo.model.quantize import quantized_linear
from stilnovo.recipe_sections import Scheme


@dataclass(frozen=True)
class MergedProjection:
    """What rounding did to one projection's update ΔW = s · B·A.

    Attributes:
        name: PEFT's module name.
        survived: ⟨Q(W + ΔW) − Q(W), ΔW⟩ / ⟨ΔW, ΔW⟩: 1 where the whole update arrives, 0 where rounding erased it; nan for ΔW = 0.
        noise: |Q(W + ΔW) − (W + ΔW)| / |ΔW| (Frobenius): rounding error in units of what was learnt.
    """

    name: str
    survived: float
    noise: float


def merge(model: Llama, scheme: Scheme, *, measure: bool = False) -> list[MergedProjection]:
    """Replace every adapted projection by its merged weight under `scheme`, in place, one at a time.

    Args:
        model: A base with an adapter; a plain model afterwards.
        scheme: How the merged weights are kept; `none` keeps them densely in the model's type.
        measure: Compare each rounded projection with what it should be; costs another quantisation of the base.

    Raises:
        InputError: when the model has no adapter.
    """
    found = adapters(model)
    if not found:
        raise InputError("There is no adapter to merge.", next="Load the model with --adapter.")
    report = []
    for name, module in found.items():
        merged = merged_weight(module)
        kept = quantized_linear(merged if scheme != "none" else merged.to(model.dtype), scheme)
        if measure:
            report.append(_compared(name, module, merged, kept.dense(torch.float32), scheme))
        replace_projection(model, name, kept)
    return report


def _compared(name: str, module: LoraLinear, merged: Tensor, kept: Tensor, scheme: Scheme) -> MergedProjection:
    base = module.base.dense(torch.float32)
    update = merged - base
    size = float((update * update).sum())
    if size == 0:
        return MergedProjection(name, float("nan"), float("nan"))
    before = quantized_linear(base, scheme).dense(torch.float32)
    survived = float(((kept - before) * update).sum()) / size
    return MergedProjection(name, survived, float((kept - merged).norm()) / size**0.5)
