"""ARC-Challenge in Italian: grade-school science questions, machine-translated for the Okapi project.

Dataset: https://huggingface.co/datasets/alexandrainst/m_arc (configuration `it`; test 1,169, validation 297, train
1,118), the Italian files of https://github.com/nlp-uoregon/mlmm-evaluation. Licence: CC BY-NC 4.0, for measuring only.
A row (our own words): {"id": "ARC-Challenge/test/…", "instruction": "Quale di questi corpi emette luce propria?",
"option_a": "la Luna", "option_b": "il Sole", "option_c": "Marte", "option_d": "una cometa", "answer": "B"}

Protocol: task `arc_it` 2.0 of lm-evaluation-harness, 0-shot, English labels around Italian text, accuracy by characters
(`acc_norm`). Options that are empty are left out; version 1.0 scored them as a fifth choice " ".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.evaluate.task import MultipleChoice, Task, build, read_rows

_LETTERS = "ABCDE"


def load(data_dir: Path | None, split: str) -> list[MultipleChoice]:
    """Items of `DATA_DIR/arc_it/it_SPLIT.json`."""
    if data_dir is None:
        raise InputError(
            "Task arc_it needs its data.",
            "No folder was given.",
            "Add --data-dir DIR, where DIR/arc_it/it_test.json is the test set.",
        )
    path = data_dir / "arc_it" / f"it_{split}.json"
    if not path.is_file():
        raise InputError("The data of task arc_it are missing.", f"Not found: {path}", "Check --data-dir and --split.")
    return build(read_rows(path), make_item, str(path))


def make_item(row: dict[str, Any]) -> MultipleChoice:
    """One row of the dataset as a question."""
    options = {letter: row.get(f"option_{letter.lower()}") for letter in _LETTERS}
    kept = {letter: _clean(text) for letter, text in options.items() if text}
    if row["answer"] not in kept:
        raise ValueError(f"answer {row['answer']!r} is none of its options {', '.join(kept)}")
    return MultipleChoice(
        id=str(row["id"]),
        context=f"Question: {_clean(row['instruction'])}\nAnswer:",
        endings=tuple(f" {text}" for text in kept.values()),
        answer=list(kept).index(row["answer"]),
    )


def _clean(text: str) -> str:
    """The reference's cleaning, made for HellaSwag and applied here too: it drops what stands in square brackets."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


TASK = Task(
    name="arc_it",
    version="2.0",
    source="https://huggingface.co/datasets/alexandrainst/m_arc",
    licence="CC BY-NC 4.0",
    metric="acc_norm",
    splits=("test", "validation", "train"),
    load=load,
)
