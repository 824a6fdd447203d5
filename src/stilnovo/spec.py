"""Model specification: which model to open and how, from the options to the loader; the quantization an adapter needs.

Unusual: an adapter carries the quantization of its base among the metadata of its weights, where other programs leave it
alone, so that a folder that was copied out of its run is opened as in its training.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from stilnovo.errors import InputError, check_types
from stilnovo.hub import hub_id
from stilnovo.recipe import Recipe, load
from stilnovo.recipe_sections import Scheme

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
#: The name in the metadata of an adapter's weights under which `trained_scheme` finds the quantization of its base.
BASE_SCHEME = "base_quantization"
#: The name there under which stands how an adapter's scale was made, where its α alone does not tell.
TRAINED_AS = "trained_as"
_MOST_METADATA = 2**26  # bytes of a header; a longer one is no adapter's
#: Ends of names by which a model's makers tell apart how it is kept: another form of the same base.
_FORM = re.compile(r"((-unsloth)?-bnb-4bit|[-_.]gguf|([-.](\w*q\d\w*|b?f(16|32)))?\.gguf)$")


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
    """The quantization of the base in an adapter's training; None where nothing says it.

    By the adapter's own weights, else by the run in whose folder it lies, else by the base that it names.

    Raises:
        InputError: when the run's recipe cannot be read.
    """
    if (noted := _metadata(adapter).get(BASE_SCHEME)) in SCHEMES:
        return noted  # type: ignore[no-any-return]  # a scheme, as just seen
    if recipe := training_recipe(adapter):
        return recipe.model.quantization
    return "nf4" if "bnb-4bit" in (trained_base(adapter) or "") else None  # as Unsloth names its 4-bit bases


def trained_base(adapter: Path) -> str | None:
    """The model that an adapter was trained on, as far as its settings name one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # what is wrong with it is told where it is opened
        named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        return str(named) if named else None
    return None


def _metadata(adapter: Path) -> dict[str, Any]:
    """What an adapter's weights say of themselves, without reading them; empty where they say nothing."""
    with (
        contextlib.suppress(OSError, ValueError, AttributeError),
        (adapter / "adapter_model.safetensors").open("rb") as file,
    ):
        size = int.from_bytes(file.read(8), "little")
        noted = json.loads(file.read(size)).get("__metadata__") if size < _MOST_METADATA else None
        return noted if isinstance(noted, dict) else {}
    return {}


def scheme_for(adapter: Path | None, asked: Scheme | str | None) -> str | None:
    """The quantization in which every command opens a base: what is asked for, else that of the adapter's training; None: its own.

    Raises:
        InputError: when the adapter's recipe cannot be read.
    """
    return asked or (None if adapter is None else trained_scheme(adapter))


def adapter_differences(spec: ModelSpec) -> list[str]:
    """In what the base that is opened differs from that of the adapter's training, a sentence each.

    Raises:
        InputError: when the recipe of the adapter's run cannot be read.
    """
    if spec.adapter is None:
        return []
    base, scheme, told = trained_base(spec.adapter), trained_scheme(spec.adapter), []
    if base is not None and _plain_name(base) != _plain_name(spec.model):
        told.append(f"The adapter was trained on {base}, and is used on {spec.model}.")
    if scheme is not None and scheme != spec.quantization:
        told.append(f"The adapter was trained on the base in {scheme}, and is used on it in {spec.quantization}.")
    return told


def _plain_name(model: str) -> str:
    """The name of a model without its owner or folder, and without what says how it is kept."""
    return _FORM.sub("", Path(hub_id(model)).name.lower())


def spec_of(
    model: str, adapter: Path | None, quantization: str | None, device: str = "auto", default: Scheme = "nf4"
) -> ModelSpec:
    """Resolve options to a model: the given quantization, else that of the adapter's training, else the default.

    Raises:
        InputError: when the quantization does not exist, or the adapter's recipe cannot be read.
    """
    scheme = scheme_for(adapter, quantization) or default
    return ModelSpec(model, adapter, scheme, device)  # type: ignore[arg-type]  # checked there
