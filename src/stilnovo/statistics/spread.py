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


def spread_of(scores: Sequence[float]) -> Spread:
    """Measure the spread of some scores, at least one."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return Spread(min(scores), max(scores), deviation)
