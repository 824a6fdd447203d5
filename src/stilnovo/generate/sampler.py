"""Temperature and nucleus sampling of the next token, reproducible for each text whatever the batch around it."""

from __future__ import annotations

import torch
from torch import Tensor

from stilnovo.generate.sampling import Sampling


class Sampler:
    """Chooses one text's tokens, with its own random numbers (on the CPU, so that they are the same on every device)."""

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
    members = ordered.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, index, members / members.sum())
