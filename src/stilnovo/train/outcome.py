"""What a training's rows of metrics come to: the figures of its end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stilnovo.train.held_out import is_evaluation

LAST_STEPS = 10  # over which a loss's own metrics are averaged: a single step has few pairs
#: What a row of `metrics.jsonl` holds, whatever the loss; the last two in fp16 trainings alone.
STEP_METRICS = frozenset(
    (
        "step",
        "loss",
        "learning_rate",
        "gradient_norm",
        "tokens",
        "tokens_per_second",
        "seconds",
        "memory_bytes",
        "loss_scale",
        "skipped_steps",
    )
)


@dataclass(frozen=True)
class TrainResult:
    """Figures of a finished training; throughput counts loss tokens and is the median over the steps.

    The peak of memory is that of this process's steps, not of one from which it was resumed.
    `metrics` holds what the loss reports beside itself (margin and accuracy, KL), means over the last `LAST_STEPS` steps.
    `skipped_steps` are those of an fp16 training that overflowed and changed nothing.
    """

    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    tokens_per_second: float
    seconds: float
    peak_memory_bytes: int
    metrics: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0


def result_of(rows: Sequence[Mapping[str, Any]], begun: int, peak: int) -> TrainResult:
    """Collect the figures of a run from its rows of metrics.

    Args:
        rows: All of them, from the first step on.
        begun: The step from which this process went on.
        peak: Bytes that it held at most, where it made no step.
    """
    last, end = rows[-LAST_STEPS:], rows[-1]
    own = {name: None for row in last for name in row if name not in STEP_METRICS and not is_evaluation(name)}
    losses = _numbers(rows, "loss") or [math.nan]  # of an fp16 step that overflowed it may be missing
    return TrainResult(
        end["step"], end["tokens"], losses[0], losses[-1], statistics.median_high(_numbers(rows, "tokens_per_second")),
        end["seconds"], max((row["memory_bytes"] for row in rows if row["step"] > begun), default=peak),
        {name: statistics.fmean(_numbers(last, name) or [math.nan]) for name in own}, end.get("skipped_steps", 0),
    )  # fmt: skip


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]
