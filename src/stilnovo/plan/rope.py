"""Rotary positions of a model as its `config.json` says them: base and scaling rule.

Both spellings are read: `rope_scaling` with `rope_theta` beside it, and `rope_parameters`, which holds both; the rule's name is
`rope_type` or, in older files, `type`. What a rule leaves out is what transformers takes for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

RopeKind = Literal["linear", "dynamic", "yarn", "llama3"]

#: Keys of each rule; `model_options` refuses others by name.
KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),  # the second is ignored, as transformers does
    "yarn": ("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
             "mscale_all_dim", "truncate"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}  # fmt: skip


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for texts longer than those of the training; `stilnovo.model.rotary` computes it.

    - `linear`: all frequencies divided by the factor (kaiokendev 2023).
    - `dynamic`: within `original_max_positions` none is; beyond, the base grows with the text's length (NTK-aware; emozilla 2023).
    - `yarn`: the slow ones divided, the fast ones kept, between them a ramp; angles' cosines and sines are scaled by
      `attention_factor` (Peng et al. 2023).
    - `llama3`: as yarn with bounds by wavelength and without that scale (Grattafiori et al. 2024; Meta's reference code).
    """

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 0
    kind: RopeKind = "llama3"
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0

    def settings(self) -> dict[str, Any]:
        """The rule as the `rope_scaling` of a `config.json`."""
        said: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind in ("yarn", "llama3"):
            said["original_max_position_embeddings"] = self.original_max_positions
        if self.kind == "llama3":
            said |= {"low_freq_factor": self.low_freq_factor, "high_freq_factor": self.high_freq_factor}
        if self.kind == "yarn":
            said |= {
                "beta_fast": self.beta_fast,
                "beta_slow": self.beta_slow,
                "attention_factor": self.attention_factor,
            }
            said |= {} if self.truncate else {"truncate": False}
        return said


def rope_settings(c: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The rotary settings of a `config.json` under whichever name, and the name of their rule; that name may be unknown here."""
    rope = dict(c.get("rope_scaling") or c.get("rope_parameters") or {})
    return rope, str(rope.get("rope_type", rope.get("type", "default")))


def rope_theta(c: dict[str, Any], rope: dict[str, Any]) -> float:
    """The base of the rotary frequencies."""
    return float(rope.get("rope_theta") or c.get("rope_theta") or 10_000.0)


def rope_scaling(c: dict[str, Any], rope: dict[str, Any], kind: str, positions: int) -> RopeScaling | None:
    """The scaling rule of a `config.json`; None where there is none.

    Args:
        c: The file's content.
        rope: Its rotary settings.
        kind: Their rule.
        positions: `max_position_embeddings`.

    Raises:
        KeyError: when a number is missing.
        ValueError: when a number cannot be.
    """
    if kind not in get_args(RopeKind):
        return None
    original = int(
        c.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or positions
    )
    if kind == "yarn" and rope.get("factor") is None and "factor" in rope:  # as DeepSeek's files leave it
        rope = {**rope, "factor": positions / original}
    low, high = (float(rope[f"{end}_freq_factor"]) if kind == "llama3" else 0.0 for end in ("low", "high"))
    factor = float(rope["factor"])
    if not (math.isfinite(factor) and factor > 0 and original > 0):
        raise ValueError(f"A rope factor of {factor:g} for {original} positions.")
    if kind == "llama3":
        return RopeScaling(factor, low, high, original)
    if kind == "linear":
        return RopeScaling(factor, kind="linear")
    if kind == "dynamic":
        return RopeScaling(factor, original_max_positions=positions, kind="dynamic")
    return RopeScaling(
        factor, original_max_positions=original, kind="yarn", beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1), truncate=bool(rope.get("truncate", True)),
        attention_factor=_attention_factor(factor, rope),
    )  # fmt: skip


def _attention_factor(factor: float, rope: dict[str, Any]) -> float:
    """YaRN's scale of cosines and sines: as given, else 0.1 ln(factor) + 1, or DeepSeek's quotient of two such numbers."""

    def scale(by: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(float(rope["mscale"])) / scale(float(rope["mscale_all_dim"]))
    return scale()
