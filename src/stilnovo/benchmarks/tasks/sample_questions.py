"""Sixty Italian questions of general and scientific knowledge, written for stilnovo: they need no download.

Dataset: `stilnovo/sample/questions.jsonl`, part of this package (six subjects of ten). Licence: Apache-2.0.
A row: {"id": "q-002", "subject": "geografia", "instruction": "Quale fiume bagna Torino …?", "option_a": "Il Tevere",
"option_b": "L'Arno", "option_c": "L'Adige", "option_d": "Il Po", "answer": "D"}

Protocol: 0-shot, Italian labels (`Domanda:`, `Risposta:`), accuracy by characters (`acc_norm`). Made for the demo and
the tests: sixty items show only large differences, and no other evaluator has published figures on them.
"""

from __future__ import annotations

from typing import Any

from stilnovo.benchmarks.dataset_files import build
from stilnovo.benchmarks.task import MultipleChoice, Request, Task
from stilnovo.io import sample
from stilnovo.io.rows import read_rows

_FILE, _LETTERS = "questions.jsonl", "ABCD"


def load(request: Request) -> list[MultipleChoice]:
    """All items; no data folder is needed."""
    return build(read_rows(sample.path(_FILE)), make_item, _FILE)


def make_item(row: dict[str, Any]) -> MultipleChoice:
    """One row as a question."""
    return MultipleChoice(
        id=row["id"],
        context=f"Domanda: {row['instruction']}\nRisposta:",
        endings=tuple(f" {row[f'option_{letter.lower()}']}" for letter in _LETTERS),
        answer=_LETTERS.index(row["answer"]),
        category=row["subject"],
    )


TASK = Task(
    name="sample_questions",
    version="1.0",
    source="stilnovo/sample/questions.jsonl",
    licence="Apache-2.0",
    metrics=("acc_norm", "acc"),
    splits=("test",),
    categories="subject",
    load=load,
)
