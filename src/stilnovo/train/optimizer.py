"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.plan.levers import OptimizerKind
from stilnovo.recipe_sections import TrainSection


def make_optimizer(
    parameters: Sequence[nn.Parameter], settings: TrainSection, kind: OptimizerKind
) -> torch.optim.Optimizer:
    """Make AdamW (Loshchilov & Hutter 2019); `adamw8bit` keeps its two moments in 8 bits (Dettmers et al. 2022).

    `paged_adamw8bit` lets the states move to host memory when a card is full.
    """
    options: dict[str, Any] = {
        "lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay,
    }  # fmt: skip
    if kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)
    bitsandbytes_functional()  # imports the package without its complaint
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    optimizer: torch.optim.Optimizer = (AdamW8bit if kind == "adamw8bit" else PagedAdamW8bit)(parameters, **options)
    return optimizer


def warmup_of(steps: int, settings: TrainSection) -> int:
    """Number of warm-up steps of a run of `steps`."""
    return math.ceil(settings.warmup_ratio * steps) if settings.warmup_steps is None else settings.warmup_steps


def warmup_note(steps: int, settings: TrainSection) -> str:
    """Say that `train.warmup_steps` takes more than half of the run; empty where it does not."""
    warmup = settings.warmup_steps or 0
    if warmup < 2 or 2 * warmup <= steps:
        return ""
    reached = (
        f", so that the learning rate only reaches {100 * steps / warmup:.0f} % of its peak" if warmup > steps else ""
    )
    fitting = max(1, steps // 10)
    return f"The warm-up takes {warmup:,} steps and the run has {steps:,}{reached}. A tenth of it: --set train.warmup_steps={fitting}"


def learning_rate(step: int, steps: int, settings: TrainSection) -> float:
    """Learning rate of step `step` (from 0) of `steps`: linear warm-up, then the schedule down to `final_ratio` of the peak."""
    warmup = warmup_of(steps, settings)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    shares = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return settings.learning_rate * (settings.final_ratio + (1 - settings.final_ratio) * shares[settings.schedule])
