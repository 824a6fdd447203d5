"""HellaSwag: which sentence comes next, of four of which three were written by a machine.

Dataset: https://huggingface.co/datasets/Rowan/hellaswag (validation 10,042); also as plain text, six lines an item
(https://github.com/klosax/hellaswag_text_data: `activity: context`, label, four endings). Licence: MIT.

Protocol: task `hellaswag` 1.0 of lm-evaluation-harness, 0-shot, accuracy by characters (`acc_norm`). The harness joins
`ctx_a` and the capitalised `ctx_b`; in the plain-text form they are joined already, and `ctx_b` is the part of a last
sentence that begins in lower case, which ActivityNet's items have and WikiHow's have not.
Checked: contexts and endings equal the harness's (tests/test_evaluate_reference.py); of the plain-text form, the first
3,243 items and no others have such a part, as they should.
"""

from __future__ import annotations

import re
from pathlib import Path

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text, whole_number
from stilnovo.benchmarks.task import MultipleChoice, Request, Task
from stilnovo.errors import InputError
from stilnovo.io.rows import read_rows

_LINES = 6  # an item in the plain-text form
_FRAGMENT = re.compile(r"(?<=[.!?\"'”’)]) +(?=[a-z][^.!?]*$)")
_WHOLE = re.compile(r"[.!?\"'”)]\s*$")
_SOURCES = {"activitynet": "ActivityNet", "wikihow": "WikiHow"}
DATA = Dataset(
    folder="hellaswag",
    hub="Rowan/hellaswag",
    files={"validation": ("hellaswag_val.jsonl",)},
    elsewhere={"validation": ("hellaswag_en/hellaswag_val_full.txt",)},
)


def load(request: Request) -> list[MultipleChoice]:
    """Load all items, from either form."""
    path = DATA.find(request, request.split)[0]
    rows, origin = (text_rows(path), str(path)) if path.suffix == ".txt" else DATA.rows(request)
    return build(rows, origin, make_item, request.split)


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row to a question; `place` names it where it has no `id`."""
    context = f"{text(row, 'activity_label')}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    source = str(row.get("source_id") or "")
    return MultipleChoice(
        id=str(row.get("id") or f"hellaswag/{place}"),
        context=clean(context),
        endings=tuple(f" {clean(ending)}" for ending in row["endings"]),
        answer=whole_number(row["label"]),
        cluster=source or f"activity {row['activity_label']}",
        category=_SOURCES.get(source.partition("~")[0], str(row.get("source") or "")),
    )


def clean(text: str) -> str:
    """Remove WikiHow's marks as the reference does: ` [title]` ends a sentence, other square brackets are dropped."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def text_rows(path: Path) -> list[Row]:
    """Read the rows of the plain-text form.

    Raises:
        InputError: it does not consist of six lines an item with a label from 0 to 3.
    """
    lines = read_rows(path)[0]["text"].rstrip("\n").split("\n")
    if len(lines) % _LINES:
        raise InputError(
            "A HellaSwag text file needs six lines an item.", f"{path}: {len(lines)} lines", "Get it again."
        )
    return [_text_row(lines[start : start + _LINES]) for start in range(0, len(lines), _LINES)]


def _text_row(lines: list[str]) -> Row:
    activity, _, context = lines[0].partition(": ")
    parts = _FRAGMENT.split(context)
    first, fragment = (" ".join(parts[:-1]), parts[-1]) if len(parts) > 1 else (context, "")
    if not fragment and not _WHOLE.search(context):  # the whole context is one unfinished sentence
        first, fragment = "", context
    return {
        "activity_label": activity, "ctx_a": first, "ctx_b": fragment, "label": lines[1], "endings": lines[2:],
        "source": "ActivityNet" if fragment else "WikiHow",
    }  # fmt: skip


TASK = Task(
    name="hellaswag",
    version="1.0",
    source="https://huggingface.co/datasets/Rowan/hellaswag",
    licence="MIT",
    metrics=("acc_norm", "acc"),
    splits=("validation",),
    example_splits=("train",),
    load=load,
    reference="hellaswag",
    categories="source",
)
