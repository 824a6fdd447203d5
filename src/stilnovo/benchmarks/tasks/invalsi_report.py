"""INVALSI, the 76 questions of the 2024 report: Italian school tests of 2008 to 2010, four options, six passages.

Dataset: the three files `invalsi_ita_YEAR_YEAR.json` of https://github.com/bGuzzo/ir-nlp-llama. Licence: Unlicense
claimed; the passages are third-party.
A row (our own words): {"contesto": "Una volpe …", "domande": [{"prompt_domanda": "Chi parla?\nA. La volpe.\nB. Il
riccio.\nC. …\nD. …", "risposta_corretta": "A"}]}

Two tasks. `invalsi_report`: the letters' log-likelihood after passage, question and `Risposta:` (accuracy, `acc`).
`invalsi_report_written`: as the report did, four tokens are written at temperature 0.6, top-p 0.95, and the measure is
ROUGE-1 precision against "B."; that measures whether a bare letter is written more than whether it is right, so
`exact_match` of the option that the answer settles on (`option_letters.py`) stands beside it. The report's own prompt was
not published with its figures; both tasks use ours. 0-shot. Questions on one passage are a cluster: six of them, so
intervals are wide and honest.
Checked: 11 + 40 + 25 questions, each with options A to D and a key among them (tests/test_evaluate_benchmarks.py).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.option_letters import options_in, settled_letter
from stilnovo.benchmarks.task import Decoding, Generation, Metric, MultipleChoice, Request, Task
from stilnovo.io.rows import read_rows

_LETTERS = "ABCD"
_OPTION = re.compile(r"^([A-D])\.", re.MULTILINE)
DECODING = Decoding(max_tokens=4, temperature=0.6, top_p=0.95)
DATA = Dataset(folder="invalsi_2008_2010", files={"test": ("invalsi_ita_20*.json",)})


def load(request: Request) -> list[MultipleChoice]:
    """Load the questions, answered by the most probable letter."""
    return [item for path in DATA.find(request, request.split) for item in _of_file(path)]


def load_written(request: Request) -> list[Generation]:
    """Load the same questions, answered in writing."""
    return [
        Generation(
            item.id, item.context, (f"{_LETTERS[item.answer]}.",), DECODING, item.cluster, item.category, item.header
        )
        for item in load(request)
    ]


def _of_file(path: Path) -> list[MultipleChoice]:
    year = path.stem.removeprefix("invalsi_ita_")
    questions = [
        {**question, "contesto": row["contesto"], "passage": f"{year}/{place}", "id": f"{year}/{place}/{number}"}
        for place, row in enumerate(read_rows(path), start=1)
        for number, question in enumerate(row.get("domande") or [{}], start=1)
    ]
    return build(questions, str(path), lambda row, _: make_item(row, year))


def make_item(row: Row, year: str) -> MultipleChoice:
    """One question with its passage."""
    question, passage = text(row, "prompt_domanda").strip(), f"{text(row, 'contesto').strip()}\n\n"
    letters = _OPTION.findall(question)
    if letters != list(_LETTERS):
        raise ValueError(f"the options are {letters}, not A to D")
    return MultipleChoice(
        id=row["id"],
        context=f"{passage}{question}\nRisposta:",
        endings=tuple(f" {letter}" for letter in _LETTERS),
        answer=letter_index(row["risposta_corretta"], _LETTERS),
        cluster=row["passage"],
        category=year.replace("_", "-"),
        header=passage,
    )


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """ROUGE-1 precision (Lin 2004: shared words over words written) and whether the right option was given."""
    words, reference = _words(written), _words(item.references[0])
    shared = sum((Counter(words) & Counter(reference)).values())
    given = settled_letter(written, options_in(item.question), _LETTERS)
    return {
        "rouge1_precision": shared / len(words) if words else 0.0,
        "exact_match": float(given == item.references[0][0]),
    }


def _words(value: str) -> list[str]:
    """Words by ROUGE's reference implementation: runs of lower-case letters and digits without accents."""
    return re.findall(r"[a-z0-9]+", value.lower())


TASK = Task(
    name="invalsi_report",
    version="1.0",
    source="https://github.com/bGuzzo/ir-nlp-llama",
    licence="Unlicense claimed; passages third-party",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=load,
    categories="year",
)
TASK_WRITTEN = replace(
    TASK,
    name="invalsi_report_written",
    version="1.1",
    metrics=("rouge1_precision", "exact_match"),
    load=load_written,
    grade=grade,
)
