"""IFEval in Italian: does an answer follow instructions that a program can verify (Zhou et al. 2023, arXiv 2311.07911)?

Dataset: https://huggingface.co/datasets/mii-llm/ifeval-ita (train, which is the test), translated by a model; corrected in
https://huggingface.co/datasets/sapienzanlp/IFEval_italian (542). Licence: Apache 2.0.
A row (our own words): {"key": 7, "prompt": "Descrivi il Po in almeno 30 parole senza virgole.", "instruction_id_list":
["length_constraints:number_words", "punctuation:no_comma"], "kwargs": [{"num_words": 30, "relation": "at least"}, {}]}

Protocol: the prompt alone, 0-shot, greedy, at most 1,280 tokens; better with `--chat-template`, for it is made for models that
follow instructions. Shares of prompts of which all instructions are followed (`prompt_level_strict_acc`, about which a verdict
is) and of instructions, strict and loose, as lm-evaluation-harness' `ifeval` 4.0 counts. The checks are our own and stricter
in places (`benchmarks/instructions.py` says where and why), so that figures lie a little under the harness's. The breakdown is by
kind of instruction.
Checked: every check on right and wrong answers, and beside the harness's (tests/test_ifeval.py). Untried on real rows, which
were not at hand.
"""

from __future__ import annotations

import json
from typing import Any

from stilnovo.benchmarks.dataset_files import Dataset, Row, text
from stilnovo.benchmarks.instructions import follows, follows_loosely
from stilnovo.benchmarks.task import Decoding, Generation, Metric, Task

DECODING = Decoding(max_tokens=1280)
DATA = Dataset(folder="ifeval_it", hub="mii-llm/ifeval-ita", names={"test": ("train",)})


def make_item(row: Row, place: str) -> Generation:
    """Convert a row to a question, whose references are its instructions with their arguments, as JSON."""
    request = text(row, "prompt")
    names, given = row["instruction_id_list"], row["kwargs"]
    if isinstance(given, str):
        given = json.loads(given)
    if not names or len(names) != len(given):
        raise ValueError(f"{len(names)} instructions with {len(given)} sets of arguments")
    instructions = []
    for name, arguments in zip(names, given, strict=True):
        useful = {key: value for key, value in (arguments or {}).items() if value not in (None, "", [])}
        follows("Prova.", name, {**useful, "request": request})  # refused here, by its row, if it cannot be checked
        instructions.append(json.dumps([name, useful], ensure_ascii=False, sort_keys=True))
    kinds = {name.partition(":")[0] for name in names}
    return Generation(
        id=str(row.get("key") or place),
        context=request,
        references=tuple(instructions),
        decoding=DECODING,
        category=kinds.pop() if len(kinds) == 1 else "several kinds",
    )


def verdicts(written: str, item: Generation) -> list[tuple[bool, bool]]:
    """For each instruction of the item, whether the answer follows it, strictly and loosely."""
    found = []
    for reference in item.references:
        name, given = json.loads(reference)
        arguments: dict[str, Any] = {**given, "request": item.question}
        strictly = follows(written, name, arguments)
        found.append((strictly, strictly or follows_loosely(written, name, arguments)))
    return found


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """Whether all instructions are followed."""
    found = verdicts(written, item)
    strict, loose = (float(all(verdict[place] for verdict in found)) for place in (0, 1))
    return {"prompt_level_strict_acc": strict, "prompt_level_loose_acc": loose}


def count(written: str, item: Generation) -> tuple[float, ...]:
    """How many of the item's instructions are followed strictly, loosely, and how many there are."""
    found = verdicts(written, item)
    return float(sum(strict for strict, _ in found)), float(sum(loose for _, loose in found)), float(len(found))


TASK = Task(
    name="ifeval_it",
    version="1.0",
    source="https://huggingface.co/datasets/mii-llm/ifeval-ita",
    licence="Apache 2.0",
    metrics=(
        "prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc",
    ),
    splits=("test",),
    load=DATA.loader(make_item),
    grade=grade,
    count=count,
    categories="kind of instruction",
    untried=True,
)  # fmt: skip
