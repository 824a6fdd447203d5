"""ItaCoLA: is a sentence acceptable Italian? Examples of linguists' books, judged by them (Trotta et al. 2021).

Dataset: `ItaCoLA_dataset.tsv` of https://github.com/dhfbk/ItaCoLA-dataset (train 7,801, dev 946, test 975), on the hub
https://huggingface.co/datasets/gsarti/itacola (configuration `scores`, without dev). Licence: not stated by its authors:
ask them before passing it on.
A row (our own words): {"unique_id": "7", "source": "Rossi_2001", "acceptability": "0", "sentence": "Gatto il dorme.",
"split": "test"}

Protocol: ours; a question and `Risposta:`, the log-likelihood of `No` and `Sì`, 0-shot, and two other wordings in
`--prompts`. Matthews correlation (`mcc`), as the authors measure: most sentences are acceptable, so that accuracy rewards
whoever always agrees. Examples for `--shots` come from train. The breakdown is by source; sentences of one source are
counted as independent, for a linguist's examples are made one by one.
Checked: the correlation equals scikit-learn's (tests/test_corpus_level.py). Untried on real rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.task import MissingData, MultipleChoice, Request, Task

_WORDINGS = {
    "domanda": ("La frase seguente è accettabile in italiano?\nFrase: {}\nRisposta:", " No", " Sì"),
    "lettere": ("La frase seguente è accettabile in italiano?\nFrase: {}\nA: Sì\nB: No\nRisposta:", " B", " A"),
    "giudizio": ("Per chi parla italiano la frase «{}» è", " inaccettabile", " accettabile"),
}
_COLUMNS = {"uniqueindexid": "unique_id", "uniqueid": "unique_id", "judgement": "acceptability"}
_FILE = ("ItaCoLA_dataset.tsv",)
DATA = Dataset(
    folder="itacola", hub="gsarti/itacola", config="scores", files={"test": _FILE, "dev": _FILE, "train": _FILE}
)


def load(request: Request) -> list[MultipleChoice]:
    """Load the sentences of the split; the authors' file holds all splits."""
    rows, origin = DATA.rows(request)
    chosen = [row for row in map(_named, rows) if row.get("split") in (request.split, None)]
    if not chosen:
        raise MissingData(f"There are no rows of split {request.split}.", f"File: {origin}", "Change --split.")
    return build(chosen, origin, lambda row, place: make_item(row, place, request.prompt), request.split)


def _named(row: Row) -> Row:
    """The row under the hub's names of its columns, which the authors' table writes otherwise."""
    return {_COLUMNS.get(name.lower(), name.lower()): value for name, value in row.items()}


def make_item(row: Row, place: str, prompt: str = "") -> MultipleChoice:
    """Convert a row to a question."""
    question, *endings = _WORDINGS[prompt or "domanda"]
    return MultipleChoice(
        id=str(row.get("unique_id") or place),
        context=question.format(text(row, "sentence").strip()),
        endings=tuple(endings),
        answer=letter_index(str(row["acceptability"]), "01"),
        category=str(row.get("source") or ""),
    )


TASK = Task(
    name="itacola",
    version="1.0",
    source="https://github.com/dhfbk/ItaCoLA-dataset",
    licence="not stated",
    metrics=("mcc", "macro_f1", "acc"),
    splits=("test", "dev"),
    load=load,
    categories="source",
    untried=True,
    prompts=tuple(_WORDINGS),
    example_splits=("train",),
)
