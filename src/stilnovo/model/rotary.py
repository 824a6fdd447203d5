"""Rotary position embedding (Su et al. 2021): the angles of positions, under every scaling rule that `plan.rope` reads.

Unusual: one module serves packed documents, trees of endings and cached texts, so it sees positions alone. Only `dynamic` asks
for a text's length; that is one more than the last position of the run of consecutive positions in which a token stands. Within
the context that a model's commands allow the length changes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import LlamaConfig


class RotaryTable(nn.Module):
    """Cosines and sines of positions; frequencies in fp32 whatever the model's type."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self._theta, self._size, self._scaling = config.rope_theta, config.head_dim, config.rope_scaling
        frequencies = _frequencies(config.rope_theta, config.head_dim)
        if config.rope_scaling is not None:
            frequencies = _stretched(frequencies, config.rope_scaling, config.rope_theta)
        if config.rope_factors is not None:
            frequencies = frequencies / torch.tensor(config.rope_factors)
        self.frequencies: Tensor = nn.Buffer(frequencies, persistent=False)
        self.scale = config.attention_factor

    def _apply(self, fn: Any, recurse: bool = True) -> RotaryTable:
        # moves with the model, never changes type, and nothing is made of it on the way
        self.frequencies = self.frequencies.to(fn(self.frequencies.new_empty(0)).device)
        return self

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Compute cos and sin (T, 1, D/2) of positions (T,)."""
        dynamic = self._scaling is not None and self._scaling.kind == "dynamic"
        frequencies = self._grown(positions) if dynamic else self.frequencies
        angles = positions[:, None].float() * frequencies
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        if self.scale != 1.0:
            cos, sin = cos * self.scale, sin * self.scale
        return cos.to(dtype), sin.to(dtype)

    def _grown(self, positions: Tensor) -> Tensor:
        """Frequencies (T, D/2) of each token by the length of its text: θ' = θ (f·n/n₀ − (f − 1))^(D/(D−2)) beyond n₀ tokens."""
        assert self._scaling is not None
        factor, within, size = self._scaling.factor, self._scaling.original_max_positions, self._size
        begins = torch.ones_like(positions, dtype=torch.bool)
        begins[1:] = positions[1:] != positions[:-1] + 1
        text = begins.cumsum(0) - 1
        ends = torch.zeros_like(positions).scatter_reduce(0, text, positions, "amax")
        length = (ends[text] + 1).clamp(min=within).double()
        growth = (factor * length / within - (factor - 1)) ** (size / max(1, size - 2))
        exponents = torch.arange(0, size, 2, device=positions.device).double() / size
        grown = (self._theta * growth)[:, None] ** -exponents
        return torch.where((growth == 1)[:, None], self.frequencies, grown.float())


def _frequencies(theta: float, size: int) -> Tensor:
    exponents = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    return 1.0 / theta**exponents


def _stretched(frequencies: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "dynamic":
        return frequencies
    if scaling.kind == "yarn":
        kept = 1 - _ramp(len(frequencies), scaling, theta)
        return (1 - kept) * frequencies / scaling.factor + kept * frequencies
    # Long wavelengths are slowed by `factor`, short ones kept, those between blended by how often they turn.
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    blend = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies


def _ramp(count: int, scaling: RopeScaling, theta: float) -> Tensor:
    """YaRN's share of the division for each frequency: 0 for those that turn `beta_fast` times in the original context, 1 from
    `beta_slow` turns down."""

    def place(turns: float) -> float:
        return 2 * count * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = place(scaling.beta_fast), place(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * count - 1)
    steps = torch.arange(count, dtype=torch.float32)
    return ((steps - low) / (high - low if high != low else 0.001)).clamp(0, 1)
