"""Macro averages: the mean of several tasks' scores, in which every task weighs the same, however many items it has.

The tasks' items are independent of each other, so that errors add in squares. Of scores, the tasks' own intervals are joined,
each end by itself (Zou and Donner, Statistics in Medicine 27, 2008):

    low = value - sqrt(sum of (value_k - low_k)^2) / K,   high = value + sqrt(sum of (high_k - value_k)^2) / K

because scores near an end are skewed, and few tasks with it: around two tasks of 24 items and 95 % a symmetric interval
holds .91. Of paired differences, which lie around zero, the errors are added (the delta method on a mean):

    error = sqrt(sum of error_k^2) / K,   degrees = (sum of error_k^2)^2 / sum of (error_k^4 / (units_k - 1))

with Student's t on Welch's and Satterthwaite's degrees of freedom (Biometrika 34, 1947; Biometrics Bulletin 2, 1946).

Unusual: a task's error is not always its standard error. A task on which few items show no spread (all alike) has a standard
error of zero, and an interval that says better. Its error is therefore at least `LEAST` of what its own interval implies, a
part chosen by simulation (`bench/coverage.py`, for both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.statistics.estimates import UPPER, Estimate, normal_quantile, root, student_quantile

LEAST = 0.5  # error of a task, in parts of the one that its own interval implies
POWER = 0.80
FEWEST_DEGREES = 3  # below, Student's quantile is exact at 1 and 2 only


@dataclass(frozen=True)
class MacroAverage:
    """Mean of `tasks` estimates: `estimate` with its interval, of which `degrees` are the degrees of freedom.

    `estimate.n` counts all items, `estimate.clusters` all units. Without an interval where a task has none, or only one unit.
    """

    estimate: Estimate
    degrees: float
    tasks: int

    @property
    def p(self) -> float:
        """Two-sided p-value that the average is zero only by chance: Welch's t-test, below .05 where the interval leaves out zero."""
        error, value = self.estimate.standard_error, abs(self.estimate.value)
        if not self.estimate.has_interval or not value:
            return 1.0
        # the upper tail whose quantile the average just reaches
        return 2 * root(lambda tail: student_quantile(1 - tail, self.degrees) - value / error, 1e-15, 0.5)

    @property
    def smallest_visible(self) -> float:
        """The smallest average, of either sign, whose interval leaves out zero with 80 % power; infinite without an interval."""
        quantile = student_quantile(UPPER, self.degrees) + normal_quantile(POWER)
        return quantile * self.estimate.standard_error if self.estimate.has_interval else math.inf


def macro_average(parts: Sequence[Estimate], least: float = LEAST) -> MacroAverage:
    """Mean of the paired differences of independent tasks, one each.

    Args:
        parts: Differences of the tasks.
        least: Error of a task at least, in parts of the one that its own interval implies.

    Raises:
        ValueError: there are no estimates.
    """
    if not parts:
        raise ValueError("the macro average of no tasks")
    count, value = len(parts), sum(part.value for part in parts) / len(parts)
    items, units = sum(part.n for part in parts), sum(part.clusters for part in parts)
    if not all(part.has_interval and math.isfinite(part.standard_error) for part in parts):
        return MacroAverage(Estimate(value, -math.inf, math.inf, math.inf, items, units), 1.0, count)
    degrees = [max(1, part.clusters - 1) for part in parts]
    squares = [_error(part, own, least) ** 2 for part, own in zip(parts, degrees, strict=True)]
    total = sum(squares)
    joint = total**2 / sum(square**2 / own for square, own in zip(squares, degrees, strict=True)) if total else 1.0
    joint = joint if joint >= FEWEST_DEGREES else float(math.floor(joint))
    error = math.sqrt(total) / count
    reach = student_quantile(UPPER, joint) * error
    return MacroAverage(Estimate(value, value - reach, value + reach, error, items, units), joint, count)


def score_average(parts: Sequence[Estimate]) -> Estimate:
    """Mean of the scores of independent tasks, with the interval that their own imply; without one where a task has none.

    Raises:
        ValueError: there are no scores.
    """
    average = macro_average(parts).estimate
    if not average.has_interval:
        return average
    below, above = (
        math.sqrt(sum((end - part.value) ** 2 for end, part in zip(ends, parts, strict=True))) / len(parts)
        for ends in ([part.low for part in parts], [part.high for part in parts])
    )
    return replace(average, low=average.value - below, high=average.value + above)


def _error(part: Estimate, degrees: float, least: float) -> float:
    """Error of one task: its standard error, or `least` of what its interval implies."""
    return max(part.standard_error, least * (part.high - part.low) / 2 / student_quantile(UPPER, degrees))


def chance_corrected(part: Estimate, chance: float) -> Estimate:
    """A score counted from guessing: (score - chance) / (1 - chance), 0 for guessing and 1 for all right."""
    scaled = part.times(1 / (1 - chance))
    shift = chance / (1 - chance)
    return replace(scaled, value=scaled.value - shift, low=scaled.low - shift, high=scaled.high - shift)
