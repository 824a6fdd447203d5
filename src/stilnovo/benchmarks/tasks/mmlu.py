"""MMLU: 57 subjects from abstract algebra to world religions, four options each (Hendrycks et al. 2021).

Dataset: https://huggingface.co/datasets/cais/mmlu (configuration `all`; test 14,042, validation 1,531, dev 285, five a
subject). Licence: MIT.
A row (our own words): {"question": "Which planet is closest to the Sun?", "subject": "astronomy",
"choices": ["Venus", "Mercury", "Mars", "Earth"], "answer": 1}

Protocol: group `mmlu` 2 of lm-evaluation-harness, 5-shot: one line that names the subject, the first five rows of its
dev set, letters after `Answer:`, accuracy (`acc`) over all items. The items of a subject share their header; subjects
are clusters and categories.
Checked: contexts and answers equal the harness's, 0- and 5-shot (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text
from stilnovo.benchmarks.task import MultipleChoice, Request, Task
from stilnovo.benchmarks.tasks.letters import header, lettered

DATA = Dataset(folder="mmlu", hub="cais/mmlu", config="all", names={"dev": ("dev",), "validation": ("validation",)})


def load(request: Request) -> list[MultipleChoice]:
    """Items of the split, each after its subject's header."""
    shots, where = DATA.rows(request, "dev") if request.shots else ([], "")
    rows, origin = DATA.rows(request)
    examples: dict[str, list[MultipleChoice]] = {}
    for item in build(shots, where, make_item, "dev"):
        examples.setdefault(item.category, []).append(item)
    headers = {
        subject: _title(subject) + header(examples.get(subject, [])[: request.shots], request.shots, where)
        for subject in dict.fromkeys(str(row.get("subject")) for row in rows)
    }
    return build(rows, origin, lambda row, place: make_item(row, place, headers[text(row, "subject")]), request.split)


def make_item(row: Row, place: str, begin: str = "") -> MultipleChoice:
    """One row as a question after the header `begin`."""
    subject = text(row, "subject")
    question, answer = text(row, "question").strip(), int(row["answer"])
    return lettered(f"{subject}/{place}", begin, question, row["choices"], answer, subject)


def _title(subject: str) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


TASK = Task(
    name="mmlu",
    version="2",
    source="https://huggingface.co/datasets/cais/mmlu",
    licence="MIT",
    metrics=("acc", "acc_norm"),
    splits=("test", "validation"),
    load=load,
    shots=5,
    shots_rule="the first five rows of the subject's own dev set, as lm-evaluation-harness has it",
    reference="mmlu",
    categories="subject",
)
