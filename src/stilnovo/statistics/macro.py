"""Macro averages: the mean of several tasks' scores, in which every task weighs the same, however many items it has.

The tasks' items are independent of each other, so that errors add in squares (the delta method on a mean):

    error = sqrt(sum of error_k^2) / K,   degrees = (sum of error_k^2)^2 / sum of (error_k^4 / (units_k - 1))

with Student's t on Welch's and Satterthwaite's degrees of freedom (Biometrika 34, 1947; Biometrics Bulletin 2, 1946).

Unusual: a task's error is not always its standard error. A task on which few items show no spread (all right, all alike) has
a standard error of zero, and an interval that says better. Its error is therefore at least a part of what its own interval
implies: `SCORES` of it for scores, `DIFFERENCES` for paired differences, which lie around zero and not at an end. Both parts
were chosen by simulation (`bench/coverage.py`): with them .93 to .98 of the intervals hold the truth for two to ten tasks
of 8 to 1,169 units, where the standard errors alone hold .84 for accuracies of 97 % and .91 for skewed shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.statistics.estimates import UPPER, Estimate, normal_quantile, root, student_quantile

SCORES, DIFFERENCES = 0.8, 0.5  # least error of a task, in parts of the one that its own interval implies
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


def macro_average(parts: Sequence[Estimate], least: float = SCORES) -> MacroAverage:
    """Mean of the estimates of independent tasks, one each.

    Args:
        parts: Scores (or differences) of the tasks.
        least: `SCORES` or `DIFFERENCES`.

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


def _error(part: Estimate, degrees: float, least: float) -> float:
    """Error of one task: its standard error, or `least` of what its interval implies."""
    return max(part.standard_error, least * (part.high - part.low) / 2 / student_quantile(UPPER, degrees))


def chance_corrected(part: Estimate, chance: float) -> Estimate:
    """A score counted from guessing: (score - chance) / (1 - chance), 0 for guessing and 1 for all right."""
    scaled = part.times(1 / (1 - chance))
    shift = chance / (1 - chance)
    return replace(scaled, value=scaled.value - shift, low=scaled.low - shift, high=scaled.high - shift)
