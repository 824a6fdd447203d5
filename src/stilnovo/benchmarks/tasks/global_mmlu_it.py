"""Global-MMLU in Italian: MMLU translated anew, with marks of what a culture's own knowledge is (Singh et al. 2025).

Datasets: https://huggingface.co/datasets/CohereForAI/Global-MMLU (configuration `it`; test 14,042 of 57 subjects, dev 285)
and https://huggingface.co/datasets/CohereForAI/Global-MMLU-Lite (`it`; test 400, half of them culturally sensitive).
Licence: Apache 2.0.
A row (our own words): {"sample_id": "astronomy/test/3", "subject": "astronomy", "subject_category": "STEM", "question":
"Quale pianeta è il più vicino al Sole?", "option_a": "Venere", "option_b": "Mercurio", "option_c": "Marte", "option_d":
"la Terra", "answer": "B", "cultural_sensitivity_label": "CA", "is_annotated": true, …}

Protocol: groups `global_mmlu_full_it` and `global_mmlu_it` (which is Lite) 0.0 of lm-evaluation-harness, under its names;
0-shot, letters after `Answer:`, accuracy (`acc`) over all items. `--shots N` puts the first N dev rows of the subject
before each question, as the harness's full group has it; its Lite group draws them. Subjects are clusters; the breakdown is
by cultural sensitivity, which 2,850 questions of the full set were judged for.
Checked: contexts and answers equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.items import NO_EXAMPLES
from stilnovo.benchmarks.task import FewShot, MultipleChoice, Request, Task
from stilnovo.benchmarks.tasks.mmlu import LETTERS, first_examples, letter_item, lettered

DATA = Dataset(folder="global_mmlu_full_it", hub="CohereForAI/Global-MMLU", config="it")
DATA_LITE = Dataset(folder="global_mmlu_it", hub="CohereForAI/Global-MMLU-Lite", config="it")
_SENSITIVITY = {"CS": "culturally sensitive", "CA": "culturally agnostic"}


def loader(data: Dataset) -> Callable[[Request], list[MultipleChoice]]:
    """The `load` function of either set: each item after its subject's first dev rows, if any are wanted."""

    def load(request: Request) -> list[MultipleChoice]:
        shots, where = data.rows(request, "dev") if request.shots else ([], "")
        rows, origin = data.rows(request)
        examples: dict[str, list[MultipleChoice]] = {}
        for item in build(shots, where, make_item, "dev"):
            examples.setdefault(item.cluster, []).append(item)
        before = {
            subject: first_examples(examples.get(subject, []), request.shots, where)
            for subject in dict.fromkeys(str(row.get("subject")) for row in rows)
        }
        return build(rows, origin, lambda row, place: make_item(row, place, before[str(row.get("subject"))]))

    return load


def make_item(row: Row, place: str, before: FewShot = NO_EXAMPLES) -> MultipleChoice:
    """Convert a row to a question after its examples."""
    options = lettered([row[f"option_{letter.lower()}"] for letter in LETTERS])
    return letter_item(
        text(row, "sample_id"),
        before,
        "\n".join([text(row, "question").strip(), *options, "Answer:"]),
        len(options),
        letter_index(row["answer"], LETTERS),
        cluster=text(row, "subject"),
        category=_SENSITIVITY.get(str(row.get("cultural_sensitivity_label")), "not judged"),
    )


TASK = Task(
    name="global_mmlu_full_it",
    version="0.0",
    source="https://huggingface.co/datasets/CohereForAI/Global-MMLU",
    licence="Apache 2.0",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=loader(DATA),
    shots_rule="the first rows of the subject's own dev set, as lm-evaluation-harness has it",
    reference="global_mmlu_full_it",
    categories="cultural sensitivity",
    untried=True,
)
TASK_LITE = replace(
    TASK,
    name="global_mmlu_it",
    source="https://huggingface.co/datasets/CohereForAI/Global-MMLU-Lite",
    load=loader(DATA_LITE),
    shots_rule="the first rows of the subject's own dev set",
    reference="global_mmlu_it",
)
