"""SQuAD in Italian: questions about a paragraph of Wikipedia, answered with words from it.

Dataset: https://github.com/crux82/squad-it (Croce et al. 2018, machine-translated and filtered), on the hub
https://huggingface.co/datasets/crux82/squad_it (test 7,609); the file `SQuAD_it-dev-half.json` has 3,881 of them.
Licence: CC BY-SA 4.0.
A row (our own words): {"id": "d1", "context": "Il Po nasce dal Monviso …", "question": "Da dove nasce il Po?",
"answers": {"text": ["dal Monviso"], "answer_start": [12]}, "title": "Po"}

Protocol: ours, since lm-evaluation-harness has no Italian SQuAD: paragraph, question and `Risposta:`, 0-shot, greedy, one
line of at most 32 tokens; F1 over words and exact match, the best over the given answers, after the normalisation of
SQuAD 1.1 (small letters, no punctuation, no articles) with the Italian articles, also elided, beside the English ones, and
with what that rule leaves out for Italian (`grading.py`). Version 1.1: an article only before a word, accents, numbers.
The questions of one article are a cluster.
Checked: F1 beside a plain count of shared words, articles and elisions (tests/test_evaluate_benchmarks.py).
"""

from __future__ import annotations

from pathlib import Path

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text
from stilnovo.benchmarks.grading import grade
from stilnovo.benchmarks.task import Decoding, Generation, Request, Task
from stilnovo.errors import reported
from stilnovo.io.rows import read_rows

_WORDINGS = {
    "testo": ("Testo: {}\n", "Domanda: {}\nRisposta:"),
    "lettura": ("Leggi il brano e rispondi con le sue parole.\n\n{}\n\n", "{}\nRisposta:"),
    "breve": ("Testo: {}\n", "Rispondi in poche parole alla domanda: {}\nRisposta breve:"),
}
DECODING = Decoding(max_tokens=32, stop=("\n",))
DATA = Dataset(
    folder="squad_it",
    hub="crux82/squad_it",
    files={"test": ("SQuAD_it-test.json", "SQuAD_it-dev-half.json"), "train": ("SQuAD_it-train.json",)},
)


def load(request: Request) -> list[Generation]:
    """Load all questions of the split, from SQuAD's nested form or from rows."""
    paths = DATA.find(request, request.split)
    nested = paths[0].suffix == ".json"
    rows, origin = (nested_rows(paths[0]), str(paths[0])) if nested else DATA.rows(request)
    return build(rows, origin, lambda row, _: make_item(row, request.prompt))


def nested_rows(path: Path) -> list[Row]:
    """The questions of a file in the form of SQuAD 1.1: articles, paragraphs, questions.

    Raises:
        InputError: it is not of that form.
    """

    with reported(
        f"{path} is not in the form of SQuAD 1.1.", "Get it again.",
        errors=(OSError, ValueError, KeyError, TypeError, AttributeError),
    ):  # fmt: skip
        return [
            {
                **question,
                "context": paragraph["context"],
                "title": article.get("title") or f"article {article_index}",
                "answers": {"text": [answer["text"] for answer in question["answers"]]},
            }
            for article_index, article in enumerate(read_rows(path)[0]["data"])
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]


def make_item(row: Row, prompt: str = "") -> Generation:
    """Convert a row to a question."""
    about, question = _WORDINGS[prompt or "testo"]
    passage = about.format(text(row, "context").strip())
    return Generation(
        id=str(row["id"]),
        context=passage + question.format(text(row, "question").strip()),
        references=tuple(dict.fromkeys(row["answers"]["text"])),
        decoding=DECODING,
        cluster=str(row.get("title") or ""),
        header=passage,
    )


TASK = Task(
    name="squad_it",
    version="1.1",
    source="https://github.com/crux82/squad-it",
    licence="CC BY-SA 4.0",
    metrics=("f1", "exact_match"),
    splits=("test",),
    example_splits=("train",),
    load=load,
    grade=grade,
    prompts=tuple(_WORDINGS),
)
