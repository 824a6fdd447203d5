"""A model's shape from its `config.json`, without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.plan.shape import LlamaConfig, RopeScaling

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")


def config_from_json(path: Path) -> LlamaConfig:
    """Shape from a `config.json`.

    Raises:
        InputError: when the architecture, or one of its options, is not ours.
    """
    c = read_json(path)
    architecture = (c.get("architectures") or ["?"])[0]
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"The architecture {architecture} is not supported.",
            f"In {path}.",
            f"Supported: {', '.join(ARCHITECTURES)}.",
        )
    odd = [f"{k}={c[k]}" for k in ("attention_bias", "mlp_bias") if c.get(k)]
    odd += [f"hidden_act={c['hidden_act']}"] if c.get("hidden_act", "silu") != "silu" else []
    rope = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    odd += [f"rope_type={kind}"] if kind not in ("default", "llama3") else []
    if odd:
        raise InputError("The model uses options that are not supported.", ", ".join(odd), f"In {path}.")
    try:
        return _config(c, rope, kind)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        why = f"It lacks {error}." if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} does not describe a whole model.", why, "Fetch the model again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model.

    Raises:
        InputError: when it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON.", str(error), "Fetch the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not valid JSON of a model.", "It is no object.", "Fetch the model again.")
    return content


def _config(c: dict[str, Any], rope: dict[str, Any], kind: str) -> LlamaConfig:
    scaling = None
    if kind == "llama3":
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        scaling = RopeScaling(float(rope["factor"]), low, high, int(rope["original_max_position_embeddings"]))
    heads, positions = c["num_attention_heads"], c.get("max_position_embeddings", 2048)
    config = LlamaConfig(
        vocab_size=c["vocab_size"],
        hidden_size=c["hidden_size"],
        intermediate_size=c["intermediate_size"],
        layers=c["num_hidden_layers"],
        heads=heads,
        kv_heads=c.get("num_key_value_heads") or heads,
        head_dim=c.get("head_dim") or c["hidden_size"] // heads,
        rms_eps=c.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta") or c.get("rope_theta") or 10_000.0),
        rope_scaling=scaling,
        tie_embeddings=bool(c.get("tie_word_embeddings", False)),
        # Within its window, a sliding-window model is an ordinary one: longer documents are refused.
        max_positions=min(positions, c.get("sliding_window") or positions),
    )
    return sensible(config)


_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "max_positions",
)  # fmt: skip


def sensible(config: LlamaConfig) -> LlamaConfig:
    """The shape itself.

    Raises:
        ValueError: when no Llama can have it.
    """
    for name in _SIZES:
        if not isinstance(getattr(config, name), int) or getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)!r}.")
    if config.heads % config.kv_heads or config.head_dim % 2:
        raise ValueError(f"{config.heads} heads of {config.head_dim} do not go with {config.kv_heads} key/value heads.")
    return config


_NUMBERS = {
    "vocab": "vocab_size", "hidden": "hidden_size", "ffn": "intermediate_size", "layers": "layers", "heads": "heads",
    "kv_heads": "kv_heads", "head_dim": "head_dim", "tied": "tie_embeddings",
}  # fmt: skip


def config_from_numbers(text: str) -> LlamaConfig:
    """A shape from `hidden=4096,layers=32,heads=32,kv_heads=8,ffn=14336,vocab=128256[,head_dim=128][,tied=1]`.

    Raises:
        InputError: for an unknown or missing number, or a shape that no Llama can have.
    """
    try:
        given = {key.strip(): int(value) for key, value in (part.split("=", 1) for part in text.split(","))}
        unknown = sorted(set(given) - set(_NUMBERS))
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        given.setdefault("kv_heads", given["heads"])
        given.setdefault("head_dim", given["hidden"] // max(1, given["heads"]))
        values: dict[str, Any] = {_NUMBERS[key]: value for key, value in given.items()}
        values["tie_embeddings"] = bool(values.get("tie_embeddings", 0))
        return sensible(LlamaConfig(**values))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"--shape {text} describes no Llama.",
            f"{type(error).__name__}: {error}",
            f"Numbers: {', '.join(_NUMBERS)}; for example hidden=4096,layers=32,heads=32,kv_heads=8,ffn=14336,vocab=128256.",
        ) from error
