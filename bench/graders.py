"""Error rates of the graders of written answers, on pairs that were graded by hand (`bench/graded`).

    python bench/graders.py
    python bench/graders.py --show letters   # the pairs that are graded otherwise than by hand

Every grader is called as an evaluation calls it. Beside ours stand the rules that others use, where there are any:
lm-evaluation-harness's last number for GSM8K, SQuAD's own normalisation (Italian articles in place of the English ones), the first
capital letter that stands alone, and the accepted answer contained or sharing words of F1 0.7.
`*_by_hand.jsonl` are two more sets, difficult ones written by hand before the rules were seen; they are counted apart.
The last line is JSON: `pairs`, `errors`, `held_out_pairs`, `held_out_errors`, `errors_of_other_rules`, `by_hand_pairs` and
`by_hand_errors`, by grader.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.grading import grade
from stilnovo.benchmarks.task import Decoding, Generation
from stilnovo.benchmarks.tasks import gsm8k, invalsi, invalsi_report

FOLDER = Path(__file__).with_name("graded")
Pair = dict[str, Any]
_ARTICLES = re.compile(r"\b(il|lo|la|i|gli|le|un|uno|una|a|an|the)\b|\b(l|un|dell|all|nell|dall|sull|gl)['’]")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "«»“”‘’…–", " "))


def item(context: str, *references: str) -> Generation:
    """A question as a benchmark asks it."""
    return Generation("pair", context, references, Decoding(48))


def letter_of(pair: Pair, exact: Callable[[str, Generation], float]) -> str:
    """The letters that a grader of letters takes a written answer for; empty for none."""
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", pair["references"], strict=True))
    context = f"{pair['question']}\n{listed}\nRisposta:"
    return "".join(letter for letter in "ABCD" if exact(pair["written"], item(context, f"{letter}.")))


def spans(pair: Pair) -> float:
    return grade(pair["written"], item(pair["question"] or "?", *pair["references"]))["exact_match"]


def letters(pair: Pair) -> str:
    return letter_of(pair, lambda written, asked: invalsi_report.grade(written, asked)["exact_match"])


def numbers(pair: Pair) -> float:
    asked = item(pair["question"] or "?", *(f"#### {reference}" for reference in pair["references"]))
    return gsm8k.grade(pair["written"], asked)[gsm8k.TASK.metrics[-1]]


def open_answers(pair: Pair) -> float:
    return invalsi.grade(pair["written"], item(f"{pair['question']}\nRisposta:", *pair["references"]))["acc"]


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower()).translate(_PUNCTUATION).split()


def other_spans(pair: Pair) -> float:
    return float(any(_words(pair["written"]) == _words(reference) for reference in pair["references"]))


def other_letters(pair: Pair) -> str:
    first = re.search(r"\b([A-D])\b", pair["written"])
    return first.group(1) if first else ""


def other_numbers(pair: Pair) -> float:
    asked = item("?", *(f"#### {reference}" for reference in pair["references"]))
    return gsm8k.grade(pair["written"], asked)["exact_match_flexible"]


def other_open(pair: Pair) -> float:
    def has(wanted: list[str], words: list[str]) -> bool:
        shared = sum((Counter(wanted) & Counter(words)).values())
        inside = f" {' '.join(wanted)} " in f" {' '.join(words)} "
        return inside or (bool(shared) and 2 * shared / (len(wanted) + len(words)) >= 0.7)

    words = _words(pair["written"])
    return float(any(all(has(_words(p), words) for p in ref.split("\n")) for ref in pair["references"]))


GRADERS: dict[str, tuple[Callable[[Pair], Any], Callable[[Pair], Any]]] = {
    "spans": (spans, other_spans), "letters": (letters, other_letters), "numbers": (numbers, other_numbers),
    "open": (open_answers, other_open),
}  # fmt: skip


def read_pairs(name: str, kind: str = "") -> list[Pair]:
    """The pairs of one grader, in the file's order; of kind `_by_hand` the difficult ones."""
    lines = (FOLDER / f"{name}{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def errors(name: str, side: int = 0, kind: str = "") -> list[Pair]:
    """The pairs that our grader (0) or the other rule (1) grades otherwise than a reader did."""
    return [pair for pair in read_pairs(name, kind) if GRADERS[name][side](pair) != pair["right"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", choices=tuple(GRADERS), help="list the pairs that are graded otherwise than by hand")
    shown = parser.parse_args().show
    for pair in [*errors(shown), *errors(shown, kind="_by_hand")] if shown else ():
        print({key: pair[key] for key in ("references", "written", "right")})

    def held_out(pairs: list[Pair]) -> int:
        return sum(pair["part"] == "held-out" for pair in pairs)

    figures = {
        "pairs": {name: len(read_pairs(name)) for name in GRADERS},
        "errors": {name: len(errors(name)) for name in GRADERS},
        "held_out_pairs": {name: held_out(read_pairs(name)) for name in GRADERS},
        "held_out_errors": {name: held_out(errors(name)) for name in GRADERS},
        "errors_of_other_rules": {name: len(errors(name, 1)) for name in GRADERS},
        "by_hand_pairs": {name: len(read_pairs(name, "_by_hand")) for name in GRADERS},
        "by_hand_errors": {name: len(errors(name, kind="_by_hand")) for name in GRADERS},
    }
    print("grader     pairs  errors  held-out pairs  held-out errors  errors of the other rule  pairs by hand  errors")
    for name in GRADERS:
        print(
            f"{name:10}",
            *(
                f"{counts[name]:{width}}"
                for counts, width in zip(figures.values(), (5, 7, 15, 16, 25, 14, 7), strict=True)
            ),
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
