"""Sampling: which token follows, of the model's logits.

Two ways to the same distribution. `Sampler` chooses one text's tokens on the host; a processor has the logits there. `draw` chooses
those of several texts where the logits lie, on a card, with nothing for the host to decide: it looks at the `LIKELIEST` tokens, and
where these do not make up the nucleus it says so, for the caller to look at all of them.

Unusual: random numbers come from generators on the host, one a text, so that a text depends on its own seed and on no other's. A card
gets them as a table before the first token (`uniforms`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stilnovo.errors import NonFiniteScore
from stilnovo.generate.sampling import Sampling

SURE = 1e-4  # tokens less likely than this are looked at only where the others do not make up the nucleus
LIKELIEST = 256  # tokens among which a card chooses first
UNDECIDED = -1  # in place of a token: the nucleus is larger than what was looked at
_TABLE = 256  # random numbers made at once: how many are wanted in all changes none of them


class Sampler:
    """Chooses one text's tokens, with its own random numbers (on the CPU, so that they are the same on every device)."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """Token id for logits (V,).

        Raises:
            NonFiniteScore: the logits hold something that is no number, or none is finite.
        """
        likeliest = int(logits.argmax())  # of a NaN, where there is one
        if not math.isfinite(peak := float(logits[likeliest])):
            raise NonFiniteScore("a token that was to be written", peak)
        if self.sampling.temperature == 0:
            return likeliest
        probabilities = torch.softmax(logits.float().cpu() / self.sampling.temperature, dim=-1)
        tokens, weights = nucleus(probabilities, self.sampling.top_p)
        return int(tokens[torch.multinomial(weights, 1, generator=self._generator)])


def nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Top-p filter: the smallest set of likeliest tokens with mass `top_p` (Holtzman et al. 2020, §3.1).

    Returns:
        Their ids (N,), the likeliest first, and their probabilities (N,), renormalised.
    """
    likely = (
        (probabilities > SURE).nonzero().flatten()
    )  # sorting a whole vocabulary costs more than a small model's step
    mass, index = probabilities[likely].sort(descending=True, stable=True)
    if float(mass.sum()) > top_p + SURE:
        index = likely[index]
    else:
        mass, index = probabilities.sort(descending=True, stable=True)
    before = mass.cumsum(-1) - mass  # mass of the likelier ones: below top_p for every member of the set
    members = int((before < top_p).sum())
    return index[:members], mass[:members] / mass[:members].sum()


def uniforms(sampling: Sampling, count: int) -> Tensor:
    """A text's random numbers on the host, in [0, 1): at least `count`, of which the first do not depend on how many."""
    generator = torch.Generator().manual_seed(sampling.seed)
    return torch.cat([torch.rand(_TABLE, generator=generator) for _ in range(-(-count // _TABLE))])


def looked_at(samplings: Sequence[Sampling], vocabulary: int) -> int:
    """How many of the likeliest tokens `draw` looks at first: one if no text is drawn, all where a nucleus is the whole vocabulary."""
    drawn = [sampling.top_p for sampling in samplings if sampling.temperature > 0]
    most = LIKELIEST if drawn else 1
    return vocabulary if any(top_p >= 1 for top_p in drawn) else min(most, vocabulary)


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor, most: int) -> Tensor:
    """Choose a token for each row of logits (B, V) in fp32, on their device and without asking the host for anything.

    The nucleus is that of `nucleus`. Its tokens stand in a row, the likeliest first, each as wide as it is likely; the one that a
    random number falls on is chosen.

    Args:
        logits: Of one text a row.
        temperature: (B,); 0: the likeliest token.
        top_p: (B,).
        uniform: Random numbers in [0, 1) (B,).
        most: Look at so many of the likeliest tokens; 1: no text is drawn, each gets the likeliest.

    Returns:
        (B,) int64; `UNDECIDED` where the nucleus has more than `most` tokens, or the logits are no numbers.
    """
    likeliest = logits.argmax(-1)  # of a NaN, where there is one
    finite = logits.gather(-1, likeliest[:, None])[:, 0].isfinite()
    likeliest = likeliest.masked_fill(~finite, UNDECIDED)
    if most == 1:
        return likeliest
    greedy = temperature == 0
    scaled = logits / temperature.masked_fill(greedy, 1.0)[:, None]
    largest, index = scaled.topk(most, -1)
    share = (largest - scaled.logsumexp(-1, keepdim=True)).exp_()
    mass = share.cumsum(-1)
    members = mass - share < top_p[:, None]  # the mass of the likelier ones
    reached = share.masked_fill_(~members, 0.0).cumsum(-1)
    place = (reached <= (uniform * reached[:, -1])[:, None]).sum(-1)
    place = place.minimum(members.sum(-1) - 1).clamp_(min=0)
    chosen = index.gather(-1, place[:, None])[:, 0]
    decided = mass[:, -1] >= top_p if most < logits.shape[-1] else mass[:, -1] > 0
    return torch.where(greedy, likeliest, chosen.masked_fill(~decided, UNDECIDED))
