"""The cost of quantization: bits per byte of one model under every scheme, on the same texts.

Unusual: the model is loaded once, densely; for each scheme every projection is replaced by what its quantised form gives
back. The arithmetic is the quantised model's, the time is not, and it needs room for the dense model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from stilnovo.model.llama import Llama
from stilnovo.model.quantize import DenseLinear, quantized_linear
from stilnovo.recipe import Scheme
from stilnovo.scoring.perplexity import score_texts
from stilnovo.spec import SCHEMES
from stilnovo.statistics.estimates import Estimate
from stilnovo.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SchemeCost:
    """One scheme: its size and the bits per byte under it."""

    scheme: Scheme
    bytes: int  # of the projections
    bits_per_weight: float
    bits_per_byte: Estimate


def scheme_costs(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    schemes: Sequence[Scheme] = ("none", "nf4", "fp4", "int8", "int4"),
    progress: Callable[[int, int], None] | None = None,
) -> list[SchemeCost]:
    """Bits per byte of a densely loaded `model` under each scheme; the model is as before afterwards."""
    assert all(scheme in SCHEMES for scheme in schemes)
    originals = {name: module.weight for name, module in _linears(model)}
    weights = sum(weight.numel() for weight in originals.values())
    costs = []
    try:
        for done, scheme in enumerate(schemes):
            size = 0
            for name, module in _linears(model):
                quantized = quantized_linear(originals[name], scheme)
                size += quantized.nbytes
                module.weight = quantized.dense(originals[name].dtype)
            score = score_texts(model, tokenizer, texts)
            costs.append(SchemeCost(scheme, size, 8 * size / weights, score.bits_per_byte()))
            if progress:
                progress(done + 1, len(schemes))
    finally:
        for name, module in _linears(model):
            module.weight = originals[name]
    return costs


def _linears(model: nn.Module) -> Iterator[tuple[str, DenseLinear]]:
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, DenseLinear))
