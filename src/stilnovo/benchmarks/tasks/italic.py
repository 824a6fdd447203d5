"""ITALIC: 10,000 questions of Italian public competitions on language and culture, not translated (Seveso et al. 2025).

Dataset: `italic.jsonl` of https://github.com/Crisp-Unimib/ITALIC (also https://huggingface.co/datasets/Crisp-Unimib/ITALIC,
split train, which is the test). Licence: MIT. Two to five options; twelve categories in two macro categories, language
capability and culture and commonsense.
A row (our own words): {"question": "Chi scrisse il «Cuore»?", "options": [{"A": "De Amicis"}, {"B": "Collodi"}, …],
"answer": "A", "category": "literature", "macro_category": …}; Parquet makes every option a mapping of all letters, of which one has a text.

Protocol: the authors' own prompt for a bare letter ("fast"), 5-shot with the rows of their `5_shots.jsonl`, the same for all
questions, as plain text; `--chat-template --system "Sei un assistente utile."` gives their very turns. Two tasks. `italic`: the
letters' log-likelihoods; accuracy (`acc`). `italic_written`: as the authors do, an answer is written, greedily, of at most 350
tokens. They take the first capital A to Z of it (`first_capital`), which "Dante" gives too, for D; the verdict is about the
option that the answer settles on (`exact_match`, `option_letters.py`). The breakdown is by category.
Checked: the prompt against the authors' template, on rows of this form (tests/test_evaluate_reference.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

import re
from dataclasses import replace

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.items import NO_EXAMPLES
from stilnovo.benchmarks.option_letters import LETTERS, options_in, settled_letter
from stilnovo.benchmarks.task import (
    Decoding,
    FewShot,
    Generation,
    Metric,
    MissingData,
    MultipleChoice,
    Request,
    Task,
)
from stilnovo.benchmarks.tasks.mmlu import first_examples, letter_item, lettered

_PROMPT = (
    "Rispondi alla seguente domanda a scelta multipla sull'argomento '{topic}'. La tua risposta deve essere nel seguente "
    "formato: 'LETTERA' (senza virgolette) dove LETTERA è una tra {letters}. Scrivi solo la lettera corrispondente alla tua "
    "risposta senza spiegazioni.\n\n{question}\n\n{options}\n\nRisposta:"
)
DECODING = Decoding(max_tokens=350)
DATA = Dataset(
    folder="italic", hub="Crisp-Unimib/ITALIC", names={"test": ("train",)}, files={"test": ("italic.jsonl",)}
)
EXAMPLES = Dataset(folder="italic", files={"5_shots": ("5_shots.jsonl",)})


def load(request: Request) -> list[MultipleChoice]:
    """Load the items, each after the same examples."""
    rows, origin = DATA.rows(request)
    try:
        shots, where = EXAMPLES.rows(request, "5_shots") if request.shots else ([], "")
    except MissingData as error:
        raise MissingData(error.what, error.found, f"{error.next} Or ask without examples: --shots 0.") from error
    before = first_examples(build(shots[: request.shots], where, make_item, "5_shots"), request.shots, where)
    return build(rows, origin, lambda row, place: make_item(row, place, before), request.split)


def load_written(request: Request) -> list[Generation]:
    """Load the same questions, answered in writing."""
    return [
        Generation(
            item.id, item.context, (item.endings[item.answer].strip(),), DECODING, item.cluster, item.category, item.header,
            item.few_shot,
        )
        for item in load(request)
    ]  # fmt: skip


def make_item(row: Row, place: str, before: FewShot = NO_EXAMPLES) -> MultipleChoice:
    """Convert a row to a question after its examples."""
    listed = [row["options"]] if isinstance(row["options"], dict) else row["options"]
    given = [pair for option in listed for pair in option.items() if pair[1] is not None]
    letters, options = "".join(letter for letter, _ in given), [option for _, option in given]
    if letters != LETTERS[: len(letters)]:
        raise ValueError(f"the options are {letters or 'none'}, not letters from A on, E at most")
    category = text(row, "category")
    asked = _PROMPT.format(
        topic=category, letters=letters, question=text(row, "question"), options="\n".join(lettered(options, "{}) {}"))
    )
    return letter_item(place, before, asked, len(letters), letter_index(row["answer"], letters), category=category)


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """Whether the right option was given, and whether the first capital letter is its."""
    options = options_in(item.question)
    first = re.search("[A-Z]", written)
    return {
        "exact_match": float(settled_letter(written, options, LETTERS[: len(options)]) == item.references[0]),
        "first_capital": float(first is not None and first.group() == item.references[0]),
    }


TASK = Task(
    name="italic",
    version="1.0",
    source="https://github.com/Crisp-Unimib/ITALIC",
    licence="MIT",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=load,
    shots=5,
    shots_rule="the first rows of the authors' 5_shots.jsonl, the same for all questions",
    categories="category",
    untried=True,
)
TASK_WRITTEN = replace(
    TASK, name="italic_written", metrics=("exact_match", "first_capital"), load=load_written, grade=grade
)
