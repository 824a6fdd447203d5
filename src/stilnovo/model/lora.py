"""LoRA adapters on a model, the only trained parameters: attached, merged and stored (`model/lora_linear.py` computes one).

They are stored in PEFT's format, names included, and at a strength that every reader takes for the same: α is written as s · r
with `use_rslora: false`, whichever rule made the scale s. Programs that know only α/r would give an rsLoRA adapter a √r-th of it.

An adapter may be learnt on another one that is frozen: y = W x + s₁ B₁ (A₁ x) + s₂ B₂ (A₂ x). The frozen one stays a low-rank
product of its own, in the model's type; added to W it would be rounded to W's grid, which in 4 bits erases it. What is stored
then is one adapter, the sum of both, because ranks add up: [s₁/s₂ · B₁, B₂] · [A₁; A₂].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stilnovo.errors import InputError, reported
from stilnovo.hub import base_reference
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import FrozenLoraLinear, LoraLinear, LowRank
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.adapter import AdapterConfig, module_path, read_adapter_config
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import write_atomic
from stilnovo.spec import BASE_SCHEME, TRAINED_AS

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of tensor names in PEFT's files
_USUAL = re.compile(r"base_model\.model\.model\.layers\.\d+\.(self_attn|mlp)\.\w+\.lora_[AB]\.weight")


def _sites(model: Llama, first_layer: int = 0) -> Iterator[tuple[str, nn.Module, str]]:
    """List (PEFT's module name, parent, attribute) of every projection from a layer on, in order."""
    for index, layer in enumerate(list(model.layers)[first_layer:], first_layer):
        for name in PROJECTIONS:
            path = module_path(index, name)
            yield path, getattr(layer, path.split(".")[-2]), name


def attach(model: Llama, config: LoraConfig, seed: int = 42) -> None:
    """Attach a new adapter to the LoRA target modules, in place; A is drawn from `seed`, B is zero.

    Raises:
        InputError: for a projection or layer that does not exist, or when the model has an adapter already.
    """
    unknown = sorted(set(config.projections) - set(PROJECTIONS))
    if unknown or not config.projections:
        raise InputError(
            f"No such LoRA target module: {', '.join(unknown) or '(none given)'}.",
            next=f"Choose among {', '.join(PROJECTIONS)}.",
        )
    if not 0 <= config.first_layer < len(model.layers):
        raise InputError(f"There is no layer {config.first_layer}.", f"The model has {len(model.layers)}.")
    _refuse_second(model)
    generator = torch.Generator().manual_seed(seed)
    for _, parent, name in _sites(model, config.first_layer):
        if name in config.projections:
            setattr(
                parent,
                name,
                LoraLinear(getattr(parent, name), config, generator, device=model.device).train(model.training),
            )  # no dropout at inference


def _refuse_second(model: Llama) -> None:
    if adapters(model):
        raise InputError("The model has an adapter already.", next="Load the base without --adapter.")


def adapters(model: Llama) -> dict[str, LoraLinear]:
    """The adapted projections by PEFT's module name."""
    modules = ((path, getattr(parent, name)) for path, parent, name in _sites(model))
    return {path: module for path, module in modules if isinstance(module, LoraLinear)}


def replace_projection(model: Llama, path: str, module: nn.Module) -> None:
    """Replace the projection of that name (PEFT's) by `module`."""
    parent, _, name = path.removeprefix("model.").rpartition(".")
    setattr(model.get_submodule(parent), name, module.train(model.training))


def detach(model: Llama) -> None:
    """Remove the adapter from the model, in place."""
    for path, module in adapters(model).items():
        replace_projection(model, path, module.base)


def parameters(model: Llama) -> list[nn.Parameter]:
    """The trainable parameters, in a fixed order."""
    return [p for module in adapters(model).values() for p in (module.lora_A, module.lora_B)]


def set_enabled(model: Llama, enabled: bool) -> None:
    """Enable or disable the adapter; disabled, the model is the base."""
    for module in adapters(model).values():
        module.enabled = enabled


@contextmanager
def disabled(model: Llama) -> Iterator[None]:
    """Context manager: the model with its adapter disabled; at the end it is as before, whatever happens."""
    before = {module: module.enabled for module in adapters(model).values()}
    set_enabled(model, False)
    try:
        yield
    finally:
        for module, enabled in before.items():
            module.enabled = enabled


def save(
    model: Llama, lora: LoraConfig, folder: Path, base_model: str, factors: Mapping[LoraLinear, float] | None = None,
    *, frozen: Path | None = None, scheme: Scheme | None = None,
) -> None:  # fmt: skip
    """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them, each atomically.

    All projections get one rank and one scale, which every program reads; where they differ, zeros fill up the ranks and the
    rest of a scale goes into B. By which rule the scale was made is said in the weights' metadata (`stilnovo.spec.TRAINED_AS`):
    a key that PEFT does not know in its own file makes it warn, and older ones fail.

    Args:
        model: The model with the adapter.
        lora: The adapter's settings.
        folder: Where the files go.
        base_model: The base's name, for the file; see `stilnovo.hub.base_reference`.
        factors: What each B is multiplied by on the way; None: 1.
        frozen: The adapter under this one, if any: what is written is the sum of both. It is read again, since the model
            holds it in its own type.
        scheme: The quantization of the base beside which it learnt, for the file (`stilnovo.spec.trained_scheme`).
    """
    from safetensors.torch import save as to_bytes

    updates: dict[str, list[LowRank]] = {}
    if frozen is not None:
        for path, update in stored(frozen, model.config).items():
            updates[path] = [update]
    for path, module in adapters(model).items():
        scale = module.scale * (factors[module] if factors else 1)
        updates.setdefault(path, []).append(LowRank(module.lora_A.detach(), module.lora_B.detach(), scale))
    rank = max(sum(len(update.a) for update in parts) for parts in updates.values())
    alpha = _whole_alpha(lora.scale or 1.0, rank)
    tensors: dict[str, Tensor] = {}
    shapes = model.config.linear_shapes()
    layers, projections = _covered(updates, lora.projections)
    for layer in layers:
        for name in projections:
            path = module_path(layer, name)
            a, b = stacked(updates.get(path, []), rank, shapes[name], alpha / rank)
            tensors[f"{_PREFIX}{path}.lora_A.weight"] = a.float()
            tensors[f"{_PREFIX}{path}.lora_B.weight"] = b.float()
    named, revision = base_reference(base_model)
    settings: dict[str, object] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": named, "revision": revision,
        "inference_mode": True, "r": rank, "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": lora.dropout, "use_rslora": False, "target_modules": projections, "bias": "none", "fan_in_fan_out": False,
        "use_dora": False,
    }  # fmt: skip
    if len(layers) < len(model.layers):
        settings["layers_to_transform"] = layers
    metadata = {"format": "pt", **({BASE_SCHEME: scheme} if scheme else {})}
    if lora.rslora and frozen is None and not factors:
        metadata[TRAINED_AS] = f"r={lora.r}, lora_alpha={lora.alpha:g}, use_rslora=true"
    write_atomic(folder / WEIGHTS, _repeatable(to_bytes(tensors, metadata=metadata)))
    write_atomic(folder / "adapter_config.json", json.dumps(settings, indent=1) + "\n")


def _whole_alpha(scale: float, rank: int) -> float:
    """The α that divided by the rank gives exactly the scale; where no double does, the nearest."""
    alpha = scale * rank
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, 0.0))
    return next((value for value in near if value / rank == scale), alpha)


def _covered(updates: Mapping[str, object], first: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """The layers and the projections that any of these modules belongs to; `first` are the first of the projections."""
    names = {path.rpartition(".")[2] for path in updates}
    layers = sorted({int(path.split(".")[2]) for path in updates})
    return layers, [*first, *(name for name in PROJECTIONS if name in names and name not in first)]


def storage_line(folder: Path) -> str:
    """How an adapter that `save` wrote is stored, in a sentence for its card."""
    config = read_config(folder)
    return (
        f"Stored with lora_alpha {config.alpha:.6g} and use_rslora false at rank {config.r}: α/r is the strength that was learnt, "
        f"{config.scale:.6g} times B·A, also for programs that know no other rule"
    )


def _repeatable(data: bytes) -> bytes:
    """The same safetensors file with its metadata in the order of their names: the library writes them in a random one."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, "the order of names changes no length"
    return data[:8] + text.ljust(size) + data[8 + size :]


def stacked(updates: list[LowRank], rank: int, shape: tuple[int, int], scale: float) -> tuple[Tensor, Tensor]:
    """One update that is the sum of several, in double precision: A (rank, in), B (out, rank), to be scaled by `scale`.

    Ranks stand one after another, zeros behind them. Each B takes what its scale has beyond `scale`.
    """
    a, b = torch.zeros(rank, shape[1], dtype=torch.float64), torch.zeros(shape[0], rank, dtype=torch.float64)
    start = 0
    for update in updates:
        stop = start + len(update.a)
        a[start:stop] = update.a
        b[:, start:stop] = update.b.cpu().double() * (update.scale / scale)
        start = stop
    return a, b


def read_config(folder: Path) -> LoraConfig:
    """Read an adapter's settings from its folder, as of a plain adapter; see `AdapterConfig.summary`.

    Raises:
        InputError: when the folder holds no adapter, or one that is more than LoRA.
    """
    return read_adapter_config(folder).summary()


def check_files(folder: Path) -> None:
    """Check what an adapter's folder holds, without any model.

    Raises:
        InputError: as `read_config`, and when the weights are missing or in a file that runs code when it is read.
    """
    read_config(folder)
    if (folder / WEIGHTS).is_file():
        return
    if (folder / "adapter_model.bin").is_file():
        raise InputError(
            f"The adapter in {folder} has its weights in adapter_model.bin.",
            f"That is a pickle, which may run any code when it is read; no {WEIGHTS}.",
            "Where you trust it, write it anew with PEFT: PeftModel.from_pretrained(base, folder).save_pretrained(new_folder).",
        )
    raise InputError(f"The adapter in {folder} has no weights.", f"No {WEIGHTS}.", "Train or fetch it again.")


def stored(folder: Path, model: LlamaConfig, *, weights: bool = True) -> dict[str, LowRank]:
    """Read the adapter in `folder` (PEFT's format) for a model of this shape: module name → its update, as stored.

    Every value is looked at; without `weights` none is kept, and the tensors have no storage.

    Raises:
        InputError: when it does not fit this model, holds what it has no place for, or values that are no finite numbers.
    """
    from safetensors import SafetensorError, safe_open

    check_files(folder)
    config, shapes = read_adapter_config(folder), model.linear_shapes()
    updates: dict[str, LowRank] = {}
    with reported(
        f"The adapter's weights cannot be read: {folder}", "Train or fetch it again.", errors=(OSError, SafetensorError)
    ):
        file: Any = safe_open(folder / WEIGHTS, framework="pt")
        left = dict.fromkeys(file.keys())
        for path, module in config.modules(model.layers).items():
            outputs, inputs = shapes[module.projections[0]]
            pair = []
            for which, shape in (("lora_A", (module.r, inputs)), ("lora_B", (outputs, module.r))):
                name = f"{_PREFIX}{path}.{which}.weight"
                found = tuple(file.get_slice(name).get_shape()) if name in left else None
                if found != shape:
                    raise _misfit(f"{path}.{which}", found, shape, config, module.r, left)
                left.pop(name)
                values = _finite(file.get_tensor(name), name, folder)
                pair.append(values if weights else torch.empty(shape, device="meta"))
            updates[path] = LowRank(pair[0], pair[1], module.scale)
    if left:
        raise InputError(
            "The adapter holds tensors that this model has no place for.", f"{_some(left)} in {folder / WEIGHTS}.",
            "LoRA on the projections of attention and MLP is supported: merge it with the program that made it, and give the "
            "merged model.",
        )  # fmt: skip
    return updates


def _finite(values: Tensor, name: str, folder: Path) -> Tensor:
    """The tensor, where it holds finite numbers of a type that adapters have."""
    usual = values.dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    if usual and bool(torch.isfinite(values).all()):
        return values
    what = (
        f"{int((~torch.isfinite(values)).sum()):,} of {values.numel():,} values are not finite"
        if usual
        else f"it holds {values.dtype}"
    )
    raise InputError(
        "The adapter holds values that are no finite numbers."
        if usual
        else "The adapter's numbers have a type that none has.",
        f"{name}: {what}, in {folder / WEIGHTS}.",
        "Its training went wrong, or the file is damaged: take an earlier checkpoint, or fetch it again.",
    )


def _misfit(
    name: str,
    found: tuple[int, ...] | None,
    shape: tuple[int, ...],
    config: AdapterConfig,
    rank: int,
    left: Iterable[str],
) -> InputError:
    by = " (rank_pattern)" if rank != config.r else ""
    others = f"\nIt holds {_some(left)}" if found is None else ""
    way = f"It was made for: {config.base_model or 'a model it does not name'}"
    if found is None and any("lora_A" in other and not _USUAL.fullmatch(other) for other in left):
        way = "Its names are not those that PEFT reads: write it anew with PEFT's save_pretrained."
    return InputError(
        "The adapter does not fit this model.", f"{name}: {found or 'missing'}, expected {shape}{by}{others}", way
    )


def _some(names: Iterable[str]) -> str:
    first, *more = names or ["no tensor"]
    return f"{first} and {len(more)} more" if more else first


def attach_frozen(model: Llama, folder: Path) -> None:
    """Attach the adapter in `folder` for good, in place: it belongs to the base, and another one may be attached on it.

    Raises:
        InputError: when it does not fit this model; the model is then as it was.
    """
    _refuse_second(model)
    for path, update in stored(folder, model.config).items():
        replace_projection(model, path, FrozenLoraLinear(_projection(model, path), update, model.dtype))


def _projection(model: Llama, path: str) -> FrozenLinear:
    base = model.get_submodule(path.removeprefix("model."))
    assert isinstance(base, FrozenLinear)
    return base


def load(model: Llama, folder: Path) -> LoraConfig:
    """Attach the adapter in `folder` (PEFT's format) to the model, in place.

    Raises:
        InputError: when it does not fit this model; the model is then as it was.
    """
    config, updates = read_config(folder), stored(folder, model.config)
    _refuse_second(model)
    for path, update in updates.items():
        replace_projection(model, path, LoraLinear(_projection(model, path), config, update=update))
    return config
