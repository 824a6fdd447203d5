"""Winogrande: to which of two names does a sentence mean to refer (Sakaguchi et al. 2020)?

Dataset: https://huggingface.co/datasets/allenai/winogrande (configuration `winogrande_xl`, validation 1,267). Licence:
CC BY. Also in the form of an instruction that holds sentence and options (https://github.com/tunx-cyber/FedLS).
A row (our own words): {"sentence": "Anna thanked Maria because _ had helped.", "option1": "Anna", "option2": "Maria",
"answer": "2"}

Protocol: task `winogrande` 1.0 of lm-evaluation-harness, 0-shot, partial scoring (Trinh and Le 2018): the sentence up
to the blank with either name is the context, the rest of it the ending, the same for both; accuracy (`acc`).
Checked: contexts, endings and answers equal the harness's (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

import re

from stilnovo.benchmarks.dataset_files import Dataset, Row, letter_index, text
from stilnovo.benchmarks.task import MultipleChoice, Task

_INSTRUCTION = re.compile(r"given sentence: (.*)\n\nOption1: (.*) Option2: (.*) Answer format: option1/option2$", re.S)
DATA = Dataset(
    folder="winogrande",
    hub="allenai/winogrande",
    config="winogrande_xl",
    elsewhere={"validation": ("winogrande_en/test.json",)},
)


def plain(row: Row) -> Row:
    """Convert a row to the hub's form, out of the instruction form where it has that."""
    if "instruction" not in row:
        return row
    match = _INSTRUCTION.search(text(row, "instruction"))
    if match is None:
        raise ValueError("the instruction does not hold a sentence and two options")
    sentence, first, second = match.groups()
    return {
        "sentence": sentence, "option1": first, "option2": second, "answer": row["answer"].removeprefix("option"),
    }  # fmt: skip


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question, from either form."""
    row = plain(row)
    before, blank, after = text(row, "sentence").partition("_")
    if not blank:
        raise ValueError("the sentence has no blank '_'")
    return MultipleChoice(
        id=place,
        context=before,
        endings=(f" {after.strip()}",) * 2,
        answer=letter_index(row["answer"], "12"),
        contexts=(before + text(row, "option1"), before + text(row, "option2")),
    )


TASK = Task(
    name="winogrande",
    version="1.0",
    source="https://huggingface.co/datasets/allenai/winogrande",
    licence="CC BY",
    metrics=("acc", "acc_norm"),
    splits=("validation",),
    example_splits=("train",),
    load=DATA.loader(make_item),
    reference="winogrande",
)
