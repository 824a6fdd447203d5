"""XCOPA in Italian: the more plausible cause or effect of two, translated by people (Ponti et al. 2020).

Dataset: https://huggingface.co/datasets/cambridgeltl/xcopa (configuration `it`; test 500, validation 100). Licence:
CC BY 4.0.
A row (our own words): {"premise": "Il bicchiere si è rotto.", "choice1": "È caduto.", "choice2": "Era pieno.",
"question": "cause", "label": 0, "idx": 3, "changed": false}

Protocol: task `xcopa_it` 1.0 of lm-evaluation-harness, 0-shot: the premise without its full stop, `perché` or `quindi`,
and the choice with a small first letter; accuracy (`acc`). The breakdown is by cause and effect.
Checked: contexts and choices equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on
real rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, text, whole_number
from stilnovo.benchmarks.task import MultipleChoice, Task

_CONNECTIVES = {"cause": "perché", "effect": "quindi"}
DATA = Dataset(
    folder="xcopa_it",
    hub="cambridgeltl/xcopa",
    config="it",
    names={"validation": ("val",)},
    files={
        split: (f"{name}.it.jsonl", f"data/it/{name}.it.jsonl", f"it/{name}.it.jsonl")
        for split, name in (("test", "test"), ("validation", "val"))
    },
)


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question."""
    if row["question"] not in _CONNECTIVES:
        raise ValueError(f"question {row['question']!r} is neither cause nor effect")
    choices = [text(row, "choice1"), text(row, "choice2")]
    return MultipleChoice(
        id=f"{place.split('/')[0]}/{row['idx']}" if "idx" in row else place,
        context=f"{text(row, 'premise').strip()[:-1]} {_CONNECTIVES[row['question']]}",
        endings=tuple(f" {choice[0].lower()}{choice[1:]}" for choice in choices),
        answer=whole_number(row["label"]),
        category=row["question"],
    )


TASK = Task(
    name="xcopa_it",
    version="1.0",
    source="https://huggingface.co/datasets/cambridgeltl/xcopa",
    licence="CC BY 4.0",
    metrics=("acc", "acc_norm"),
    splits=("test", "validation"),
    load=DATA.loader(make_item),
    reference="xcopa_it",
    categories="question",
    untried=True,
)
