"""INVALSI, the whole suite: 618 items of Italian school tests, grades 2 to 13, written in Italian.

Dataset: `invalsi.jsonl` of https://github.com/Crisp-Unimib/INVALSI-Eval-Suite (Puccetti et al. 2024 study its tests).
Licence: MIT claimed.
A row (our own words): {"Prova_PK": "14", "ID": "6", "question": "Chi parla?", "context": "Una volpe …" or NaN,
"options": [{"scelta": "A. la volpe"}, …], "answer": ["B"], "Grado": "5", "section": "Comprensione del testo", …}

Protocol: ours. The 583 items with lettered options: passage, question, options, `Risposta:`, the letters' log-likelihood;
two other wordings in `--prompts`.
The 35 open ones are written, greedily, one line of at most 48 tokens, and are right where a teacher would accept them by the
key (`open_answers.py`; the suite's own measure takes sentence embeddings of similarity 0.7). All items count once in
`acc`; chance is one over the number of options. Passages are clusters; the breakdown is by grade. The suite itself
counts a question of several items as right only when all are: that score is lower.
Checked: 618 items, 583 of them with a key among their letters (tests/test_evaluate_benchmarks.py).
"""

from __future__ import annotations

import re

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.open_answers import PARTS, accepted
from stilnovo.benchmarks.task import Decoding, Generation, Item, Metric, MultipleChoice, Request, Task

_WORDINGS = {
    "risposta": ("", "Risposta:"),
    "domanda": ("Domanda: ", "Risposta corretta:"),
    "prova": ("Dalla prova INVALSI. ", "La risposta giusta è:"),
}
_LETTER = re.compile(r"^\s*([A-Z])\W\s*")
DECODING = Decoding(max_tokens=48, stop=("\n",))
DATA = Dataset(folder="invalsi", files={"test": ("invalsi.jsonl",)})


def load(request: Request) -> list[Item]:
    """Load all items: questions with lettered options and open ones."""
    passages: dict[str, int] = {}
    return build(*DATA.rows(request), lambda row, _: make_item(row, passages, request.prompt))


def make_item(row: Row, passages: dict[str, int], prompt: str = "") -> Item:
    """Convert a row to a question; `passages` numbers those seen so far."""
    begin, label = _WORDINGS[prompt or "risposta"]
    given = (row["context"] or "").strip()
    passage = f"{given}\n\n" if given else ""
    place = passages.setdefault(given, len(passages) + 1) if given else 0
    cluster = f"passage {place}" if given else f"question {row['Prova_PK']}/{row['Domanda_PK']}"
    question = re.sub(r"[ \t]+", " ", text(row, "question")).strip()
    name, category = f"{row['Prova_PK']}/{row['Domanda_PK']}/{row['ID']}", f"grade {row['Grado']}"
    options = [option["scelta"] for option in row["options"]]
    letters = [match.group(1) for option in options if (match := _LETTER.match(option))]
    if not options or not letters:  # one item lists nine words, several of which are wanted
        listed = f"\n{', '.join(options)}" if options else ""
        context = f"{passage}{begin}{question}{listed}\n{label}"
        return Generation(
            name, context, _references(row["answer"], bool(options)), DECODING, cluster, category, passage
        )
    if len(letters) != len(options) or len(row["answer"]) != 1:
        raise ValueError("the options or the answer cannot be read")
    lines = [f"{letter}. {_LETTER.sub('', option).strip()}" for letter, option in zip(letters, options, strict=True)]
    return MultipleChoice(
        id=name,
        context=passage + "\n".join([begin + question, *lines, label]),
        endings=tuple(f" {letter}" for letter in letters),
        answer=letter_index(row["answer"][0], letters),
        cluster=cluster,
        category=category,
        header=passage,
    )


def _references(answers: list[str | list[str]], all_of_them: bool) -> tuple[str, ...]:
    joined = [answer if isinstance(answer, str) else PARTS.join(answer) for answer in answers]
    return (PARTS.join(joined),) if all_of_them else tuple(joined)


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """1 where an accepted answer was written (see the module), as both metrics of the other items."""
    question = item.context.removeprefix(item.header).rstrip()
    wordings = (
        words for words in reversed(_WORDINGS.values()) if question.startswith(words[0]) and question.endswith(words[1])
    )
    begin, label = next(wordings, ("", ""))
    question = question.removeprefix(begin).removesuffix(label)
    right = float(accepted(written, item.references, question))
    return {"acc": right, "acc_norm": right}


TASK = Task(
    name="invalsi",
    version="1.1",
    source="https://github.com/Crisp-Unimib/INVALSI-Eval-Suite",
    licence="MIT claimed",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=load,
    grade=grade,
    categories="grade",
    prompts=tuple(_WORDINGS),
)
