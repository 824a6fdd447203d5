"""An adapter made weaker or stronger after training: W x + f · s · B (A x), with a factor f for every layer.

A fine-tuned model and its base span a line; points between them often keep most of what was learnt and lose less of what
was known. LiNeS (Wang et al. 2024, arXiv 2410.17146) lets the factor grow with depth, because the lower layers hold what
all tasks share: f_l = α + (β − α) · l / (L − 1) in layer l = 0 … L − 1. With α = β it is one factor for all layers. (The
paper writes β for the increase; here α and β are the first and the last layer's factors.)

Nothing is trained and no weight is touched: only the number `LoraLinear.scale` changes, and the original is put back
exactly. In a saved adapter the factor is folded into B, so that PEFT reads it like any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.plan.shape import LoraConfig

MOST = 1.25  # beyond, the update is extrapolated further than anybody has found useful


@dataclass(frozen=True)
class Scaling:
    """The factors of the first layer (`alpha`) and the last (`beta`); all others lie on the line between."""

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
        """Whether nothing of the adapter is left."""
        return self.alpha == self.beta == 0

    @property
    def is_whole(self) -> bool:
        """Whether the adapter stays as it was trained."""
        return self.alpha == self.beta == 1

    def factor(self, layer: int, layers: int) -> float:
        """The factor of one layer of `layers`, counted from 0; the only layer of a model is its last."""
        if self.alpha == self.beta or layers == 1:
            return self.beta
        return self.alpha + (self.beta - self.alpha) * layer / (layers - 1)

    def __str__(self) -> str:
        """As `parse` reads it, every digit kept: answers are told apart by it."""
        ends = [str(int(end)) if end == int(end) else repr(end) for end in (self.alpha, self.beta)]
        return ends[0] if self.alpha == self.beta else ":".join(ends)


WHOLE = Scaling(1.0, 1.0)


def parse(text: str) -> Scaling:
    """`0.5`, one factor for all layers, or `0.25:1`, growing from the first layer's to the last one's.

    Raises:
        InputError: it is neither, or out of bounds.
    """
    parts = text.strip().split(":")
    try:
        ends = [float(part) for part in parts]
        if len(ends) > 2:
            raise ValueError
    except ValueError as error:
        raise InputError(
            "A scaling is one number, or two with a colon between.", f"Found: {text!r}.", "Such as 0.5 or 0.25:1."
        ) from error
    return Scaling(ends[0], ends[-1])


@contextmanager
def scaled(model: Llama, scaling: Scaling) -> Iterator[None]:
    """While inside, the model's adapter works with these factors; afterwards exactly as before.

    Raises:
        InputError: the model has no adapter.
    """
    found = lora.adapters(model)
    if not found:
        raise InputError("There is no adapter to scale.", next="Load the model with --adapter.")
    before = {path: module.scale for path, module in found.items()}
    try:
        for path, module in found.items():
            module.scale = before[path] * scaling.factor(layer_of(path), len(model.layers))
        yield
    finally:
        for path, module in found.items():
            module.scale = before[path]


def save_scaled(model: Llama, config: LoraConfig, scaling: Scaling, folder: Path, base_model: str) -> None:
    """Write the scaled adapter in PEFT's format, its settings unchanged, the factors folded into B.

    Raises:
        InputError: the model has no adapter.
    """
    found = lora.adapters(model)
    if not found:
        raise InputError("There is no adapter to scale.", next="Load the model with --adapter.")
    before = {path: module.lora_B.data for path, module in found.items()}
    try:
        for path, module in found.items():
            module.lora_B.data = before[path] * scaling.factor(layer_of(path), len(model.layers))
        lora.save(model, config, folder, base_model)
    finally:
        for path, module in found.items():
            module.lora_B.data = before[path]


def detach(model: Llama) -> None:
    """Take the adapter off: the model is the base again, and may get another one."""
    for path, module in lora.adapters(model).items():
        parent, _, name = path.removeprefix("model.").rpartition(".")
        setattr(model.get_submodule(parent), name, module.base)


def layer_of(path: str) -> int:
    """The layer in PEFT's name of a module, `model.layers.7.mlp.up_proj`."""
    found = re.search(r"\.layers\.(\d+)\.", path)
    assert found is not None, path
    return int(found.group(1))
