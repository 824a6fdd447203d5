"""Shapes of a Llama and of its LoRA adapter, which decide what a training costs.

Kept apart from the model so that a plan is made in a moment: torch alone takes seconds to import.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.errors import InputError, reported
from stilnovo.plan.levers import OPTIMIZER_BLOCK, OPTIMIZER_SMALLEST, OptimizerKind
from stilnovo.plan.model_options import unsupported_options

if TYPE_CHECKING:
    from stilnovo.recipe_sections import LoraSection

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's RoPE scaling of the low frequencies (Grattafiori et al. 2024; the rule of Meta's reference code)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


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
    tie_embeddings: bool = False
    max_positions: int = 2048

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each projection of one layer, by name."""
        c, f, d = self.hidden_size, self.intermediate_size, self.head_dim
        return {
            "q_proj": (self.heads * d, c), "k_proj": (self.kv_heads * d, c), "v_proj": (self.kv_heads * d, c),
            "o_proj": (c, self.heads * d), "gate_proj": (f, c), "up_proj": (f, c), "down_proj": (c, f),
        }  # fmt: skip

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights of the base by their Hugging Face names; a tied head is none of them."""
        table, width = (self.vocab_size, self.hidden_size), (self.hidden_size,)
        parts: dict[str, tuple[int, ...]] = {
            f"{'self_attn' if name in ATTENTION_PROJECTIONS else 'mlp'}.{name}": shape
            for name, shape in self.linear_shapes().items()
        }
        parts |= {"input_layernorm": width, "post_attention_layernorm": width}
        layers = {
            f"model.layers.{index}.{part}.weight": shape
            for index in range(self.layers)
            for part, shape in parts.items()
        }
        head = {} if self.tie_embeddings else {"lm_head.weight": table}
        return {"model.embed_tokens.weight": table, **layers, "model.norm.weight": width, **head}

    def layer_matrix(self) -> int:
        """Weights of the seven projections of one layer."""
        return sum(rows * columns for rows, columns in self.linear_shapes().values())

    def parameters(self) -> int:
        """Parameters of the base model; a tied head counts once."""
        layer = self.layer_matrix() + 2 * self.hidden_size
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

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")


#: What transformers takes where a `config.json` leaves it out, unlike a Llama's.
_LEFT_OUT = {
    "MistralForCausalLM": {"sliding_window": 4096, "max_position_embeddings": 131_072, "num_key_value_heads": 8}
}


def config_from_json(path: Path) -> LlamaConfig:
    """Read a model's shape from `config.json`.

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
    rope = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if odd := unsupported_options(c, rope, kind):
        raise InputError("The model uses options that are not supported.", ", ".join(odd), f"In {path}.")
    faults = (KeyError, TypeError, ValueError, ZeroDivisionError)
    with reported(f"{path} does not describe a whole model.", "Fetch the model again.", errors=faults):
        return _config(c, rope, kind)


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


def _config(c: dict[str, Any], rope: dict[str, Any], kind: str) -> LlamaConfig:
    scaling = None
    if kind == "llama3":
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        scaling = RopeScaling(float(rope["factor"]), low, high, int(rope["original_max_position_embeddings"]))
    heads, given = c["num_attention_heads"], (_LEFT_OUT.get(c["architectures"][0], {}) | c)
    positions = given.get("max_position_embeddings", 2048)
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
            rope_theta=float(rope.get("rope_theta") or c.get("rope_theta") or 10_000.0),
            rope_scaling=scaling,
            tie_embeddings=bool(c.get("tie_word_embeddings", False)),
            # Within its window, a sliding-window model is an ordinary one: longer documents are refused.
            max_positions=min(positions, given.get("sliding_window") or positions),
        )
    )


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
