"""Variants of one loaded model: generations with and without its adapter, and bits per byte under every quantization.

The tuned model is the base with its adapter on; switching it off gives the base, so that both share every weight.

Unusual: for the cost of quantization the model is loaded once, densely; for each scheme every projection is replaced by
what its quantised form gives back. The arithmetic is the quantised model's, the time is not, and it needs room for the
dense model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stilnovo.generate.generator import Completion, Generator, Sampling
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import DenseLinear, quantized_linear
from stilnovo.recipe_sections import Scheme
from stilnovo.scoring.perplexity import score_texts
from stilnovo.statistics.estimates import Estimate
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer

SCHEMES_SHOWN: tuple[Scheme, ...] = ("none", "nf4", "fp4", "int8", "int4")


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
    progress: Callable[[int, int], None] | None = None,
) -> list[SchemeCost]:
    """Bits per byte of a densely loaded `model` under each scheme; the model is as before afterwards."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, DenseLinear)}
    originals = {name: module.weight for name, module in linears.items()}
    weights = sum(weight.numel() for weight in originals.values())
    costs = []
    try:
        for scheme in SCHEMES_SHOWN:
            size = 0
            for name, module in linears.items():
                quantized = quantized_linear(originals[name], scheme)
                size += quantized.nbytes
                module.weight = quantized.dense(originals[name].dtype)
            score = score_texts(model, tokenizer, texts)
            costs.append(SchemeCost(scheme, size, 8 * size / weights, score.bits_per_byte()))
            if progress:
                progress(len(costs), len(SCHEMES_SHOWN))
    finally:
        for name, module in linears.items():
            module.weight = originals[name]
    return costs


@dataclass(frozen=True)
class SideBySide:
    """One prompt and its two answers."""

    id: str
    kind: str
    prompt: str
    seed: int
    base: Completion
    tuned: Completion


def side_by_side(engine: Generator, rows: Sequence[dict[str, Any]], sampling: Sampling) -> list[SideBySide]:
    """Generate both answers to every prompt (`id`, `kind`, `prompt`); prompt i is sampled with seed + i in both.

    The engine's model must carry an adapter; it is switched on again at the end.
    """
    conversations = [[Message("user", row["prompt"])] for row in rows]
    settings = [replace(sampling, seed=sampling.seed + index) for index in range(len(rows))]
    with lora.disabled(engine.model):
        base = engine.complete(conversations, settings)
    tuned = engine.complete(conversations, settings)
    return [
        SideBySide(row["id"], row["kind"], row["prompt"], setting.seed, before, after)
        for row, setting, before, after in zip(rows, settings, base, tuned, strict=True)
    ]
