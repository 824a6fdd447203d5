"""Generations of the base and the tuned model side by side, on the same prompts with the same seeds.

The tuned model is the base with its adapter on; switching it off gives the base, so that both share every weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stilnovo.generate.generator import Completion, Generator, Sampling
from stilnovo.model import lora
from stilnovo.text.template import Message


@dataclass(frozen=True)
class SideBySide:
    """One prompt and its two answers."""

    id: str
    kind: str
    prompt: str
    seed: int
    base: Completion
    tuned: Completion


def side_by_side(engine: Generator, rows: Sequence[dict[str, Any]], sampling: Sampling) -> list[SideBySide]:
    """Both answers to every prompt (`id`, `kind`, `prompt`); prompt i is sampled with seed + i in both.

    The engine's model must carry an adapter; it is switched on again at the end.
    """
    conversations = [[Message("user", row["prompt"])] for row in rows]
    settings = [replace(sampling, seed=sampling.seed + index) for index in range(len(rows))]
    try:
        lora.set_enabled(engine.model, False)
        base = engine.complete(conversations, settings)
    finally:
        lora.set_enabled(engine.model, True)
    tuned = engine.complete(conversations, settings)
    together = zip(rows, settings, base, tuned, strict=True)
    return [SideBySide(row["id"], row["kind"], row["prompt"], s.seed, b, t) for row, s, b, t in together]
