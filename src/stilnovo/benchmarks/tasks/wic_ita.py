"""WiC-ITA: does a word mean the same in two sentences? EVALITA 2023, the binary task (Cassotti et al. 2023).

Dataset: https://github.com/wic-ita/data (`binary`); also https://huggingface.co/datasets/evalitahf/word_in_context.
Licence: not stated where it was looked for; ask the authors before passing it on.
A row (our own words): {"id": "riso.noun.1", "lemma": "riso", "sentence1": "Il riso cuoce.", "start1": 3, "end1": 7,
"sentence2": "Il suo riso è contagioso.", "start2": 7, "end2": 11, "label": 0}

Protocol: ours; both sentences, the question and `Risposta:`, the log-likelihood of `No` and `Sì`, 0-shot, and another
wording in `--prompts`; F1, mean over both classes (`macro_f1`). `evalita_wic` asks the same rows with Evalita-LLM's prompts.
Pairs of one lemma are a cluster.
Checked: F1 equals scikit-learn's (tests/test_corpus_level.py). Untried on real rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.task import MultipleChoice, Request, Task

_WORDINGS = {
    "domanda": (
        "Frase 1: {first}\nFrase 2: {second}\nNelle due frasi la parola «{word}» ha lo stesso significato?\nRisposta:",
        " No", " Sì",
    ),
    "lettere": (
        "Frase 1: {first}\nFrase 2: {second}\nLa parola «{word}» ha lo stesso significato nelle due frasi?\n"
        "A: Sì\nB: No\nRisposta:",
        " B", " A",
    ),
}  # fmt: skip
DATA = Dataset(
    folder="wic_ita",
    hub="evalitahf/word_in_context",
    names={"dev": ("validation",)},
    files={split: (f"binary/{split}.jsonl",) for split in ("test", "dev", "train")},
)


def word_in(row: Row, number: int) -> str:
    """The word in question as it stands in the first or second sentence.

    Raises:
        ValueError: the places do not lie in the sentence.
    """
    start, end, sentence = int(row[f"start{number}"]), int(row[f"end{number}"]), text(row, f"sentence{number}")
    if not 0 <= start < end <= len(sentence):
        raise ValueError(f"characters {start} to {end} are not in sentence{number}")
    return sentence[start:end]


def load(request: Request) -> list[MultipleChoice]:
    """Load the pairs of sentences."""
    return build(*DATA.rows(request), lambda row, place: make_item(row, place, request.prompt), request.split)


def make_item(row: Row, place: str, prompt: str = "") -> MultipleChoice:
    """Convert a row to a question."""
    question, *endings = _WORDINGS[prompt or "domanda"]
    first, second = text(row, "sentence1").strip(), text(row, "sentence2").strip()
    word = str(row.get("lemma") or word_in(row, 1))
    return MultipleChoice(
        id=str(row.get("id") or place),
        context=question.format(first=first, second=second, word=word),
        endings=tuple(endings),
        answer=letter_index(str(row["label"]), "01"),
        cluster=word,
    )


TASK = Task(
    name="wic_ita",
    version="1.0",
    source="https://github.com/wic-ita/data",
    licence="not stated",
    metrics=("macro_f1", "mcc", "acc"),
    splits=("test", "dev"),
    load=load,
    untried=True,
    prompts=tuple(_WORDINGS),
    example_splits=("train",),
)
