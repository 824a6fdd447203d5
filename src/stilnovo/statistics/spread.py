"""How far apart the scores of several prompts or repeats lie."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Lowest and highest of some scores, and their standard deviation (over N - 1; 0 for one)."""

    lowest: float
    highest: float
    standard_deviation: float


def combined_performance(scores: Sequence[float]) -> float:
    """Combined performance score of several prompts, (1 - (best - mean)) * best, of scores in [0, 1] (Mizrahi et al. 2024).

    Evalita-LLM's summary of a task: the best prompt's score, less by how much worse a usual prompt does.
    """
    best = max(scores)
    return (1 - (best - statistics.fmean(scores))) * best


def spread_of(scores: Sequence[float]) -> Spread:
    """Measure the spread of some scores, at least one."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return Spread(min(scores), max(scores), deviation)
