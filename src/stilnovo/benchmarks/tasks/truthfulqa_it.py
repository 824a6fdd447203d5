"""TruthfulQA in Italian, multiple choice, machine-translated for the Okapi project.

Dataset: https://huggingface.co/datasets/alexandrainst/m_truthfulqa (configuration `it`, val; 783 of the 817 questions).
Licence: CC BY-NC 4.0, for measuring only.
A row (our own words): {"question": "I pipistrelli vedono?", "mc1_targets_choices": ["Vedono", "Sono ciechi"],
"mc1_targets_labels": [1, 0], "mc2_targets_choices": […], "mc2_targets_labels": […]}

Protocol: tasks `truthfulqa_it_mc1` 1.0 and `truthfulqa_it_mc2` 2.0 of lm-evaluation-harness: the six *English*
question-answer pairs of the original before the Italian question. See `truthfulqa.py` for mc1 and mc2.
Checked: contexts, choices and both metrics equal the harness's (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, text
from stilnovo.benchmarks.task import MultipleChoice, Task
from stilnovo.benchmarks.tasks.hellaswag import clean
from stilnovo.benchmarks.tasks.truthfulqa import truthful

DATA = Dataset(
    folder="truthfulqa_it",
    hub="alexandrainst/m_truthfulqa",
    config="it",
    names={"validation": ("val",)},
    files={"validation": ("it_validation.json", "it_val.json")},
)


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question."""
    lists = [{key: row[f"{name}_targets_{key}"] for key in ("choices", "labels")} for name in ("mc1", "mc2")]
    return truthful(place, clean(text(row, "question")), *lists)


TASK = Task(
    name="truthfulqa_it",
    version="2.0",
    source="https://huggingface.co/datasets/alexandrainst/m_truthfulqa",
    licence="CC BY-NC 4.0",
    metrics=("mc2", "mc1"),
    splits=("validation",),
    load=DATA.loader(make_item),
    reference="truthfulqa_it_mc1, truthfulqa_it_mc2",
)
