"""ARC-Challenge in Italian: grade-school science questions, machine-translated for the Okapi project.

Dataset: https://huggingface.co/datasets/alexandrainst/m_arc (configuration `it`; test 1,169, validation 297, train
1,118), the Italian files of https://github.com/nlp-uoregon/mlmm-evaluation. Licence: CC BY-NC 4.0, for measuring only.
A row (our own words): {"id": "ARC-Challenge/test/…", "instruction": "Quale di questi corpi emette luce propria?",
"option_a": "la Luna", "option_b": "il Sole", "option_c": "Marte", "option_d": "una cometa", "answer": "B"}

Protocol: task `arc_it` 2.0 of lm-evaluation-harness, 0-shot, English labels around Italian text, accuracy by characters
(`acc_norm`). Options that are empty are left out. Version 1.0 (`arc_it@1.0`), under which LLaMAntino-3-ANITA's figures
were published, scored every absent option as a fifth choice of one blank; it is kept to measure what that did.
Checked: contexts, choices and answers of 2.0 equal the harness's, all of them (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stilnovo.benchmarks.dataset_files import Dataset, Row, letter_index, text
from stilnovo.benchmarks.task import MultipleChoice, Task
from stilnovo.benchmarks.tasks.hellaswag import clean

_LETTERS = "ABCDE"
DATA = Dataset(
    folder="arc_it",
    hub="alexandrainst/m_arc",
    config="it",
    files={split: (f"it_{split}.json",) for split in ("test", "validation", "train")},
)


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question; absent options are left out."""
    return _question(row, [letter for letter in _LETTERS if row.get(f"option_{letter.lower()}")])


def _question(row: Row, letters: Sequence[str]) -> MultipleChoice:
    options = [row.get(f"option_{letter.lower()}") for letter in letters]
    return MultipleChoice(
        id=str(row["id"]),
        context=f"Question: {clean(text(row, 'instruction'))}\nAnswer:",
        endings=tuple(f" {clean(option) if option else ' '}" for option in options),
        answer=letter_index(row["answer"], letters),
    )


TASK = Task(
    name="arc_it",
    version="2.0",
    source="https://huggingface.co/datasets/alexandrainst/m_arc",
    licence="CC BY-NC 4.0",
    metrics=("acc_norm", "acc"),
    splits=("test", "validation", "train"),
    load=DATA.loader(make_item),
    reference="arc_it",
)
TASK_1_0 = replace(TASK, version="1.0", load=DATA.loader(lambda row, _: _question(row, _LETTERS)), reference="")
