"""Write the files beside the weights: config, tokenizer, generation config, model card.

A Hugging Face folder's own files are taken over, so that nothing in them is lost that only others read. From a GGUF file they
are written anew, in the keys that old and new readers know.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from tokenizers import Tokenizer as Fast
from tokenizers.processors import TemplateProcessing

from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles
from stilnovo.model.rotary import RotaryTable
from stilnovo.model.weights import GGUFReader, WeightReader
from stilnovo.modelcard.provenance import Provenance
from stilnovo.modelcard.readme import licence_files, model_card
from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import ATTENTION_PROJECTIONS, FAMILIES, MLP_PROJECTIONS, LlamaConfig, family_of, read_json
from stilnovo.runlog import sha256_file
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer

_TAKEN = (
    "tokenizer.json", "tokenizer.model", "added_tokens.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "chat_template.jinja",
)  # fmt: skip
# What Llama 3.1 and 3.2 were stretched from, and between which wavelengths; GGUF keeps the result alone.
_STRETCHED = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 8192}
_SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token")


def companions(
    files: ModelFiles,
    reader: WeightReader,
    tokenizer: Tokenizer,
    dtype: torch.dtype,
    spec: ModelSpec,
    origin: Provenance,
) -> dict[str, bytes]:
    """Contents of the files beside the weights, by file name.

    Raises:
        InputError: when a file of the source cannot be read, or its rotary scaling cannot be said in a config.json.
    """
    type_name = str(dtype).removeprefix("torch.")
    taken: dict[str, bytes] = {}
    settings: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    if isinstance(reader, GGUFReader):
        config = _config(reader.config, tokenizer)
        opens = reader.fields.get("tokenizer.ggml.bos_token_id")
        if opens is not None:
            settings["bos_token"] = reader.fields["tokenizer.ggml.tokens"][int(opens)]
            config["bos_token_id"] = int(opens)
        settings["add_bos_token"] = tokenizer.bos_id is not None
    else:
        config = read_json(files.path / "config.json")
        taken = {name: (files.path / name).read_bytes() for name in _TAKEN if (files.path / name).is_file()}
        if (files.path / "tokenizer_config.json").is_file():
            settings = read_json(files.path / "tokenizer_config.json")
        if (files.path / "generation_config.json").is_file():
            generation = read_json(files.path / "generation_config.json")
            generation.pop("_from_model_config", None)  # then transformers would make it anew
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    family = family_of(config, files.path)
    config |= {"architectures": [FAMILIES[family]], "model_type": family}
    config |= {"dtype": type_name, "torch_dtype": type_name}  # newer and older programs' name of it
    starts = {key: config[key] for key in ("bos_token_id", "pad_token_id") if config.get(key) is not None}
    ends = _turn_ends(generation.get("eos_token_id", config.get("eos_token_id")), tokenizer)
    settings = _tokenizer_settings(settings, tokenizer, reader.config.max_positions)
    if isinstance(settings.get("chat_template"), str):
        taken.setdefault("chat_template.jinja", settings["chat_template"].encode())
    specials = {name: settings[name] for name in _SPECIALS if settings.get(name) is not None}
    return {
        "config.json": _json({**config, "eos_token_id": ends}),
        "generation_config.json": _json({**starts, **generation, "eos_token_id": ends}),
        "special_tokens_map.json": _json(specials),
        **taken,
        "tokenizer.json": taken.get("tokenizer.json") or _definition(tokenizer),
        "tokenizer_config.json": _json(settings),
        **licence_files(origin),
        "README.md": model_card(origin, made_lines(spec, type_name)).encode(),
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _turn_ends(given: Any, tokenizer: Tokenizer) -> list[int]:
    """What ends a generation, of the base and of what a training teaches: its own tokens first."""
    own = given if isinstance(given, list) else [given]
    ends = [int(token) for token in own if isinstance(token, int)]
    return list(dict.fromkeys([*ends, *sorted(tokenizer.turn_end_ids)]))


def _config(config: LlamaConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    family, switches = _biases(config.biases)
    return {
        "architectures": [FAMILIES[family]], "model_type": family, "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "hidden_act": "silu", "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta, "rope_scaling": _rope_scaling(config),
        "tie_word_embeddings": config.tie_embeddings, "max_position_embeddings": config.max_positions,
        **switches, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }  # fmt: skip


def _biases(names: tuple[str, ...]) -> tuple[str, dict[str, bool]]:
    """The family of a GGUF file's model whose projections have these biases, and how its config.json says so.

    Raises:
        InputError: when none has.
    """
    if names == ("q_proj", "k_proj", "v_proj"):
        return "qwen2", {}
    attention, mlp = names[:4] == ATTENTION_PROJECTIONS, names[-3:] == MLP_PROJECTIONS
    if len(names) != 4 * attention + 3 * mlp:
        raise InputError(
            "The model's biases cannot be written to a config.json.", f"Only {', '.join(names)} have one.",
            "Export from the model's Hugging Face folder instead.",
        )  # fmt: skip
    return "llama", {"attention_bias": attention, "mlp_bias": mlp}


def _rope_scaling(config: LlamaConfig) -> dict[str, Any] | None:
    """Recover the RoPE scaling rule from a GGUF file's frequency divisors.

    Raises:
        InputError: when it is not Llama 3.1's.
    """
    if config.rope_scaling is not None:
        return config.rope_scaling.settings()
    if config.rope_factors is None or set(config.rope_factors) == {1.0}:
        return None
    least, most = min(config.rope_factors), max(config.rope_factors)
    if most - least < 1e-4 * most and config.attention_factor == 1:
        return RopeScaling(most, kind="linear").settings()
    scaling = RopeScaling(factor=most, **_STRETCHED)  # type: ignore[arg-type]
    stretched = RotaryTable(replace(config, rope_factors=None, rope_scaling=scaling)).frequencies
    same = torch.allclose(stretched, RotaryTable(config).frequencies, rtol=1e-4, atol=0)
    if not same or config.attention_factor != 1:
        raise InputError(
            "The model's rotary scaling cannot be written to a config.json.",
            f"Its divisors, up to {scaling.factor:g}, are not those of Llama 3.1's rule.",
            "Export from the model's Hugging Face folder instead.",
        )
    return scaling.settings()


def _tokenizer_settings(given: dict[str, Any], tokenizer: Tokenizer, positions: int) -> dict[str, Any]:
    """Content of `tokenizer_config.json`: the given settings, and what the tokeniser knows."""
    known = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokenizer.special_text(tokenizer.bos_id),
        "eos_token": tokenizer.special_text(tokenizer.eos_id), "pad_token": tokenizer.special_text(tokenizer.pad_id),
        "chat_template": tokenizer.jinja, "clean_up_tokenization_spaces": False, "model_max_length": positions,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None or key not in known}
    return {**{key: value for key, value in known.items() if value is not None}, **given}


def _definition(tokenizer: Tokenizer) -> bytes:
    """Content of `tokenizer.json`; where documents open with BOS, a post-processor adds it for other programs."""
    opening = tokenizer.special_text(tokenizer.bos_id)
    if opening is None:
        return tokenizer.definition.encode()
    fast = Fast.from_str(tokenizer.definition)
    fast.post_processor = TemplateProcessing(
        [opening, "$A"], [opening, "$A", f"{opening}:1", "$B:1"], special_tokens=[(opening, tokenizer.bos_id)]
    )
    return str(fast.to_str()).encode()


def made_lines(spec: ModelSpec, kind: str) -> list[str]:
    """How an exported model was made, for its card; `kind` is the type of its weights."""
    lines = []
    if spec.adapter is not None:
        lines += [
            f"Adapter: `{spec.adapter.resolve().name}`, sha256 of its weights {sha256_file(spec.adapter / 'adapter_model.safetensors')}",
            "Made by adding the adapter to the base: W + s · B·A in float32, rounded once",
        ]
    if spec.quantization != "none":
        lines.append(
            f"The base's projections were first rounded to {spec.quantization} and taken back, as in the adapter's training"
        )
    return [
        *lines, f"Written in {kind} by `stilnovo export` {version('stilnovo')} on {datetime.now(UTC):%Y-%m-%d}",
    ]  # fmt: skip
