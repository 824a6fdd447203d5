"""How many optimizer steps a run has, and how many batches each of them takes.

Unusual: a step never mixes two passes over the data. The last step of each pass is shorter where the accumulation does
not divide the batches, so that whole epochs learn every token exactly that often.
"""

from __future__ import annotations

import math

from stilnovo.data.packing import PackedCorpus
from stilnovo.recipe_sections import TrainSection


def _batches(corpus: PackedCorpus, settings: TrainSection) -> int:
    return -(-len(corpus.packs) // settings.batch_packs)


def _last_pass(batches: int, epochs: float) -> tuple[int, int]:
    """Number of whole passes, and of batches in a last, begun one; a corpus is read for one batch at least."""
    total = max(1, math.ceil(round(batches * epochs, 6)))  # 0.1 · 30 is a little more than 3 in floating point
    return divmod(total, batches)


def step_tokens(packed: PackedCorpus, packs: int, settings: TrainSection) -> float:
    """Tokens of a full step, on average, of a corpus of so many packs; `packed` is that corpus or a part of it."""
    return min(settings.batch_packs * settings.accumulation, packs) * packed.tokens / max(1, len(packed.packs))


def planned_steps(corpus: PackedCorpus, settings: TrainSection) -> int:
    """Number of optimizer steps of the run."""
    if settings.steps is not None:
        return settings.steps
    batches = _batches(corpus, settings)
    if not batches:
        return 1
    whole, rest = _last_pass(batches, settings.epochs)
    return whole * -(-batches // settings.accumulation) + -(-rest // settings.accumulation)


def planned_batches(corpus: PackedCorpus, settings: TrainSection) -> int:
    """Number of batches of all steps of the run."""
    batches = _batches(corpus, settings)
    if not batches:
        return 0
    if settings.steps is None:
        whole, rest = _last_pass(batches, settings.epochs)
        return whole * batches + rest
    whole, steps = divmod(settings.steps, -(-batches // settings.accumulation))
    return whole * batches + min(batches, steps * settings.accumulation)


def batches_of_step(corpus: PackedCorpus, settings: TrainSection, epoch: int, index: int) -> int:
    """Number of batches of the step that begins at batch `index` of pass `epoch` (both from 0)."""
    end = batches = _batches(corpus, settings)
    if settings.steps is None:
        whole, rest = _last_pass(batches, settings.epochs)
        if epoch == whole and rest > index:
            end = rest
    return min(settings.accumulation, end - index)
