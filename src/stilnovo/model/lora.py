"""LoRA adapters, the only trained parameters: y = W x + s · B (A x), with W frozen (Hu et al. 2022, eq. 3; report eq. 7–8).

A starts random, B at zero, so that training starts exactly at the base model. The 2024 report says that both are drawn
from a Gaussian: then B·A ≠ 0, the model is perturbed by noise of size s·r·σ² before the first step, and "before" would
no longer be the base. With both at zero no gradient would ever flow (∂L/∂A contains B, ∂L/∂B contains A): one of them
must be zero and the other not.

The scale s is α/r, or α/√r with rsLoRA (Kalajdzievski 2023). Adapters are kept and learn in fp32 whatever the model's
type, and are stored in PEFT's format, names included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from stilnovo.errors import InputError, reported
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.shape import ATTENTION_PROJECTIONS, PROJECTIONS, LoraConfig
from stilnovo.runlog import write_atomic

_UNSUPPORTED = ("use_dora", "use_qalora", "modules_to_save", "rank_pattern", "alpha_pattern")


class _LoraLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, base: FrozenLinear, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.kept_dtype = a.dtype
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = x @ a.T
        ctx.base, ctx.scale = base, scale
        ctx.save_for_backward(x, low, a, b)
        return F.linear(x, base.dense(x.dtype)).addmm_(low, b.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, low, a, b = ctx.saved_tensors
        d_low = (grad @ b).mul_(ctx.scale)  # (T, r): the small products first
        d_b = (grad.T @ low).mul_(ctx.scale).to(ctx.kept_dtype)
        d_a = (d_low.T @ x).to(ctx.kept_dtype)
        d_x = (grad @ ctx.base.dense(x.dtype)).addmm_(d_low, a) if ctx.needs_input_grad[0] else None
        return d_x, None, d_a, d_b, None


class LoraLinear(nn.Module):
    """A frozen projection with its LoRA adapter; `enabled = False` gives the base alone."""

    def __init__(self, base: FrozenLinear, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base, self.scale, self.dropout, self.enabled = base, config.scale, config.dropout, True
        device = next(base.buffers()).device
        # Kaiming-uniform with a = √5, i.e. uniform in ±1/√in, as PEFT starts A.
        bound = 1 / math.sqrt(base.in_features)
        a = torch.empty(config.r, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(a.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.r, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Output of the projection with its adapter: x (T, in) → (T, out)."""
        if not self.enabled:
            return self.base(x)  # type: ignore[no-any-return]
        if self.dropout and self.training:
            low = F.linear(F.dropout(x, self.dropout), self.lora_A.to(x.dtype))
            return self.base(x) + self.scale * F.linear(low, self.lora_B.to(x.dtype))  # type: ignore[no-any-return]
        return _LoraLinear.apply(x, self.base, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-untyped-call, no-any-return]


def _sites(model: Llama, first_layer: int = 0) -> Iterator[tuple[str, nn.Module, str]]:
    """List (PEFT's module name, parent, attribute) of every projection from a layer on, in order."""
    for index, layer in enumerate(list(model.layers)[first_layer:], first_layer):
        for name in PROJECTIONS:
            part = "self_attn" if name in ATTENTION_PROJECTIONS else "mlp"
            yield f"model.layers.{index}.{part}.{name}", getattr(layer, part), name


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
    generator = torch.Generator().manual_seed(seed)
    for _, parent, name in _sites(model, config.first_layer):
        base = getattr(parent, name)
        if isinstance(base, LoraLinear):
            raise InputError("The model has an adapter already.", next="Load the base without --adapter.")
        if name in config.projections:
            setattr(parent, name, LoraLinear(base, config, generator))


def adapters(model: Llama) -> dict[str, LoraLinear]:
    """The adapted projections by PEFT's module name."""
    modules = ((path, getattr(parent, name)) for path, parent, name in _sites(model))
    return {path: module for path, module in modules if isinstance(module, LoraLinear)}


def replace_projection(model: Llama, path: str, module: nn.Module) -> None:
    """Replace the projection of that name (PEFT's) by `module`."""
    parent, _, name = path.removeprefix("model.").rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def detach(model: Llama) -> None:
    """Remove the adapter from the model, in place."""
    for path, module in adapters(model).items():
        replace_projection(model, path, module.base)


def merged_weight(module: LoraLinear) -> Tensor:
    """Merge: W + s · B·A (out, in) in fp32, with W as the base computes it: dequantised, not the original checkpoint."""
    weight = module.base.dense(torch.float32).clone()
    a, b = module.lora_A.detach().float(), module.lora_B.detach().float()
    return weight.addmm_(b, a, alpha=module.scale)


def parameters(model: Llama) -> list[nn.Parameter]:
    """The trainable parameters, in a fixed order."""
    return [p for module in adapters(model).values() for p in (module.lora_A, module.lora_B)]


def set_enabled(model: Llama, enabled: bool) -> None:
    """Enable or disable the adapter; disabled, the model is the base."""
    for module in adapters(model).values():
        module.enabled = enabled


@contextmanager
def disabled(model: Llama) -> Iterator[None]:
    """Context manager: the model with its adapter disabled, enabled again at the end whatever happens."""
    set_enabled(model, False)
    try:
        yield
    finally:
        set_enabled(model, True)


def save(
    model: Llama, lora: LoraConfig, folder: Path, base_model: str, factors: Mapping[LoraLinear, float] | None = None
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them, each atomically.

    Args:
        model: The model with the adapter.
        lora: The adapter's settings.
        folder: Where the files go.
        base_model: The base's name, for the file.
        factors: What each B is multiplied by on the way; None: 1.
    """
    from safetensors.torch import save as to_bytes

    tensors = {
        f"base_model.model.{path}.{which}.weight": (parameter.detach() * factor).float().cpu().contiguous()
        for path, module in adapters(model).items()
        for which, parameter, factor in (
            ("lora_A", module.lora_A, 1),
            ("lora_B", module.lora_B, factors[module] if factors else 1),
        )
    }
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_model, "inference_mode": True,
        "r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "use_rslora": lora.rslora,
        "target_modules": list(lora.projections), "bias": "none", "fan_in_fan_out": False, "use_dora": False,
    }  # fmt: skip
    if lora.first_layer:
        settings["layers_to_transform"] = list(range(lora.first_layer, len(model.layers)))
    write_atomic(folder / "adapter_model.safetensors", to_bytes(tensors, metadata={"format": "pt"}))
    write_atomic(folder / "adapter_config.json", json.dumps(settings, indent=1) + "\n")


def read_config(folder: Path) -> LoraConfig:
    """Read an adapter's settings from its folder.

    Raises:
        InputError: when the folder holds no adapter, or one that is more than plain LoRA.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError(
            f"There is no adapter in {folder}.", "No adapter_config.json.", "Give a run's `adapter` folder."
        )
    not_json = (OSError, ValueError, AttributeError)  # the last: valid JSON, but no object
    with reported(f"{path} is not valid JSON of an adapter.", "Train or fetch it again.", errors=not_json):
        c = json.loads(path.read_text(encoding="utf-8"))
        odd = [option for option in _UNSUPPORTED if c.get(option)]
    odd += [] if c.get("peft_type") == "LORA" and c.get("bias", "none") == "none" else ["peft_type or bias"]
    if odd:
        raise InputError("The adapter uses options that are not supported.", ", ".join(odd), f"In {path}.")
    with reported(
        f"{path} does not describe a whole adapter.",
        "Train or fetch it again.",
        errors=(KeyError, TypeError, ValueError),
    ):
        rank, alpha, dropout = int(c["r"]), float(c["lora_alpha"]), float(c.get("lora_dropout") or 0.0)
        targets = c["target_modules"]
        names: Sequence[str] = PROJECTIONS if targets == "all-linear" else [p for p in PROJECTIONS if p in targets]
        if rank < 1:
            raise ValueError(f"r is {rank}")
        layers = c.get("layers_to_transform") or [0]
        first = min(layers)
        if sorted(layers) != list(range(first, first + len(layers))):
            raise ValueError(f"its layers are not the upper ones: {layers}")
    return LoraConfig(rank, alpha, dropout, bool(c.get("use_rslora")), tuple(names), first)


def load(model: Llama, folder: Path) -> LoraConfig:
    """Attach the adapter in `folder` (PEFT's format) to the model, in place.

    Raises:
        InputError: when it does not fit this model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_config(folder)
    with reported(
        f"The adapter's weights cannot be read: {folder}", "Train or fetch it again.", errors=(OSError, SafetensorError)
    ):
        tensors = load_file(folder / "adapter_model.safetensors")
    made_for = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    attach(model, config)
    try:
        _fill(model, tensors, made_for or "a model it does not name")
    except InputError:
        detach(model)  # a refused adapter leaves the base as it was
        raise
    return config


def _fill(model: Llama, tensors: dict[str, Tensor], made_for: str) -> None:
    for path, module in adapters(model).items():
        for which, parameter in (("lora_A", module.lora_A), ("lora_B", module.lora_B)):
            stored = tensors.pop(f"base_model.model.{path}.{which}.weight", None)
            if stored is None or stored.shape != parameter.shape:
                raise InputError(
                    "The adapter does not fit this model.",
                    f"{path}.{which}: {'missing' if stored is None else tuple(stored.shape)}, expected {tuple(parameter.shape)}",
                    f"It was made for: {made_for}",
                )
            parameter.data.copy_(stored)
    if tensors:
        raise InputError("The adapter holds tensors that this model has no place for.", f"First: {next(iter(tensors))}")
