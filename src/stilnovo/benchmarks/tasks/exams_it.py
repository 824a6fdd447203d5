"""EXAMS, Italian part: questions of real Italian high-school examinations (Hardalov et al. 2020), not translated.

Dataset: https://github.com/mhardalov/exams-qa, on the hub https://huggingface.co/datasets/mhardalov/exams
(configuration `multilingual`, of which the Italian rows are kept; test 636, validation 156, train 464). Licence:
CC BY-SA 4.0.
A row (our own words): {"id": "…", "question": {"stem": "Quale gas respiriamo?", "choices": [{"label": "A",
"text": "l'ossigeno"}, …]}, "answerKey": "A", "info": {"subject": "Biology", "language": "Italian"}}

Protocol: ours, since lm-evaluation-harness has no Italian EXAMS: that of ARC with Italian labels (`Domanda:`,
`Risposta:`; with two other wordings in `--prompts`), 0-shot, the texts of the options as endings, accuracy by characters
(`acc_norm`). The breakdown is by subject. Checked: counts, and every answer key among its options (tests/test_evaluate_benchmarks.py).
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index
from stilnovo.benchmarks.task import MultipleChoice, Request, Task

_WORDINGS = {
    "domanda": "Domanda: {}\nRisposta:",
    "esame": "Da un esame di maturità. {}\nLa risposta esatta è:",
    "sola": "{}\nRisposta:",
}
DATA = Dataset(
    folder="exams_it",
    hub="mhardalov/exams",
    config="multilingual",
    files={
        split: (f"multilingual_{name}.it.jsonl",)
        for split, name in (("test", "test"), ("validation", "dev"), ("train", "train"))
    },
)


def load(request: Request) -> list[MultipleChoice]:
    """Load the Italian items of the split."""
    rows, origin = DATA.rows(request)
    italian = [row for row in rows if (row.get("info") or {}).get("language", "Italian") == "Italian"]
    wording = _WORDINGS[request.prompt or "domanda"]
    return build(italian, origin, lambda row, _: make_item(row, wording))


def make_item(row: Row, wording: str = _WORDINGS["domanda"]) -> MultipleChoice:
    """One row as a question; the hub keeps the choices as two lists, the original as a list of pairs."""
    question = row["question"]
    choices = question["choices"]
    if isinstance(choices, dict):
        choices = [
            {"label": label, "text": text} for label, text in zip(choices["label"], choices["text"], strict=True)
        ]
    return MultipleChoice(
        id=str(row["id"]),
        context=wording.format(question["stem"].strip()),
        endings=tuple(f" {choice['text'].strip()}" for choice in choices),
        answer=letter_index(row["answerKey"], [choice["label"] for choice in choices]),
        category=row["info"]["subject"],
    )


TASK = Task(
    name="exams_it",
    version="1.0",
    source="https://github.com/mhardalov/exams-qa",
    licence="CC BY-SA 4.0",
    metrics=("acc_norm", "acc"),
    splits=("test", "validation", "train"),
    load=load,
    categories="subject",
    prompts=tuple(_WORDINGS),
)
