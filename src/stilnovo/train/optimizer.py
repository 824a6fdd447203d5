"""AdamW, with 8-bit states where asked for, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from stilnovo.model.quantize import bitsandbytes_functional
from stilnovo.recipe import TrainSection


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: TrainSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); `adamw8bit` keeps its two moments in 8 bits a value (Dettmers et al. 2022).

    `auto` is 8-bit on a card and fp32 on a CPU, where bitsandbytes' step takes thirty times as long. `paged_adamw8bit`
    lets the states move to host memory when a card is full; on a CPU it is `adamw8bit`.
    """
    kind = recipe.optimizer
    if kind == "auto":
        kind = "adamw8bit" if parameters[0].device.type == "cuda" else "adamw"
    if kind == "adamw":
        return torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
    bitsandbytes_functional()  # imports the package without its complaint
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    paged = kind == "paged_adamw8bit" and parameters[0].device.type == "cuda"
    optimizer: torch.optim.Optimizer = (PagedAdamW8bit if paged else AdamW8bit)(
        parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    return optimizer


def learning_rate(step: int, steps: int, recipe: TrainSection) -> float:
    """Rate of step `step` (from 0) of `steps`: linear warm-up, then the schedule down to `final_ratio` of the peak."""
    warmup = math.ceil(recipe.warmup_ratio * steps) if recipe.warmup_steps is None else recipe.warmup_steps
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if recipe.schedule == "constant":
        share = 1.0
    elif recipe.schedule == "linear":
        share = 1 - done
    else:
        share = 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (recipe.final_ratio + (1 - recipe.final_ratio) * share)
