"""Checks of instructions: for each right and wrong answers, those that a lenient program lets pass among them; and the task."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stilnovo.benchmarks import instructions
from stilnovo.benchmarks.corpus_metrics import corpus_measure
from stilnovo.benchmarks.instructions import INSTRUCTIONS, follows, follows_loosely, sentence_count, variants
from stilnovo.benchmarks.task import Generation, select
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.benchmarks.tasks.ifeval_it import grade
from stilnovo.errors import InputError
from stilnovo.scoring.packed import ModelAnswer, item_score
from stilnovo.text.language import is_written_in

# An instruction, its arguments, answers that follow it and answers that do not; each line is one.
FILE = Path(__file__).parent / "assets" / "ifeval_cases.jsonl"
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    tuple(json.loads(line).values()) for line in FILE.read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(
    ("name", "arguments", "right", "wrong"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)]
)
def test_right_and_wrong_answers(name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    assert [answer for answer in right if not follows(answer, name, arguments)] == []
    assert [answer for answer in wrong if follows(answer, name, arguments)] == []
    assert not follows("", name, arguments)
    assert not follows(" \n", name, arguments)
    assert all(follows_loosely(answer, name, arguments) for answer in right), "loose is an upper bound"


def test_every_instruction_is_tried() -> None:
    assert {case[0] for case in CASES} == set(INSTRUCTIONS)


def test_loose_forgives_an_introduction_and_asterisks() -> None:
    quoted = 'Ecco la risposta:\n"Ciao a tutti."'
    assert not follows(quoted, "startend:quotation", {})
    assert follows_loosely(quoted, "startend:quotation", {})
    assert follows_loosely("**Fine**", "startend:end_checker", {"end_phrase": "fine"})
    assert not follows_loosely('Uno\n"Due"\nTre\nQuattro', "startend:quotation", {}), "one line at either end"
    readings = list(variants("a*\nb\n*c"))
    assert readings == ["a*\nb\n*c", "a\nb\nc", "b\n*c", "b\nc", "a*\nb", "a\nb", "b", "b"]


def test_sentences_of_any_case() -> None:
    assert [sentence_count(text) for text in ("Vieni? No. Sì…", "vieni? no. sì.", "", "***", "Ciao")] == [3, 3, 0, 0, 1]


def test_arguments_that_cannot_be_checked_are_refused() -> None:
    for name, arguments, fault in (
        ("keywords:rare", {}, "is not known"),
        ("keywords:frequency", {"keyword": "a"}, "needs relation, frequency"),
        ("length_constraints:number_words", {"relation": "about", "num_words": 3}, "neither at least nor less than"),
        ("language:response_language", {"language": "xx"}, "language 'xx'"),
    ):
        with pytest.raises(ValueError, match=fault):
            follows("Ciao", name, arguments)


def test_languages_of_one_script() -> None:
    texts = {
        "it": "Non è vero che il gatto dorme sul letto.", "es": "No es verdad que el gato duerme en la cama.",
        "pt": "Não é verdade que o gato dorme na cama.", "fr": "Il n'est pas vrai que le chat dort dans le lit.",
        "de": "Es ist nicht wahr, dass die Katze im Bett ist.", "fi": "Ei ole totta, että kissa on sängyssä.",
        "zh": "猫在床上睡觉", "ja": "猫はベッドで寝ている", "ko": "고양이가 잔다", "ar": "القط ينام في البيت من غير أن يتحرك",
    }  # fmt: skip
    for spoken, text in texts.items():
        assert [code for code in texts if is_written_in(text, code)] == [spoken]


ROWS = [
    {
        "key": 1, "prompt": "Descrivi il Po in almeno 3 parole senza virgole.",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{"num_words": 3, "relation": "at least", "letter": None}, {}],
    },
    {"key": 2, "prompt": "Rispondi in JSON.", "instruction_id_list": ["detectable_format:json_format"], "kwargs": [None]},
]  # fmt: skip


def laid(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "ifeval_it").mkdir(exist_ok=True)
    (folder / "ifeval_it" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_prompts_and_instructions_are_counted(tmp_path: Path) -> None:
    task = TASKS["ifeval_it"]
    first, second = (item for item in select(task, laid(tmp_path, ROWS)).items if isinstance(item, Generation))
    assert (first.id, first.context, first.category, second.category) == (
        "1",
        ROWS[0]["prompt"],
        "several kinds",
        "detectable_format",
    )
    assert grade("Il Po è lungo", first) == {"prompt_level_strict_acc": 1.0, "prompt_level_loose_acc": 1.0}
    assert grade("Lungo, molto lungo", first) == {"prompt_level_strict_acc": 0.0, "prompt_level_loose_acc": 0.0}
    scores = [
        item_score(item, ModelAnswer(text=text), task)
        for item, text in ((first, "Lungo, molto lungo"), (second, 'Ecco:\n{"po": 652}'))
    ]
    assert [score.counts for score in scores] == [((1.0, 1.0, 2.0),), ((0.0, 1.0, 1.0),)]
    sums = sum(np.asarray(score.counts[0]) for score in scores)
    assert corpus_measure("inst_level_strict_acc", 3).of(sums) == pytest.approx(1 / 3)
    assert corpus_measure("inst_level_loose_acc", 3).of(sums) == pytest.approx(2 / 3)


def test_rows_that_cannot_be_checked_are_named(tmp_path: Path) -> None:
    for changed, fault in (
        ({"instruction_id_list": ["keywords:rare"]}, "Row 2 .* is not known"),
        ({"kwargs": []}, "1 instructions with 0 sets"),
        ({"instruction_id_list": ["keywords:existence"]}, "needs keywords"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": [" "]}]}, "needs keywords"),
        ({"instruction_id_list": ["startend:end_checker"], "kwargs": [{"end_phrase": " "}]}, "needs end_phrase"),
    ):
        with pytest.raises(InputError, match=fault):
            select(TASKS["ifeval_it"], laid(tmp_path, [ROWS[0], {**ROWS[1], **changed}]))


# Answers in CASES that lm-evaluation-harness judges otherwise, by instruction: every one is a row of the module's table.
OTHERWISE = {
    "keywords:existence", "keywords:frequency", "length_constraints:number_paragraphs", "detectable_content:number_placeholders",
    "length_constraints:nth_paragraph_first_word", "detectable_content:postscript", "detectable_format:number_bullet_lists",
    "detectable_format:constrained_response", "detectable_format:number_highlighted_sections", "detectable_format:multiple_sections",
    "detectable_format:json_format", "combination:two_responses", "combination:repeat_prompt", "startend:end_checker",
    "startend:quotation", "change_case:capital_word_frequency", "punctuation:no_comma",
    "length_constraints:number_words",
}  # fmt: skip


def test_differences_from_lm_evaluation_harness_are_the_listed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    nltk = pytest.importorskip("nltk")
    monkeypatch.setitem(sys.modules, "langdetect", SimpleNamespace(detect=None, LangDetectException=ValueError))
    monkeypatch.setitem(sys.modules, "immutabledict", SimpleNamespace(immutabledict=dict))
    monkeypatch.setattr(nltk, "download", lambda *given, **named: True)
    monkeypatch.setattr(nltk.data, "find", lambda *given, **named: True)
    theirs = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry").INSTRUCTION_DICT
    monkeypatch.setattr(nltk, "word_tokenize", lambda text: re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text))
    differing = set()
    for name, arguments, right, wrong in CASES:
        english = all(value != "almeno" for value in arguments.values())
        letter = str(arguments.get("letter", "a")).isalpha()
        if (
            "language" in name
            or "sentences" in name
            or "case:english" in name
            or name not in theirs
            or not (english and letter)
        ):
            continue
        check = theirs[name](name)
        check.build_description(**{key: value for key, value in arguments.items() if key != "request"})
        try:
            verdicts = [check.check_following(answer) for answer in (*right, *wrong)]
        except re.error:  # it takes words for patterns
            verdicts = []
        if verdicts != [True] * len(right) + [False] * len(wrong):
            differing.add(name)
    assert differing == OTHERWISE | {"keywords:forbidden_words"}


def test_the_shipped_samples_are_italian_throughout() -> None:
    folder = Path(instructions.__file__).parents[1] / "sample"
    rows = [
        json.loads(line)
        for path in folder.glob("encyclopaedia_*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    texts = [paragraph for row in rows for paragraph in row["text"].split("\n") if paragraph.strip()]
    assert len(texts) > 50
    assert [text for text in texts if not is_written_in(text, "it")] == []
    assert not any(is_written_in(text, code) for text in texts for code in ("en", "es", "fr", "de", "ru"))
