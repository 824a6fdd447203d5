"""MMLU: 57 subjects from abstract algebra to world religions, four options each (Hendrycks et al. 2021).

Dataset: https://huggingface.co/datasets/cais/mmlu (configuration `all`; test 14,042, validation 1,531, dev 285, five a
subject). Licence: MIT.
A row (our own words): {"question": "Which planet is closest to the Sun?", "subject": "astronomy",
"choices": ["Venus", "Mercury", "Mars", "Earth"], "answer": 1}

Protocol: group `mmlu` 2 of lm-evaluation-harness, 5-shot: one line that names the subject, the first five rows of its
dev set, letters after `Answer:`, accuracy (`acc`) over all items. The items of a subject share their header; subjects
are clusters and categories.
Checked: contexts and answers equal the harness's, 0- and 5-shot (tests/test_evaluate_reference.py). Untried on
real rows, which were not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text, whole_number
from stilnovo.benchmarks.examples import few_shot
from stilnovo.benchmarks.items import NO_EXAMPLES
from stilnovo.benchmarks.task import FewShot, MultipleChoice, Request, Task
from stilnovo.errors import InputError

LETTERS = "ABCD"
_TITLE = "The following are multiple choice questions (with answers) about {}.\n\n"
DATA = Dataset(folder="mmlu", hub="cais/mmlu", config="all", names={"dev": ("dev",), "validation": ("validation",)})


def load(request: Request) -> list[MultipleChoice]:
    """Load the items of the split, each after its subject's examples."""
    shots, where = DATA.rows(request, "dev") if request.shots else ([], "")
    rows, origin = DATA.rows(request)
    examples: dict[str, list[MultipleChoice]] = {}
    for item in build(shots, where, make_item, "dev"):
        examples.setdefault(item.category, []).append(item)
    before = {
        subject: first_examples(
            examples.get(subject, []), request.shots, where, _TITLE.format(subject.replace("_", " "))
        )
        for subject in dict.fromkeys(str(row.get("subject")) for row in rows)
    }
    return build(rows, origin, lambda row, place: make_item(row, place, before[text(row, "subject")]), request.split)


def make_item(row: Row, place: str, before: FewShot = NO_EXAMPLES) -> MultipleChoice:
    """Convert a row to a question after its examples."""
    subject = text(row, "subject")
    asked = "\n".join([text(row, "question").strip(), *lettered(row["choices"]), "Answer:"])
    return letter_item(
        f"{subject}/{place}", before, asked, len(row["choices"]), whole_number(row["answer"]), subject, subject
    )


def lettered(options: Sequence[str], layout: str = "{}. {}") -> list[str]:
    """Format options, each after its letter.

    Raises:
        ValueError: one is empty, or no text.
    """
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError("an option is empty, or no text")
    return [layout.format(letter, option) for letter, option in zip("ABCDEFGHI", options, strict=False)]


def letter_item(
    id: str, before: FewShot | str, asked: str, options: int, answer: int, cluster: str = "", category: str = ""
) -> MultipleChoice:
    """A question whose endings are the letters of its options, with `asked` after its examples, or after a passage."""
    header, before = (before.text, before) if isinstance(before, FewShot) else (before, NO_EXAMPLES)
    return MultipleChoice(
        id=id,
        context=header + asked,
        endings=tuple(f" {letter}" for letter in "ABCDEFGHI"[:options]),
        answer=answer,
        cluster=cluster,
        category=category,
        header=header,
        few_shot=before,
    )


def first_examples(examples: Sequence[MultipleChoice], wanted: int, origin: str, description: str = "") -> FewShot:
    """The first of these questions as examples, after a description.

    Raises:
        InputError: there are fewer of them than wanted.
    """
    if len(examples) < wanted:
        raise InputError(f"There are only {len(examples)} examples for {wanted} shots.", f"File: {origin}")
    return few_shot(examples[:wanted], description)


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
    untried=True,
)
