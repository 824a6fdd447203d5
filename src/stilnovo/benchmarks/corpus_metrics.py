"""Metrics that are computed from all items together: Matthews correlation, F1 of classes, and shares of counted parts.

A mean over items says nothing where one class is rare: who never calls a sentence unacceptable is right four times out of
five. These metrics are functions of how often which class was given for which; what an item adds to that table is its row
of counts, and `statistics/corpus_level.py` gives them intervals, paired differences and tests. Definitions are those of
scikit-learn (a class that nobody named and no item has is left out of macro F1; a correlation without spread is 0).

A task that is measured by one of these has also a metric of single items, by which a page shows what was gained and lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from stilnovo.benchmarks.items import Item, Metric, MultipleChoice
from stilnovo.statistics.corpus_level import CorpusMeasure
from stilnovo.statistics.estimates import Floats


def matthews(sums: Floats, classes: int) -> Floats:
    """Matthews correlation of a table of right by given class, (..., K * K): from -1 to 1, 0 for guessing.

    With more than two classes its generalisation R_K (Gorodkin 2004).
    """
    table = _table(sums, classes)
    n, true, given = table.sum((-1, -2)), table.sum(-1), table.sum(-2)
    agreeing = np.trace(table, axis1=-2, axis2=-1)
    spread = np.sqrt((n**2 - (given**2).sum(-1)) * (n**2 - (true**2).sum(-1)))
    return _quotient(agreeing * n - (true * given).sum(-1), spread)


def class_f1(sums: Floats, classes: int) -> Floats:
    """F1 of every class, (..., K); 0 for one that was neither asked nor given."""
    table = _table(sums, classes)
    return _quotient(2 * np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1) + table.sum(-2))


def macro_f1(sums: Floats, classes: int) -> Floats:
    """Mean F1 over the classes that were asked or given."""
    table = _table(sums, classes)
    present = (table.sum(-1) + table.sum(-2) > 0).sum(-1)
    return _quotient(class_f1(sums, classes).sum(-1), present)


def positive_f1(sums: Floats, classes: int) -> Floats:
    """F1 of the last class: of two, the one that is said to be positive."""
    found: Floats = class_f1(sums, classes)[..., -1]
    return found


def polarity_f1(sums: Floats, classes: int) -> Floats:
    """SENTIPOLC's F1 of four sentiments (positive, negative, neither, both): mean over yes and no of either polarity.

    Each polarity is a question of its own, whose table adds up cells of the four: who answers "both" to a positive text is
    right about the positive side.
    """
    if classes != 4:
        raise ValueError(f"sentiments are four, found {classes}")
    sides = np.array([[1, 0, 0, 1], [0, 1, 0, 1]])  # whether a sentiment has that side: positive, negative
    to_sides = np.stack([sides == answer for answer in (0, 1)], axis=1).astype(np.float64)  # (side, answer, sentiment)
    tables = np.einsum("...tg,sat,sbg->...sab", _table(sums, 4), to_sides, to_sides)
    found: Floats = np.mean(class_f1(tables.reshape(*tables.shape[:-2], 4), 2), axis=(-1, -2))
    return found


def entity_f1(sums: Floats, classes: int) -> Floats:
    """Mean F1 over the classes that were asked or given, the last of them left out where there are several (Evalita-LLM)."""
    table = _table(sums, classes)
    present = table.sum(-1) + table.sum(-2) > 0
    number, each = present.sum(-1), class_f1(sums, classes)
    last = classes - 1 - np.argmax(present[..., ::-1], axis=-1)
    of_last = np.take_along_axis(each, last[..., None], axis=-1)[..., 0]
    found: Floats = np.where(number > 1, _quotient(each.sum(-1) - of_last, number - 1), of_last)
    return found


def substitution_f1(sums: Floats) -> Floats:
    """F1 of the votes found per answer and per question that has votes, of columns found, answered, voted (EVALITA 2009)."""
    precision, recall = sums[..., 0] / np.maximum(sums[..., 1], 1), sums[..., 0] / np.maximum(sums[..., 2], 1)
    return _quotient(2 * precision * recall, precision + recall)


def share(sums: Floats) -> Floats:
    """First column over the second: of all that was asked, what was done."""
    return _quotient(sums[..., 0], sums[..., 1])


def _table(sums: Floats, classes: int) -> Floats:
    return sums.reshape(*sums.shape[:-1], classes, classes)


def _quotient(above: Floats, below: Floats) -> Floats:
    """`above` / `below`, 0 where nothing is below."""
    found: Floats = np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)
    return found


def of_table(of: Callable[[Floats, int], Floats], classes: int, low: float = 0.0) -> CorpusMeasure:
    """A measure of the table of right by given class, (K * K), to which every item adds one."""
    rows = np.eye(classes * classes)
    return CorpusMeasure(lambda sums: of(sums, classes), rows, 1 / classes, low, classes)


TABLES: dict[Metric, tuple[Callable[[Floats, int], Floats], float]] = {
    "mcc": (matthews, -1.0),
    "macro_f1": (macro_f1, 0.0),
    "f1_positive": (positive_f1, 0.0),
    "polarity_f1": (polarity_f1, 0.0),
    "entity_f1": (entity_f1, 0.0),
}
_PARTS = np.array([[0.0, 0, 1], [0, 1, 1], [1, 1, 1]])  # of one instruction: followed strictly, loosely, asked
COUNTS: dict[Metric, CorpusMeasure] = {
    "substitution_f1": CorpusMeasure(substitution_f1, np.array([[0.0, 1, 1], [1, 1, 1]]), 1 / 2),
    "inst_level_strict_acc": CorpusMeasure(lambda sums: share(sums[..., [0, 2]]), _PARTS, 1 / 3),
    "inst_level_loose_acc": CorpusMeasure(lambda sums: share(sums[..., [1, 2]]), _PARTS, 1 / 3),
}


def is_corpus_metric(metric: Metric) -> bool:
    """Whether a metric is no mean over items."""
    return metric in TABLES or metric in COUNTS


def item_metric(metrics: Sequence[Metric]) -> Metric:
    """The first metric that single items have."""
    return next(metric for metric in metrics if not is_corpus_metric(metric))


def corpus_measure(metric: Metric, width: int) -> CorpusMeasure:
    """The measure behind a metric's name, of rows of `width` counts."""
    return COUNTS[metric] if metric in COUNTS else of_table(TABLES[metric][0], math.isqrt(width), TABLES[metric][1])


def table_row(answer: int, choice: int, classes: int) -> tuple[float, ...]:
    """What an item adds to the table of right by given class: K * K counts, one of them 1."""
    return tuple(float(cell == answer * classes + choice) for cell in range(classes * classes))


def chance_of(metric: Metric, items: Sequence[Item]) -> float:
    """What guessing scores: of a corpus metric, all options being given equally often for every right answer."""
    questions = [item for item in items if isinstance(item, MultipleChoice)]
    if metric not in TABLES or not questions:
        return sum(item.chance for item in items) / len(items)
    classes = max(len(item.endings) for item in questions)
    asked = np.bincount([item.answer for item in questions], minlength=classes)
    return float(corpus_measure(metric, classes * classes).of(np.repeat(asked / classes, classes)))


def expected_counts(metric: Metric, items: Sequence[Item]) -> tuple[CorpusMeasure, Floats] | None:
    """A table's measure and what questions would add to it, (N, K * K), if three of four of each class were answered right.

    None for other metrics: what written answers add is not known before.
    """
    questions = [item for item in items if isinstance(item, MultipleChoice)]
    if metric not in TABLES or len(questions) < len(items):
        return None
    classes, asked, rows = max(len(item.endings) for item in questions), Counter[int](), []
    for item in questions:
        wrong = asked[item.answer] % 4 == 3
        asked[item.answer] += 1
        rows.append(table_row(item.answer, (item.answer + wrong) % classes, classes))
    return corpus_measure(metric, classes * classes), np.asarray(rows)
