"""Read an `adapter_config.json` of PEFT: which projections have an adapter, of which rank and scale.

Unusual: an allow-list. Of every option it is known whether it changes what the adapter computes; one that is not known, or
has a value that is not, is refused by name, because an adapter computed by another rule answers wrongly without a word. An
option of a later PEFT that is switched off (null, false, empty) passes.

Kept apart from the model, so that a plan reads adapters without torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError, reported
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig, projection_path, read_json

_OFF: tuple[object, ...] = (None, False, "", [], {})
#: Options that change nothing in what is computed, whatever their value.
_INFORMATIVE = frozenset(
    ("base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version", "runtime_config",
     # of matrices that are stored as (in, out), which a Llama has none of; PEFT takes it back
     "fan_in_fan_out",
     # what was learnt beside, if anything, stands among the weights
     "ensure_weight_tying",
     # read only beside an option that is refused, or an initialisation that is
     "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config")
)  # fmt: skip
#: Options that are followed.
_FOLLOWED = frozenset(
    ("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
     "rank_pattern", "alpha_pattern")
)  # fmt: skip
#: Options with an effect of which only some values are supported.
_LIMITED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",), "use_rslora": (None, True, False),
    "bias": (None, "none", "all", "lora_only"),  # those that were learnt stand among the weights, and are refused there
    # How A and B began; other ways take something out of the base, or change it.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
}  # fmt: skip
#: Beginnings that PEFT takes back into an ordinary adapter where it is told to when it saves.
_CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")
_MOST_RANK = 2**20  # far beyond any matrix
_MOST_LAYERS = 512  # of any model whose adapter is summarised without it


@dataclass(frozen=True)
class AdapterConfig:
    """Settings from an `adapter_config.json`, checked.

    Attributes:
        r, alpha, dropout, rslora: Those of every projection that no pattern names.
        targets: Names of modules, whole or from the end; a str is a regular expression of whole names.
        exclude: Modules that have none, written likewise.
        layers: The only layers that have one; None: all.
        containers: What the list of layers is called, each a regular expression; none: whatever it is called.
        ranks, alphas: Other values by pattern of module names, the first that matches.
        base_model: The model that it was made for, as far as it says.
    """

    r: int
    alpha: float
    dropout: float
    rslora: bool
    targets: str | tuple[str, ...]
    exclude: str | tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    containers: tuple[str, ...] = ()
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    base_model: str | None = None

    def modules(self, layers: int) -> dict[str, LoraConfig]:
        """The adapted projections of a model of so many layers: PEFT's module name → its own settings."""
        found = {}
        for index in range(layers):
            for name in PROJECTIONS:
                path = module_path(index, name)
                if self._targeted(path, index) and not _named(path, self.exclude):
                    rank = self.ranks.get(_pattern(path, self.ranks), self.r)
                    alpha = self.alphas.get(_pattern(path, self.alphas), self.alpha)
                    found[path] = LoraConfig(rank, alpha, self.dropout, self.rslora, (name,), index)
        return found

    def _targeted(self, path: str, index: int) -> bool:
        if isinstance(self.targets, str) or path in self.targets or self.layers is None:
            return _named(path, self.targets)
        found = not self.containers or any(re.match(rf"(?:^|.*?\.){name}\.\d+\.", path) for name in self.containers)
        return _named(path, self.targets) and found and index in self.layers

    def summary(self) -> LoraConfig:
        """The settings as of a plain adapter: the projections that any layer adapts, and the lowest layer.

        Raises:
            InputError: when it adapts no projection of a Llama.
        """
        if not (found := self.modules(_MOST_LAYERS).values()):
            targets = self.targets if isinstance(self.targets, str) else ", ".join(self.targets)
            raise InputError(
                f"No such LoRA target module: {targets or '(none given)'}.",
                next=f"Choose among {', '.join(PROJECTIONS)}.",
            )
        names = {module.projections[0] for module in found}
        lowest = min(module.first_layer for module in found)
        projections = tuple(name for name in PROJECTIONS if name in names)
        return LoraConfig(self.r, self.alpha, self.dropout, self.rslora, projections, lowest)


def module_path(layer: int, projection: str) -> str:
    """PEFT's name of a projection, `model.layers.7.mlp.up_proj`."""
    return f"model.layers.{layer}.{projection_path(projection)}"


def _named(path: str, names: str | tuple[str, ...]) -> bool:
    if isinstance(names, str):
        return names == "all-linear" or re.fullmatch(names, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _pattern(path: str, patterns: dict[str, Any]) -> str:
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", path)), path)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read an adapter's settings from its folder.

    Raises:
        InputError: when the folder holds no adapter, or one that computes something else than LoRA; each such option is named.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise _no_adapter(folder)
    c = read_json(path)
    if odd := [name for name in dict.fromkeys(("peft_type", *c)) if not _known(name, c.get(name))]:
        odd = odd[:1] if odd[0] == "peft_type" else odd  # of another kind, all are
        taken = str(c.get("init_lora_weights")).lower().startswith(_CONVERTIBLE)
        raise InputError(
            "The adapter uses options that are not supported.",
            f"{', '.join(f'{name}={c.get(name)!r}' for name in odd)} in {path}.",
            "It belongs to a base of which a part was taken away: save it with PEFT's path_initial_model_for_weight_conversion."
            if taken and odd == ["init_lora_weights"]
            else "Merge it with the program that made it, and give the merged model.",
        )
    with reported(
        f"{path} does not describe a whole adapter.",
        "Train or fetch it again.",
        errors=(KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error),
    ):
        config = _config(c)
        config.summary()
        return config


def _no_adapter(folder: Path) -> InputError:
    """What is wrong with a folder that holds no adapter; those in the folders within are named."""
    within = sorted(path.parent for path in folder.glob("*/adapter_config.json")) if folder.is_dir() else []
    if not within:
        return InputError(
            f"There is no adapter in {folder}.", "No adapter_config.json.", "Give a run's `adapter` folder."
        )
    names = ", ".join(path.name for path in within[:9])
    return InputError(
        f"There is no adapter in {folder} itself.", f"In folders of its own it holds: {names}.",
        f"Give one of them: {within[0]}."
    )  # fmt: skip


def _known(option: str, value: object) -> bool:
    if option in _LIMITED:  # not by `in` alone: 1 == True
        value = value.lower() if isinstance(value, str) and option != "peft_type" else value
        return any(value == known and type(value) is type(known) for known in _LIMITED[option])
    return option in _INFORMATIVE or option in _FOLLOWED or value in _OFF


def _config(c: dict[str, Any]) -> AdapterConfig:
    ranks = {key: _whole(rank) for key, rank in (c.get("rank_pattern") or {}).items()}
    alphas = {key: _number(alpha) for key, alpha in (c.get("alpha_pattern") or {}).items()}
    rank, alpha, layers = _whole(c["r"]), _number(c["lora_alpha"]), c.get("layers_to_transform")
    for value in (rank, *ranks.values()):
        if not 1 <= value <= _MOST_RANK:
            raise ValueError(f"r is {value}")
    layers = [layers] if isinstance(layers, int) else layers
    targets, containers = _names(c["target_modules"]), _names(c.get("layers_pattern") or ())
    if containers and layers is None:
        raise ValueError("layers_pattern without layers_to_transform")
    if isinstance(targets, str) and targets != "all-linear" and layers is not None:
        raise ValueError("layers_to_transform beside target_modules that is a regular expression")
    return AdapterConfig(
        rank, alpha, _number(c.get("lora_dropout") or 0.0), bool(c.get("use_rslora")), targets, _names(c.get("exclude_modules") or ()),
        tuple(map(_whole, layers)) if layers else None, (containers,) if isinstance(containers, str) else containers, ranks, alphas,
        c.get("base_model_name_or_path"),
    )  # fmt: skip


def frozen_ranks(folder: Path, model: LlamaConfig) -> tuple[tuple[int, ...], ...]:
    """Ranks of an adapter on a model of this shape, layer by layer, in the order of `PROJECTIONS`; 0 where it has none."""
    modules = read_adapter_config(folder).modules(model.layers)
    return tuple(
        tuple(modules[path].r if (path := module_path(index, name)) in modules else 0 for name in PROJECTIONS)
        for index in range(model.layers)
    )


def adapter_values(folder: Path, model: LlamaConfig) -> int:
    """Values of an adapter on a model of this shape: r · (in + out) of each projection that has one."""
    shapes = model.linear_shapes()
    modules = read_adapter_config(folder).modules(model.layers)
    return sum(module.r * sum(shapes[path.rpartition(".")[2]]) for path, module in modules.items())


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool | str) or not math.isfinite(number := float(value)):
        raise ValueError(f"{value!r} is no number")
    return number


def _names(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, str) and not all(isinstance(name, str) for name in value):
        raise ValueError(f"{value!r} are no names")
    return value if isinstance(value, str) else tuple(value)
