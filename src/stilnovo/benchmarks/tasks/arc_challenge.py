"""ARC-Challenge: grade-school science questions that simple methods get wrong (Clark et al. 2018).

Dataset: https://huggingface.co/datasets/allenai/ai2_arc (configuration `ARC-Challenge`; test 1,172, validation 299,
train 1,119). Licence: CC BY-SA 4.0.
A row (our own words): {"id": "…", "question": "Which body shines by itself?", "choices": {"text": ["the Moon", "the
Sun"], "label": ["A", "B"]}, "answerKey": "B"}

Protocol: task `arc_challenge` 1.0 of lm-evaluation-harness, 0-shot, accuracy by characters (`acc_norm`).
Checked: contexts, choices and answers equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on
real rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, letter_index, text
from stilnovo.benchmarks.task import MultipleChoice, Task

DATA = Dataset(folder="arc_challenge", hub="allenai/ai2_arc", config="ARC-Challenge")


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question."""
    return MultipleChoice(
        id=str(row["id"]),
        context=f"Question: {text(row, 'question')}\nAnswer:",
        endings=tuple(f" {choice}" for choice in row["choices"]["text"]),
        answer=letter_index(row["answerKey"], row["choices"]["label"]),
    )


TASK = Task(
    name="arc_challenge",
    version="1.0",
    source="https://huggingface.co/datasets/allenai/ai2_arc",
    licence="CC BY-SA 4.0",
    metrics=("acc_norm", "acc"),
    splits=("test", "validation", "train"),
    load=DATA.loader(make_item),
    reference="arc_challenge",
    untried=True,
)
