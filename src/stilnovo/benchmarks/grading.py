"""Grade written answers: exact match and word F1 after SQuAD normalisation, for Italian and English."""

from __future__ import annotations

import re
import string
from collections import Counter

from stilnovo.benchmarks.task import Generation, Metric

_ARTICLES = re.compile(r"\b(il|lo|la|i|gli|le|un|uno|una|a|an|the)\b|\b(l|un|dell|all|nell|dall|sull|gl)['’]")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "«»“”‘’…–", " "))


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """The best F1 and exact match over the references."""
    return {
        "f1": max(f1(written, reference) for reference in item.references),
        "exact_match": max(float(words(written) == words(reference)) for reference in item.references),
    }


def f1(written: str, reference: str) -> float:
    """Word F1, 2PR / (P + R), counting repeated words; where either has no words: 1 if both have none, else 0."""
    first, second = words(written), words(reference)
    if not first or not second:
        return float(first == second)
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second))


def words(value: str) -> list[str]:
    """Normalised words: lower case, without articles and punctuation."""
    return _ARTICLES.sub(" ", value.lower()).translate(_PUNCTUATION).split()
