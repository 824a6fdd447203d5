"""INCLUDE, Italian part: questions of real academic and professional examinations, not translated (Romanou et al. 2025).

Dataset: https://huggingface.co/datasets/CohereForAI/include-base-44 (configuration `Italian`, split test). Licence:
Apache 2.0.
A row (our own words): {"language": "Italian", "country": "Italy", "domain": "STEM", "subject": "Biology", "level":
"Academic", "regional_feature": "agnostic", "question": "Quale gas respiriamo?", "option_a": "l'ossigeno", "option_b":
"l'elio", "option_c": "il neon", "option_d": "l'argo", "answer": 0}; an older form has a list `choices`.

Protocol: group `include_base_44_italian` 0.0 of lm-evaluation-harness, 0-shot with English instructions: a line that names
the domain, the question, letters after `Answer:`; accuracy (`acc`) over all items. The blank before `D.` is the harness's.
The breakdown is by domain.
Checked: contexts and answers equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, letter_index, text, whole_number
from stilnovo.benchmarks.task import FewShot, MultipleChoice, Task
from stilnovo.benchmarks.tasks.mmlu import LETTERS, letter_item, lettered

_TITLE = "The following is multiple-choice question about {}."
DATA = Dataset(folder="include_it", hub="CohereForAI/include-base-44", config="Italian")


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question; those of one domain share their header."""
    domain, options = text(row, "domain"), row.get("choices") or [row[f"option_{letter.lower()}"] for letter in LETTERS]
    *lines, last = lettered(options)
    answer = row["answer"]
    return letter_item(
        place,
        FewShot(_TITLE.format(domain)),
        "\n".join([text(row, "question").strip(), *lines, f" {last}", "Answer:"]),
        len(options),
        letter_index(answer, LETTERS) if isinstance(answer, str) else whole_number(answer),
        category=domain,
    )


TASK = Task(
    name="include_it",
    version="0.0",
    source="https://huggingface.co/datasets/CohereForAI/include-base-44",
    licence="Apache 2.0",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    example_splits=("validation",),
    load=DATA.loader(make_item),
    reference="include_base_44_italian",
    categories="domain",
    untried=True,
)
