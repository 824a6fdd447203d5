"""Shapes of a Llama and of its LoRA adapter, which decide what a training costs.

Kept apart from the model so that a plan is made in a moment: torch alone takes seconds to import.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.errors import InputError, reported
from stilnovo.plan.levers import OPTIMIZER_BLOCK, OPTIMIZER_SMALLEST, OptimizerKind
from stilnovo.plan.model_options import unsupported_options
from stilnovo.plan.rope import RopeScaling, rope_scaling, rope_settings, rope_theta

if TYPE_CHECKING:
    from stilnovo.recipe_sections import LoraSection

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS


def projection_path(name: str) -> str:
    """A projection's name inside its layer: `q_proj` → `self_attn.q_proj`."""
    return f"{'self_attn' if name in ATTENTION_PROJECTIONS else 'mlp'}.{name}"


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama. `max_positions` is the longest document it can read."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_factors: tuple[float, ...] | None = None  # GGUF keeps the scaling worked out, one divisor a frequency
    rope_magnitude: float = 1.0  # what GGUF says beside them: cosines and sines times this
    biases: tuple[str, ...] = ()  # projections that add a bias
    tie_embeddings: bool = False
    max_positions: int = 2048

    @property
    def attention_factor(self) -> float:
        """What rotary cosines and sines are multiplied by."""
        return self.rope_magnitude if self.rope_scaling is None else self.rope_scaling.attention_factor

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each projection of one layer, by name."""
        c, f, d = self.hidden_size, self.intermediate_size, self.head_dim
        return {
            "q_proj": (self.heads * d, c), "k_proj": (self.kv_heads * d, c), "v_proj": (self.kv_heads * d, c),
            "o_proj": (c, self.heads * d), "gate_proj": (f, c), "up_proj": (f, c), "down_proj": (c, f),
        }  # fmt: skip

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights of the base by their Hugging Face names, biases too; a tied head is none of them."""
        table, width = (self.vocab_size, self.hidden_size), (self.hidden_size,)
        parts: dict[str, tuple[int, ...]] = {}
        for name, shape in self.linear_shapes().items():
            path = projection_path(name)
            parts[f"{path}.weight"] = shape
            if name in self.biases:
                parts[f"{path}.bias"] = shape[:1]
        parts |= {"input_layernorm.weight": width, "post_attention_layernorm.weight": width}
        layers = {
            f"model.layers.{index}.{part}": shape for index in range(self.layers) for part, shape in parts.items()
        }
        head = {} if self.tie_embeddings else {"lm_head.weight": table}
        return {"model.embed_tokens.weight": table, **layers, "model.norm.weight": width, **head}

    def layer_matrix(self) -> int:
        """Weights of the seven projections of one layer."""
        return sum(rows * columns for rows, columns in self.linear_shapes().values())

    def layer_vectors(self) -> int:
        """Weights of one layer that are no matrix: two norms, and biases."""
        shapes = self.linear_shapes()
        return 2 * self.hidden_size + sum(shapes[name][0] for name in self.biases)

    def vectors(self) -> int:
        """Weights of the base that are no matrix: every norm, and biases."""
        return self.layers * self.layer_vectors() + self.hidden_size

    def parameters(self) -> int:
        """Parameters of the base model; a tied head counts once."""
        layer = self.layer_matrix() + self.layer_vectors()
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return self.layers * layer + tables + self.hidden_size


@dataclass(frozen=True)
class LoraConfig:
    """Settings from PEFT's `adapter_config.json`: rank, α, dropout, scaling rule, target modules, layers.

    Layers below `first_layer` carry no adapter.
    """

    r: int = 32
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = True
    projections: tuple[str, ...] = PROJECTIONS
    first_layer: int = 0

    @property
    def scale(self) -> float:
        """Scale factor s in y = W x + s · B (A x)."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


def adapter_of(section: LoraSection, layers: int) -> LoraConfig:
    """LoRA settings of a recipe for a model of so many layers; at least the last layer gets one."""
    first = min(layers - 1, round(layers * (1 - section.upper_share)))
    return LoraConfig(section.r, section.alpha, section.dropout, section.rslora, section.projections, first)


def lora_parameters(config: LlamaConfig, lora: LoraConfig) -> int:
    """Trainable parameters of an adapter on a model of this shape: r · (in + out) for each projection.

    For an 8B Llama 3 at r = 32 on all projections: 83,886,080, which is 1.04 % of 8,030,261,248.
    """
    shapes = config.linear_shapes()
    return (config.layers - lora.first_layer) * lora.r * sum(sum(shapes[name]) for name in lora.projections)


def moment_bytes(config: LlamaConfig, lora: LoraConfig, kind: OptimizerKind) -> int:
    """Bytes of the two moments of AdamW; of 8-bit kinds, those of small matrices stay in fp32."""
    shapes = config.linear_shapes()
    sizes = [lora.r * side for name in lora.projections for side in shapes[name]]
    packed = [size if kind != "adamw" and size >= OPTIMIZER_SMALLEST else 0 for size in sizes]
    states = [
        size + 4 * -(-size // OPTIMIZER_BLOCK) if size else 4 * whole for size, whole in zip(packed, sizes, strict=True)
    ]
    return 2 * (config.layers - lora.first_layer) * sum(states)


LLAMA_3_8B = LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, layers=32, heads=32, kv_heads=8, head_dim=128,
    rope_theta=500_000.0, max_positions=8192,
)  # fmt: skip
SMOLLM2_135M = LlamaConfig(
    vocab_size=49_152, hidden_size=576, intermediate_size=1536, layers=30, heads=9, kv_heads=3, head_dim=64,
    rope_theta=100_000.0, tie_embeddings=True, max_positions=8192,
)  # fmt: skip
#: Shapes known without their weights, by the short names of `stilnovo.hub`.
KNOWN = {"anita": LLAMA_3_8B, "smollm2": SMOLLM2_135M}

#: Families that open, by their `model_type`; each as its makers save it, with its head or the model alone.
FAMILIES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
ARCHITECTURES = tuple(FAMILIES.values())

#: What transformers takes where a `config.json` leaves it out, unlike a Llama's.
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "max_position_embeddings": 131_072, "num_key_value_heads": 8},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
}


def config_from_json(path: Path) -> LlamaConfig:
    """Read a model's shape from `config.json`.

    Raises:
        InputError: when the architecture, or one of its options, is not ours.
    """
    c = read_json(path)
    family = family_of(c, path)
    rope, kind = rope_settings(c)
    if odd := unsupported_options(c, rope, kind, family):
        quantised = any(option.startswith("quantization_config") for option in odd)
        raise InputError(
            "The model uses options that are not supported.", f"{', '.join(odd)} in {path}.",
            "Give the model before it was quantised, or a GGUF file of it; --quantization makes it small here."
            if quantised else "Computed without them it would answer wrongly: give another model.",
        )  # fmt: skip
    faults = (KeyError, TypeError, ValueError, ZeroDivisionError)
    with reported(f"{path} does not describe a whole model.", "Fetch the model again.", errors=faults):
        return _config(c, rope, kind, family)


def family_of(c: dict[str, Any], path: Path) -> str:
    """The family of a model by its `config.json`: by its architecture, or where it names none by `model_type`.

    Raises:
        InputError: naming the nearest that is supported.
    """
    given = c.get("architectures")
    name = str(given[0] if isinstance(given, list) and given else given or c.get("model_type") or "?")
    for family, architecture in FAMILIES.items():
        if name in (architecture, architecture.replace("ForCausalLM", "Model")) or (not given and name == family):
            return family
    bare = {known.removesuffix("ForCausalLM").lower(): known for known in ARCHITECTURES}
    like = re.sub(r"(For[A-Z]\w*|Model|LMHeadModel)$", "", name).lower()
    nearest = difflib.get_close_matches(like, bare, 1, 0.0)
    raise InputError(
        f"The architecture {name} is not supported.", f"In {path}.",
        f"Supported: {', '.join(ARCHITECTURES)}; the nearest is {bare[nearest[0]] if nearest else ARCHITECTURES[0]}.",
    )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a model's file.

    Raises:
        InputError: when it is none.
    """
    with reported(f"{path} is not valid JSON.", "Fetch the model again.", errors=(OSError, ValueError)):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise InputError(f"{path} is not valid JSON of a model.", "It is no object.", "Fetch the model again.")
    return content


def _config(c: dict[str, Any], rope: dict[str, Any], kind: str, family: str) -> LlamaConfig:
    heads, given = c["num_attention_heads"], (_LEFT_OUT[family] | c)
    positions = given.get("max_position_embeddings", 2048)
    window = given.get("sliding_window") if family != "qwen2" or given.get("use_sliding_window") else None
    return sensible(
        LlamaConfig(
            vocab_size=c["vocab_size"],
            hidden_size=c["hidden_size"],
            intermediate_size=c["intermediate_size"],
            layers=c["num_hidden_layers"],
            heads=heads,
            kv_heads=given.get("num_key_value_heads") or heads,
            head_dim=c.get("head_dim") or c["hidden_size"] // heads,
            rms_eps=c.get("rms_norm_eps", 1e-6),
            rope_theta=rope_theta(c, rope),
            rope_scaling=rope_scaling(c, rope, kind, positions),
            tie_embeddings=bool(c.get("tie_word_embeddings", False)),
            # Within its window, a sliding-window model is an ordinary one: longer documents are refused.
            max_positions=min(positions, window or positions),
            biases=_biases(c, family),
        )
    )


def _biases(c: dict[str, Any], family: str) -> tuple[str, ...]:
    if family == "qwen2":
        return ("q_proj", "k_proj", "v_proj")
    attention = ATTENTION_PROJECTIONS if c.get("attention_bias") else ()
    return attention + (MLP_PROJECTIONS if c.get("mlp_bias") else ())


_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "max_positions",
)  # fmt: skip


def sensible(config: LlamaConfig) -> LlamaConfig:
    """Validate a shape and return it.

    Raises:
        ValueError: when no Llama can have it.
    """
    for name in _SIZES:
        if not isinstance(getattr(config, name), int) or getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)!r}.")
    for name in ("rms_eps", "rope_theta"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}.")
    if config.heads % config.kv_heads or config.head_dim % 2:
        raise ValueError(f"{config.heads} heads of {config.head_dim} do not go with {config.kv_heads} key/value heads.")
    return config


_NUMBERS = {
    "vocab": "vocab_size", "hidden": "hidden_size", "ffn": "intermediate_size", "layers": "layers", "heads": "heads",
    "kv_heads": "kv_heads", "head_dim": "head_dim", "tied": "tie_embeddings",
}  # fmt: skip


def config_from_numbers(text: str) -> LlamaConfig:
    """Parse a shape: `hidden=4096,layers=32,heads=32,kv_heads=8,ffn=14336,vocab=128256[,head_dim=128][,tied=1]`.

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
