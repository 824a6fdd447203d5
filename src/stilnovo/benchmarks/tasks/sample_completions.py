"""Forty everyday scenes to be completed, written for stilnovo in the manner of HellaSwag: they need no download.

Dataset: `stilnovo/sample/completions.jsonl`, part of this package. Licence: Apache-2.0.
A row: {"id": "c-002", "activity_label": "In bicicletta", "ctx": "Luca si accorge di avere una gomma a terra. … e",
"endings": ["cambia il campanello …", "lo copre con una toppa …", "lo allarga …", "rimonta tutto …"], "label": 1}

Protocol: 0-shot, the context and a space before each ending, no activity label, accuracy by characters (`acc_norm`).
Made for the demo and the tests: forty items show only large differences.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Row, build, whole_number
from stilnovo.benchmarks.task import MultipleChoice, Task
from stilnovo.io import sample
from stilnovo.io.rows import read_rows

_FILE = "completions.jsonl"


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question."""
    return MultipleChoice(
        id=row["id"],
        context=row["ctx"],
        endings=tuple(f" {ending}" for ending in row["endings"]),
        answer=whole_number(row["label"]),
    )


TASK = Task(
    name="sample_completions",
    version="1.0",
    source="stilnovo/sample/completions.jsonl",
    licence="Apache-2.0",
    metrics=("acc_norm", "acc"),
    splits=("test",),
    load=lambda request: build(read_rows(sample.path(_FILE)), _FILE, make_item),
)
