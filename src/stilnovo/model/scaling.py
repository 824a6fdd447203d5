"""Scale an adapter after training: W x + f · s · B (A x), with a factor f for every layer.

A fine-tuned model and its base span a line; points between them often keep most of what was learnt and lose less of what
was known. LiNeS (Wang et al. 2024, arXiv 2410.17146) lets the factor grow with depth, because the lower layers hold what
all tasks share: f_l = α + (β − α) · l / (L − 1) in layer l = 0 … L − 1. With α = β it is one factor for all layers. (The
paper writes β for the increase; here α and β are the first and the last layer's factors.)

Nothing is trained and no weight is touched: only the number `LoraLinear.scale` changes, and the original is put back
exactly. In a saved adapter the factor is folded into B, so that PEFT reads it like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError, reported
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import LoraLinear
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe_sections import Scheme

MOST = 1.25  # beyond, the update is extrapolated further than anybody has found useful


@dataclass(frozen=True)
class Scaling:
    """Scaling factors of the first layer (`alpha`) and the last (`beta`), linear in between."""

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(end) and 0 <= end <= MOST for end in (self.alpha, self.beta)):
            raise InputError(
                "An adapter cannot be scaled by this.",
                f"Found: {self.alpha}, {self.beta}.",
                f"Factors lie between 0 and {MOST:g}.",
            )

    @property
    def is_base(self) -> bool:
        """Whether the adapter is scaled to zero."""
        return self.alpha == self.beta == 0

    @property
    def is_uniform(self) -> bool:
        """Whether all layers have the same factor."""
        return self.alpha == self.beta

    def factor(self, layer: int, layers: int) -> float:
        """Factor of one of `layers` layers, counted from 0; the only layer of a model is its last."""
        if self.is_uniform or layers == 1:
            return self.beta
        return self.alpha + (self.beta - self.alpha) * layer / (layers - 1)

    def __str__(self) -> str:
        """As `parse` reads it, every digit kept: answers are told apart by it."""
        ends = [str(int(end)) if end == int(end) else repr(end) for end in (self.alpha, self.beta)]
        return ends[0] if self.is_uniform else ":".join(ends)


def parse(text: str) -> Scaling:
    """Parse `0.5`, one factor for all layers, or `0.25:1`, from the first layer's to the last one's.

    Raises:
        InputError: it is neither, or out of bounds.
    """
    first, colon, last = text.strip().partition(":")
    with reported("A scaling is one number, or two with a colon between.", "Such as 0.5 or 0.25:1.", errors=ValueError):
        return Scaling(float(first), float(last if colon else first))


def _scales(model: Llama, scaling: Scaling) -> dict[LoraLinear, float]:
    """The factor of each adapted projection.

    Raises:
        InputError: the model has no adapter.
    """
    adapted = lora.adapters(model)
    if not adapted:
        raise InputError("There is no adapter to scale.", next="Load the model with --adapter.")
    return {module: scaling.factor(layer_of(path), len(model.layers)) for path, module in adapted.items()}


@contextmanager
def scaled(model: Llama, scaling: Scaling) -> Iterator[None]:
    """Context manager that scales the model's adapter and restores it exactly afterwards.

    Raises:
        InputError: the model has no adapter.
    """
    before = {module: (module.scale, factor) for module, factor in _scales(model, scaling).items()}
    try:
        for module, (scale, factor) in before.items():
            module.scale = scale * factor
        yield
    finally:
        for module, (scale, _) in before.items():
            module.scale = scale


def save_scaled(
    model: Llama, config: LoraConfig, scaling: Scaling, folder: Path, base_model: str, scheme: Scheme | None = None
) -> None:
    """Save the scaled adapter in PEFT's format, with the factors folded into B; its base as `stilnovo.model.lora.save` notes it.

    Raises:
        InputError: the model has no adapter.
    """
    lora.save(model, config, folder, base_model, _scales(model, scaling), scheme=scheme)


def layer_of(path: str) -> int:
    """Layer index in PEFT's name of a module, `model.layers.7.mlp.up_proj`."""
    return int(path.split(".")[2])
