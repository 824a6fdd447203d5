"""Belebele in Italian: reading comprehension, four options, the same passages in 122 languages (Bandarkar et al. 2024).

Dataset: https://huggingface.co/datasets/facebook/belebele (configuration `ita_Latn`; test 900 questions on 488 passages).
Licence: CC BY-SA 4.0; its authors mean it for measuring only, not for training.
A row (our own words): {"link": "https://…/volpi", "question_number": 1, "flores_passage": "Una volpe vide …", "question":
"Chi vide l'uva?", "mc_answer1": "il corvo", …, "mc_answer4": "la volpe", "correct_answer_num": "4", "dialect": "ita_Latn"}

Protocol: task `belebele_ita_Latn` 0.0 of lm-evaluation-harness, 0-shot: `P:`, `Q:` and `A:` to `D:`, letters after
`Answer:`; accuracy (`acc`). Questions on one passage (of one `link`) are a cluster.
Checked: contexts and answers equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.examples import behind, first_others
from stilnovo.benchmarks.task import MultipleChoice, Request, Task
from stilnovo.benchmarks.tasks.mmlu import letter_item, lettered

DATA = Dataset(
    folder="belebele_it",
    hub="facebook/belebele",
    config="ita_Latn",
    files={"test": ("ita_Latn.jsonl", "data/ita_Latn.jsonl", "test/ita_Latn.jsonl")},
)


def load(request: Request) -> list[MultipleChoice]:
    """Load the items of the split, each after its first other rows if any are wanted."""
    items = build(*DATA.rows(request), make_item, request.split)
    return [behind(item, first_others(items, item, request.shots)) for item in items] if request.shots else items


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question; what those on one passage begin with is their header."""
    passage = text(row, "flores_passage")
    options = lettered([row[f"mc_answer{number}"] for number in range(1, 5)], "{}: {}")
    return letter_item(
        place,
        f"P: {passage}\n",
        "\n".join([f"Q: {text(row, 'question').strip()}", *options, "Answer:"]),
        len(options),
        letter_index(str(row["correct_answer_num"]), "1234"),
        cluster=row.get("link") or passage,
    )


TASK = Task(
    name="belebele_it",
    version="0.0",
    source="https://huggingface.co/datasets/facebook/belebele",
    licence="CC BY-SA 4.0",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=load,
    shots_rule="the first other rows of the evaluated split, as lm-evaluation-harness has it",
    reference="belebele_ita_Latn",
    untried=True,
)
