"""Shapes of a Llama and of its LoRA adapter, which decide what a training costs.

Kept apart from the model so that a plan is made in a moment: torch alone takes seconds to import.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stilnovo.recipe import LoraSection

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the slow rotary frequencies (Grattafiori et al. 2024; the rule of Meta's reference code)."""

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
    """What PEFT's `adapter_config.json` holds of it: rank, α, dropout, scaling rule, projections, layers.

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
        """s in y = W x + s · B (A x)."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


def adapter_of(section: LoraSection, layers: int) -> LoraConfig:
    """The adapter that a recipe describes, on a model of so many layers; at least the last carries one."""
    first = min(layers - 1, round(layers * (1 - section.upper_share)))
    return LoraConfig(section.r, section.alpha, section.dropout, section.rslora, section.projections, first)


def lora_parameters(config: LlamaConfig, lora: LoraConfig) -> int:
    """Trainable parameters of an adapter on a model of this shape: r · (in + out) for each projection.

    For an 8B Llama 3 at r = 32 on all projections: 83,886,080, which is 1.04 % of 8,030,261,248.
    """
    shapes = config.linear_shapes()
    return (config.layers - lora.first_layer) * lora.r * sum(sum(shapes[name]) for name in lora.projections)


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
