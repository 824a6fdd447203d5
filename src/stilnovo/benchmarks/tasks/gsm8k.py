"""GSM8K: grade-school sums in words, to be worked out in writing (Cobbe et al. 2021).

Dataset: https://huggingface.co/datasets/openai/gsm8k (configuration `main`, test 1,319). Licence: MIT.
A row (our own words): {"question": "A box holds 6 eggs. How many do 3 boxes hold?", "answer": "3 * 6 = <<3*6=18>>18\n####
18"}

Protocol: task `gsm8k` 3.0 of lm-evaluation-harness: greedy, at most 256 tokens, ended by `Question:`; `exact_match`
(strict) wants the number after `####`, `exact_match_flexible` takes the last number written; both drop commas, so that 3,5 is
35. Beside them ours: `number_match` compares the number that the answer gives by value, in Italian or English writing
(`italian_numbers.py`). One difference: the
harness draws five other examples from train for every question, which depend on the order of the questions; here the
five are always the same and were written for this project, so that all items share one header.
Checked: prompts without examples and both metrics equal the harness's (tests/test_evaluate_reference.py).
"""

from __future__ import annotations

import re

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text
from stilnovo.benchmarks.italian_numbers import same_number
from stilnovo.benchmarks.items import NO_EXAMPLES
from stilnovo.benchmarks.task import Decoding, FewShot, Generation, Metric, Request, Task
from stilnovo.errors import InputError

EXAMPLES = (
    (
        "Lucia bakes 3 trays of biscuits with 12 biscuits on each. She gives 10 of them to her neighbour. How many has "
        "she left?",
        "Lucia bakes 3 * 12 = <<3*12=36>>36 biscuits.\nShe has 36 - 10 = <<36-10=26>>26 biscuits left.\n#### 26",
    ),
    (
        "A train covers 60 kilometres in an hour. It runs for 2 hours, rests, and runs for half an hour more. How many "
        "kilometres does it cover?",
        "It runs for 2 + 0.5 = <<2+0.5=2.5>>2.5 hours.\nIt covers 60 * 2.5 = <<60*2.5=150>>150 kilometres.\n#### 150",
    ),
    (
        "A shirt costs $40. It is sold for a quarter less, and Bruno buys two of them. How many dollars does he pay?",
        "A quarter of the price is 40 / 4 = $<<40/4=10>>10.\nOne shirt is sold for 40 - 10 = $<<40-10=30>>30.\nTwo of "
        "them cost 2 * 30 = $<<2*30=60>>60.\n#### 60",
    ),
    (
        "Of the 48 pupils in a school choir, a third are boys. Half of the girls sing alto. How many girls sing alto?",
        "There are 48 / 3 = <<48/3=16>>16 boys.\nThere are 48 - 16 = <<48-16=32>>32 girls.\nOf them 32 / 2 = "
        "<<32/2=16>>16 sing alto.\n#### 16",
    ),
    (
        "Paola is twice as old as her brother Nino. In 5 years Nino will be 12. How old is Paola now?",
        "Nino is 12 - 5 = <<12-5=7>>7 years old.\nPaola is 2 * 7 = <<2*7=14>>14 years old.\n#### 14",
    ),
)
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (re.compile(","), re.compile(r"\$"), re.compile("(?s).*#### "), re.compile(r"\.$"))
_NOTHING = "[invalid]"
DECODING = Decoding(max_tokens=256, stop=("Question:", "</s>", "<|im_end|>"))
DATA = Dataset(
    folder="gsm8k",
    hub="openai/gsm8k",
    config="main",
    elsewhere={"test": ("gsm8k_en/gsm8k_test.jsonl",)},
)


def load(request: Request) -> list[Generation]:
    """Load all items of the split, each after the first `shots` of our examples."""
    if request.shots > len(EXAMPLES):
        raise InputError(f"There are only {len(EXAMPLES)} examples for {request.shots} shots.", next="Lower --shots.")
    shots = tuple((f"Question: {question}\nAnswer:", answer) for question, answer in EXAMPLES[: request.shots])
    return build(*DATA.rows(request), lambda row, place: make_item(row, place, FewShot(examples=shots)), request.split)


def make_item(row: Row, place: str, before: FewShot = NO_EXAMPLES) -> Generation:
    """Convert a row to a question after its examples."""
    answer = text(row, "answer")
    if not _STRICT.search(answer):
        raise ValueError("the answer has no '#### number'")
    return Generation(
        id=place,
        context=f"{before.text}Question: {text(row, 'question')}\nAnswer:",
        references=(answer,),
        decoding=DECODING,
        header=before.text,
        few_shot=before,
    )


def grade(written: str, item: Generation) -> dict[Metric, float]:
    """The harness's strict and flexible exact match of the number, and ours by its value."""
    strict = _STRICT.findall(written)
    flexible = _FLEXIBLE.findall(written)
    last = next((group for group in flexible[-1] if group), _NOTHING).strip() if flexible else _NOTHING
    wanted = _plain(item.references[0])
    return {
        "exact_match": float(_plain(strict[0] if strict else _NOTHING) == wanted),
        "exact_match_flexible": float(_plain(last) == wanted),
        "number_match": float(same_number(written, item.references[0], item.question)),
    }


def _plain(number: str) -> str:
    for pattern in _IGNORED:
        number = pattern.sub("", number)
    return number.lower()


TASK = Task(
    name="gsm8k",
    version="3.0",
    source="https://huggingface.co/datasets/openai/gsm8k",
    licence="MIT",
    metrics=("exact_match", "exact_match_flexible", "number_match"),
    splits=("test",),
    load=load,
    shots=5,
    shots_rule=f"the first of {len(EXAMPLES)} examples written for stilnovo, always the same",
    grade=grade,
    reference="gsm8k",
)
