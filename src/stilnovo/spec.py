"""Model specification: which model to open and how, from the options to the loader; the quantization an adapter needs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from stilnovo.errors import InputError, check_types
from stilnovo.recipe import Recipe, load
from stilnovo.recipe_sections import Scheme

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


@dataclass(frozen=True)
class ModelSpec:
    """A model by name, the adapter on it, the quantization of its base, and the device it runs on.

    Attributes:
        model: Short name, local path or Hugging Face id; see `stilnovo.hub.find_model`.
        adapter: A LoRA adapter folder in PEFT's format; a str becomes a Path.
        quantization: How the base weights are kept.
        device: auto, cpu, cuda or cuda:N.
    """

    model: str = "smollm2"
    adapter: Path | None = None
    quantization: Scheme = "nf4"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_types(str, device=self.device)
        check_types(str, Path, model=self.model)
        object.__setattr__(self, "model", str(self.model))
        check_types(Path, str, type(None), adapter=self.adapter)
        object.__setattr__(self, "adapter", Path(self.adapter) if self.adapter else None)
        if self.quantization not in SCHEMES:
            raise InputError(
                f"Unknown quantization {self.quantization!r}.", next=f"Choose one of: {', '.join(SCHEMES)}."
            )


def training_recipe(adapter: Path) -> Recipe | None:
    """Find the recipe of the run in whose folder the adapter lies; None when it lies elsewhere.

    Raises:
        InputError: when the run's recipe cannot be read.
    """
    path = adapter.resolve().parent / "recipe.yaml"
    return load(path) if path.is_file() else None


def trained_scheme(adapter: Path) -> Scheme | None:
    """The quantization of the base in an adapter's training, by its run or by the base that it names; None where neither says.

    Raises:
        InputError: when the run's recipe cannot be read.
    """
    if recipe := training_recipe(adapter):
        return recipe.model.quantization
    with contextlib.suppress(OSError, ValueError, AttributeError):  # what is wrong with it is told where it is opened
        named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        if "bnb-4bit" in str(named.get("base_model_name_or_path")):  # as Unsloth names its 4-bit bases
            return "nf4"
    return None


def spec_of(
    model: str, adapter: Path | None, quantization: str | None, device: str = "auto", default: Scheme = "nf4"
) -> ModelSpec:
    """Resolve options to a model: the given quantization, else that of the adapter's training, else the default.

    Raises:
        InputError: when the quantization does not exist, or the adapter's recipe cannot be read.
    """
    trained = trained_scheme(adapter) if adapter is not None and quantization is None else None
    scheme = quantization or trained or default
    return ModelSpec(model, adapter, scheme, device)  # type: ignore[arg-type]  # checked there
