"""The next token: temperature and nucleus sampling, reproducible text by text whatever the batch around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. Temperature 0 takes the likeliest; the report's settings are the defaults (§6.1.2)."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 256
    seed: int = 42
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:  # NaN is refused too
            raise InputError(
                "These sampling settings cannot be used.",
                f"temperature {self.temperature}, top_p {self.top_p}, max_new_tokens {self.max_new_tokens}",
                "Temperature ≥ 0, 0 < top_p ≤ 1, at least one new token.",
            )
        if "" in self.stop:
            raise InputError("A stop string is empty.", "Every text contains it.", "Leave it out.")


class Sampler:
    """One text's chooser, with its own random numbers (on the CPU, so that they are the same on every device)."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """Token id for logits (V,)."""
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.float().cpu() / self.sampling.temperature, dim=-1)
        return int(torch.multinomial(nucleus(probabilities, self.sampling.top_p), 1, generator=self._generator))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest set of likeliest tokens whose mass reaches `top_p`, renormalised (Holtzman et al. 2020, §3.1); (V,) → (V,)."""
    ordered, index = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered  # mass of the likelier ones: below top_p for every member of the set
    kept = ordered.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, index, kept / kept.sum())
