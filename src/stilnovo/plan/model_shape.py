"""The shape of a model by its name, from the one file that says it, without its weights.

A folder has `config.json`, a GGUF file its metadata. Of a Hugging Face id whose files are not on this machine `config.json`
alone is fetched: what will not fit is told before gigabytes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError, reported
from stilnovo.hub import find_config
from stilnovo.io.gguf_file import GGUFContents, gguf_contents, readable_kinds, unreadable
from stilnovo.io.gguf_names import ROPE_FREQS, gguf_name
from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import KNOWN, PROJECTIONS, LlamaConfig, config_from_json, projection_path, read_json, sensible

LARGE_TABLE = 2**28  # bytes of an embedding or head in the type of the products


def known_config(name: str) -> LlamaConfig:
    """The shape of a model by its name; that of a short name without a file.

    Raises:
        InputError: see `config_of`.
    """
    return KNOWN[name] if name in KNOWN else config_of(name)


def config_of(name: str) -> LlamaConfig:
    """Read a model's shape by its name, without its weights.

    Raises:
        InputError: when it cannot be found, read or is not a supported Llama.
    """
    files = find_config(name)
    if files.kind == "gguf":
        return config_from_gguf(read_gguf(files.path), files.path)
    return config_from_json(files.path / "config.json")


def read_gguf(path: Path) -> GGUFContents:
    """Read the metadata of a GGUF file of a Llama.

    Raises:
        InputError: when it is damaged or none, of another architecture, or of tensor types that cannot be read.
    """
    with reported(f"{path} cannot be read.", errors=OSError), path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path} is not a GGUF file.", "It does not begin with 'GGUF'.", "Give another file.")
    # The package raises whatever numpy does on a short file.
    with reported(f"The weight file {path.name} cannot be read.", f"It may be truncated: fetch {path} again."):
        contents = gguf_contents(path)
    if (architecture := contents.fields.get("general.architecture")) != "llama":
        raise InputError(
            f"The GGUF architecture {architecture!r} is not supported.", f"In {path}.", "Supported: 'llama'."
        )
    if unknown := sorted(unreadable(tensor.kind for tensor in contents.tensors.values())):
        raise InputError(
            f"The GGUF file uses a tensor type that is not supported: {', '.join(unknown)}.",
            f"In {path}.", f"Supported: {', '.join(readable_kinds())}.",
        )  # fmt: skip
    return contents


def config_from_gguf(contents: GGUFContents, path: Path) -> LlamaConfig:
    """Take a model's shape from the metadata of a GGUF file.

    Raises:
        InputError: when something is missing, or one of its options is not ours.
    """
    faults = (TypeError, ValueError, ZeroDivisionError)
    with reported(
        f"The weight file {path.name} cannot be read.", f"It may be truncated: fetch {path} again.", errors=faults
    ):
        return sensible(_config(contents, path))


def _config(contents: GGUFContents, path: Path) -> LlamaConfig:
    def field(key: str, default: Any = None) -> Any:
        value = contents.fields.get(f"llama.{key}", default)
        if value is None:
            raise InputError(f"The GGUF file lacks llama.{key}.", f"In {path}.")
        return value

    if (tokens := contents.fields.get("tokenizer.ggml.tokens")) is None:
        raise InputError("The GGUF file has no vocabulary.", f"In {path}.", "Give a file of a whole model.")
    heads, hidden, context = field("attention.head_count"), field("embedding_length"), field("context_length")
    divisors, scaling = contents.tensors.get(ROPE_FREQS), _scaling(field, context, path)
    return LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=hidden,
        intermediate_size=field("feed_forward_length"),
        layers=field("block_count"),
        heads=heads,
        kv_heads=field("attention.head_count_kv", heads),
        head_dim=field("attention.key_length", hidden // heads),
        rms_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base", 10_000.0),
        rope_scaling=scaling,
        rope_magnitude=float(field("rope.scaling.attn_factor", 1.0)) if scaling is None else 1.0,
        rope_factors=None if divisors is None else tuple(map(float, next(divisors.pieces())[1].ravel())),
        tie_embeddings="output.weight" not in contents.tensors,
        max_positions=min(context, field("attention.sliding_window", context) or context),
        biases=tuple(
            name for name in PROJECTIONS
            if gguf_name(f"model.layers.0.{projection_path(name)}.bias") in contents.tensors
        ),
    )  # fmt: skip


def _scaling(field: Callable[[str, Any], Any], context: int, path: Path) -> RopeScaling | None:
    """A scaling rule that the file's metadata state, as llama.cpp computes it.

    Raises:
        InputError: for a rule that is not known here.
    """
    kind = field("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise InputError(
            "The GGUF model uses options that are not supported.", f"rope.scaling.type={kind} in {path}.",
            "Give the model's Hugging Face folder.",
        )  # fmt: skip
    factor = float(field("rope.scaling.factor", None))
    if kind == "linear":
        return RopeScaling(factor, kind="linear")
    return RopeScaling(
        factor, original_max_positions=int(field("rope.scaling.original_context_length", context)), kind="yarn",
        beta_fast=float(field("rope.scaling.yarn_beta_fast", 32.0)), beta_slow=float(field("rope.scaling.yarn_beta_slow", 1.0)),
        attention_factor=float(field("rope.scaling.attn_factor", 1.0)) * (0.1 * math.log(factor) + 1.0),
    )  # fmt: skip


def tables_of(name: str, config: LlamaConfig, value_bytes: int) -> tuple[int | None, bool]:
    """How a processor keeps embedding and head: bytes of a value where they stay narrower than the products, and whether mapped.

    Large tables of a folder in 16 bits are mapped as they are, those that a GGUF file quantises are kept in 16 bits
    (`stilnovo.model.load`).
    """
    if config.vocab_size * config.hidden_size * value_bytes <= LARGE_TABLE or value_bytes <= 2:
        return None, False
    if name in KNOWN:
        return 2, not KNOWN[name].tie_embeddings
    files = find_config(name)
    if files.kind == "gguf":
        return 2, True
    stored = read_json(files.path / "config.json")
    narrow = str(stored.get("dtype") or stored.get("torch_dtype")) in ("bfloat16", "float16")
    return (2, True) if narrow else (None, False)


def stored_scheme(name: str) -> str | None:
    """The scheme in which bitsandbytes stored a folder's weights in 4 bits; None for any other model."""
    if name in KNOWN or (files := find_config(name)).kind == "gguf":
        return None
    kept = read_json(files.path / "config.json").get("quantization_config")
    if not isinstance(kept, dict) or not (kept.get("load_in_4bit") or kept.get("_load_in_4bit")):
        return None
    return "fp4" if kept.get("bnb_4bit_quant_type") == "fp4" else "nf4"
