"""Sixty Italian questions of general and scientific knowledge, written for stilnovo: they need no download.

Dataset: `stilnovo/sample/questions.jsonl`, part of this package (six subjects of ten). Licence: Apache-2.0.
A row: {"id": "q-002", "subject": "geografia", "instruction": "Quale fiume bagna Torino …?", "option_a": "Il Tevere",
"option_b": "L'Arno", "option_c": "L'Adige", "option_d": "Il Po", "answer": "D"}

Protocol: 0-shot, Italian labels (`Domanda:`, `Risposta:`), accuracy by characters (`acc_norm`). Made for the demo and
the tests: sixty items show only large differences, and no other evaluator has published figures on them.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Row, build
from stilnovo.benchmarks.task import MultipleChoice, Task
from stilnovo.io import sample
from stilnovo.io.rows import read_rows

_FILE, _LETTERS = "questions.jsonl", "ABCD"


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question."""
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
    load=lambda request: build(read_rows(sample.path(_FILE)), _FILE, make_item),
)
