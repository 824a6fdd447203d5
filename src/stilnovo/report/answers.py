"""Every item of an evaluation with what the model answered, for the browser in its page.

Ten thousand items are some megabytes of text: they lie in the page compressed, and its script builds only those that are looked
at, as text and never as markup. Signs that would turn the direction of writing are shown by their names.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from stilnovo.benchmarks.corpus_metrics import is_corpus_metric
from stilnovo.benchmarks.task import METRIC_NAMES, Item, Metric, MultipleChoice
from stilnovo.report.numbers import clean
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.questions import FindQuestions, same_questions
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.text.language import language

MOST_BROWSED = 20_000  # items of one page; about 4 MB
_LONGEST = 4000  # characters of a text that are kept: a few-shot prompt may be a book
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def browsed(result: EvaluationResult, find: FindQuestions | None) -> dict[str, Any]:
    """What the section `answers` shows: one object a task for its text, and all items as compressed JSON in `data`."""
    tasks = list(result.tasks.values())
    share = min(1.0, MOST_BROWSED / max(1, sum(task.n for task in tasks)))
    told, packed = [], []
    for task in tasks:
        items = same_questions(task, find(task) if find is not None else {})
        shown, answers = _spread(task, share), _further(task)
        metrics = [metric for metric in task.metrics if not is_corpus_metric(metric)]  # those that an item has
        packed.append({
            "name": _shown(task.label), "metrics": [METRIC_NAMES[metric] for metric in metrics],
            "items": [_entry(score, metrics, items.get(score.id), answers.get(score.id, ())) for score in shown],
        })  # fmt: skip
        unknown = sum(score.id not in items for score in shown)
        told.append({"task": task, "unknown": unknown, "shown": len(shown)})
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"))
    return {"told": told, "data": base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode()}


def _spread(task: TaskResult, share: float) -> Sequence[ItemScore]:
    """The items of a task that the page holds: all, or evenly spaced ones."""
    count = task.n if share == 1 else max(1, int(task.n * share))
    return [task.items[index * task.n // count] for index in range(count)]


def _further(task: TaskResult) -> dict[str, list[ItemScore]]:
    """What was written in every round, by item, where there are several."""
    found: dict[str, list[ItemScore]] = {}
    for part in task.rounds:
        for score in part.items:
            if score.text:
                found.setdefault(score.id, []).append(score)
    return found


def _entry(
    score: ItemScore, metrics: Sequence[Metric], item: Item | None, rounds: Sequence[ItemScore]
) -> dict[str, Any]:
    """One item under short names: `i`d, `c`ategory, `q`uestion, `l` Italian, `v`alues, `e`ndings, `a`nswers, `x` right ones."""
    question = "" if item is None else item.context.removeprefix(item.header).strip()
    entry: dict[str, Any] = {"i": _shown(score.id), "v": [round(score.values[metric], 4) for metric in metrics]}
    texts = [question]
    if score.loglikelihoods:
        endings = _endings(score, item, metrics[0])
        entry["e"] = endings
        texts += [text for text, *_ in endings]
    else:
        written = [(answer.text, answer.values[metrics[0]]) for answer in rounds] or [
            (score.text, score.values[metrics[0]])
        ]
        entry["a"] = [[_shown(text), round(value, 4), int(language(text) == "it")] for text, value in written]
    if item is not None and not isinstance(item, MultipleChoice):
        entry["x"] = [_shown(text) for text in item.references]
    optional = {
        "c": _shown(score.category), "q": _shown(question), "l": int(language(" ".join(texts)) == "it"), "t": int(score.truncated),
    }  # fmt: skip
    return entry | {name: value for name, value in optional.items() if value}


def _endings(score: ItemScore, item: Item | None, metric: Metric) -> list[list[Any]]:
    """Endings as [text, right, share of the probability of those that compete, nats, chosen]."""
    nats = score.loglikelihoods
    choice = score.choice_norm if metric == "acc_norm" else score.choice
    if isinstance(item, MultipleChoice):
        texts = [(context.removeprefix(item.context) + ending).strip() for context, ending in item.pairs]
        truths = {index for index, label in enumerate(item.labels) if label == 1} if metric == "mc2" else set()
        competing = item.competing
    else:
        texts, truths, competing = [f"answer {index + 1}" for index in range(len(nats))], set(), range(len(nats))
    right = truths or {score.answer}
    peak = max(nats[index] for index in competing)
    mass = sum(math.exp(nats[index] - peak) for index in competing)
    shares = {index: round(math.exp(nats[index] - peak) / mass, 4) for index in competing}
    return [
        [_shown(text), int(index in right), shares.get(index), round(nats[index], 3), int(index == choice)]
        for index, text in enumerate(texts)
    ]


def _shown(text: str) -> str:
    """A text that nothing in it can hide or turn around."""
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _DIRECTIONS.sub(lambda sign: f"⟨U+{ord(sign[0]):04X}⟩", clean(cut))


def unpacked(data: str) -> Any:
    """The items again, as the page's script reads them."""
    return json.loads(zlib.decompress(base64.b64decode(data)))


def question_terms(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose questions a page shows, a sentence a task."""
    return [
        f"{entry['task'].label}: {entry['task'].source}; licence: {entry['task'].licence}"
        for entry in told
        if entry["unknown"] < entry["shown"]
    ]
