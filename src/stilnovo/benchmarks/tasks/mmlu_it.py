"""MMLU in Italian: 57 subjects from abstract algebra to world religions, machine-translated for the Okapi project.

Dataset: https://huggingface.co/datasets/alexandrainst/m_mmlu (configuration `it`; test 13,237; validation 1,444; train
274, which Okapi's own files call dev). Licence: CC BY-NC 4.0, for measuring only.
A row (our own words): {"id": "astronomy/test/3", "instruction": "Quale pianeta è il più vicino al Sole?",
"option_a": "Venere", "option_b": "Mercurio", "option_c": "Marte", "option_d": "la Terra", "answer": "B"}

Protocol: task `m_mmlu_it` 0.0 of lm-evaluation-harness, 5-shot: letters after `Answer:`, accuracy (`acc`). The examples
are the first five rows of train for *every* subject, as the harness has it; they come from other subjects than most
questions. All items share them as their header. Subjects are clusters and categories.
Checked: contexts and answers equal the harness's, 0- and 5-shot (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.items import NO_EXAMPLES
from stilnovo.benchmarks.task import FewShot, MultipleChoice, Request, Task
from stilnovo.benchmarks.tasks.mmlu import LETTERS, first_examples, letter_item, lettered

DATA = Dataset(
    folder="mmlu_it",
    hub="alexandrainst/m_mmlu",
    config="it",
    names={"validation": ("val",), "train": ("train", "dev")},
    files={
        "test": ("it_test.json",),
        "validation": ("it_val.json", "it_validation.json"),
        "train": ("it_train.json", "it_dev.json"),
    },
)


def load(request: Request) -> list[MultipleChoice]:
    """Load the items of the split, each after the first examples of train."""
    shots, where = DATA.rows(request, "train") if request.shots else ([], "")
    before = first_examples(build(shots[: request.shots], where, make_item), request.shots, where)
    return build(*DATA.rows(request), lambda row, place: make_item(row, place, before))


def make_item(row: Row, place: str, before: FewShot = NO_EXAMPLES) -> MultipleChoice:
    """Convert a row to a question after its examples."""
    subject = str(row["id"]).split("/")[0]
    options = [row[f"option_{letter.lower()}"] for letter in LETTERS]
    asked = "\n".join([text(row, "instruction").strip(), *lettered(options), "Answer:"])
    return letter_item(
        str(row["id"]), before, asked, len(options), letter_index(row["answer"], LETTERS), subject, subject
    )


TASK = Task(
    name="mmlu_it",
    version="0.0",
    source="https://huggingface.co/datasets/alexandrainst/m_mmlu",
    licence="CC BY-NC 4.0",
    metrics=("acc", "acc_norm"),
    splits=("test", "validation"),
    load=load,
    shots=5,
    shots_rule="the first five rows of train (Okapi: dev), the same for all subjects, as lm-evaluation-harness has it",
    reference="m_mmlu_it",
    categories="subject",
)
