"""Several prompts of a task, few-shot examples, repeated answers: what is asked, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from stilnovo.benchmarks.examples import behind, first_others
from stilnovo.benchmarks.items import FewShot
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.protocol import STILNOVO
from stilnovo.benchmarks.task import (
    Decoding,
    Draw,
    Generation,
    Item,
    Metric,
    MultipleChoice,
    Request,
    Selection,
    Task,
    select,
)
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError
from stilnovo.report.evaluation import evaluation_page, evaluation_text
from stilnovo.scoring.answer_cache import AnswerCache, ModelCache
from stilnovo.scoring.evaluate import evaluate, expectation
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import EvaluationResult, load_result
from test_evaluate_scoring import byte_tokenizer, tiny_llama

ROWS = {"test": 10, "train": 6}
WORDS = ("rosso", "verde", "blu", "giallo")


def load(request: Request) -> list[Item]:
    """Two kinds of items, in two wordings; a row of the training split repeats one of the test split."""
    label = {"": "R", "breve": "R", "lunga": "Risposta"}[request.prompt]
    names = [f"{request.split}{number}" for number in range(ROWS[request.split])]
    names[-1] = "test9"
    items: list[Item] = []
    for number, name in enumerate(names):
        context, group = f"Di che colore {name}?\n{label}:", f"g{number // 2}"
        if number % 2:
            items.append(Generation(name, context, (WORDS[number % 4],), Decoding(3), group))
        else:
            items.append(MultipleChoice(name, context, tuple(f" {word}" for word in WORDS), number % 4, group))
    return items


def grade(text: str, item: Generation) -> dict[Metric, float]:
    return {"acc": float(sum(map(ord, text)) % 2), "acc_norm": float(len(text) % 2)}


TASK = Task(
    "colori", "1", "nowhere", "CC0", ("acc", "acc_norm"), ("test",), load, grade=grade, prompts=("breve", "lunga"),
    example_splits=("train",),
)  # fmt: skip
LETTERS = replace(
    TASK, name="solo", load=lambda request: [item for item in load(request) if isinstance(item, MultipleChoice)]
)


def chosen(how: Prompting, task: Task = TASK, draw: Draw = Draw()) -> list[Selection]:  # noqa: B008 - frozen
    return how.selections([task], STILNOVO, draw)


def run(how: Prompting, options: ReadOptions = ReadOptions()) -> EvaluationResult:  # noqa: B008 - frozen
    return evaluate(tiny_llama(), byte_tokenizer(True), chosen(how), model_name="tiny", options=options)


def values(result: EvaluationResult, metric: Metric = "acc") -> list[float]:
    return result.tasks["colori"].values(metric)


def test_an_items_value_is_its_mean_over_the_prompts(tmp_path: Path) -> None:
    alone = {name: run(Prompting(prompts=name)) for name in ("breve", "lunga")}
    both = run(Prompting(prompts="all"))
    task = both.tasks["colori"]
    assert task.prompts == ("breve", "lunga")
    for metric in task.metrics:
        assert values(both, metric) == [
            mean(pair) for pair in zip(*(values(r, metric) for r in alone.values()), strict=True)
        ]
    assert {name: part.score() for name, part in task.by_prompt().items()} == {
        name: result.tasks["colori"].score() for name, result in alone.items()
    }
    figures, scores = (
        both.summary()["tasks"]["colori"],
        [result.tasks["colori"].score().value for result in alone.values()],
    )
    assert set(figures["prompts"]["lunga"]) == {"acc", "acc_interval", "acc_norm", "acc_norm_interval"}
    assert figures["prompt_spread"] == {
        "lowest": min(scores), "highest": max(scores), "standard_deviation": pytest.approx(stdev(scores)),
    }  # fmt: skip
    assert figures["acc_interval"][0] <= task.score().value <= figures["acc_interval"][1]
    assert figures["groups"] == 5
    # the default is what a run without a word asks, and a saved result is read back whole
    assert values(run(Prompting())) == values(alone["breve"])
    both.save(tmp_path)
    again = load_result(tmp_path)
    assert again.tasks["colori"] == task
    assert evaluation_page(again).count("prompt lunga") >= 1
    assert any("mean over 2 prompts" in part for part in evaluation_text(again) if isinstance(part, str))


def test_other_prompts_are_not_compared_in_silence() -> None:
    first, second = run(Prompting(prompts="breve")), run(Prompting(prompts="lunga"))
    with pytest.raises(InputError, match="in different ways") as caught:
        compare(first, second)
    assert "prompt breve" in str(caught.value)
    assert (
        compare(run(Prompting(prompts="all")), run(Prompting(prompts="all"))).verdicts["colori"].outcome
        == "inconclusive"
    )


@pytest.mark.parametrize("asked", ["x", "breve,x", ",", ""])
def test_a_prompt_that_is_none_is_refused_by_name(asked: str) -> None:
    with pytest.raises(InputError, match=r"(?s)has no prompt .*It has: breve, lunga"):
        chosen(Prompting(prompts=asked))
    with pytest.raises(InputError, match="one prompt"):
        chosen(Prompting(prompts="breve"), replace(TASK, prompts=()))
    assert [part.prompt for part in chosen(Prompting(prompts="all"), replace(TASK, prompts=()))] == [""]


def test_examples_are_drawn_once_and_never_the_question_itself() -> None:
    for seed in range(6):
        (selection,) = chosen(Prompting(shots=5), draw=Draw(seed=seed))
        (begin,) = {item.few_shot for item in selection.items}
        assert len(begin.examples) == 5
        assert all(item.context.startswith(begin.text) and item.header == begin.text for item in selection.items)
        # the sixth row of train is a question of test
        assert sorted(selection.examples) == [f"train:train{number}" for number in range(5)]
        assert [item.question for item in selection.items] == [item.context for item in load(Request("test"))]
        for question, answer in begin.examples:
            assert f"{question} {answer}\n\n" in begin.text
    orders = {chosen(Prompting(shots=5), draw=Draw(seed=seed))[0].examples for seed in range(6)}
    assert len(orders) > 1
    part, whole = chosen(Prompting(shots=2), draw=Draw(3)), chosen(Prompting(shots=2))
    assert part[0].examples == whole[0].examples  # a limit changes no prompt
    with pytest.raises(InputError, match="only 5 examples for 6 shots"):
        chosen(Prompting(shots=6))
    with pytest.raises(InputError, match=r"(?s)colori cannot be asked with 1 .*only test, which is measured"):
        chosen(Prompting(shots=1), replace(TASK, example_splits=()))
    figures = run(Prompting(shots=2)).summary()["tasks"]["colori"]
    assert figures["shots"] == len(figures["examples"]) == 2


def test_examples_stand_behind_a_description_and_before_a_passage() -> None:
    own = MultipleChoice(
        "x", "Titolo. Un brano. Chi?", (" io", " tu"), 0, header="Titolo. Un brano. ", few_shot=FewShot("Titolo. ")
    )
    rows = [replace(own, id=str(number), context=f"Titolo. Un altro. Come {number}?", header="") for number in range(3)]
    item = behind(own, first_others([own, *rows], own, 2))
    before = "Titolo. Un altro. Come 0? io\n\nUn altro. Come 1? io\n\n"
    assert item.context == f"{before}Un brano. Chi?"
    assert item.header == f"{before}Un brano. "
    assert (item.few_shot.description, item.question) == ("Titolo. ", "Un brano. Chi?")
    choice = MultipleChoice("w", "", (" va", " va"), 1, contexts=("Anna", "Maria"))
    assert behind(choice, [choice]).contexts == ("Maria va\n\nAnna", "Maria va\n\nMaria")
    with pytest.raises(InputError, match="only 2 examples for 3 shots"):
        first_others(rows, rows[1], 3)


def test_another_seed_draws_other_examples_and_is_not_compared() -> None:
    first, second = (
        evaluate(tiny_llama(), byte_tokenizer(True), chosen(Prompting(shots=3), draw=Draw(seed=seed)), model_name="t")
        for seed in (1, 2)
    )
    with pytest.raises(InputError, match="in different ways") as caught:
        compare(first, second)
    assert "train:train" in str(caught.value) and "--seed" in str(caught.value)


def repeated(count: int, options: ReadOptions = ReadOptions()) -> EvaluationResult:  # noqa: B008 - frozen
    return run(Prompting(repeats=count, temperature=1.5), options)


def test_the_value_of_a_drawn_item_is_its_mean_over_the_repeats(tmp_path: Path) -> None:
    one, four = repeated(1).tasks["colori"], repeated(4).tasks["colori"]
    assert [part.repeat for part in four.rounds] == [0, 1, 2, 3]
    assert four.rounds[0].items == one.items  # the first repeat is what a run without them gives
    assert [len(part.items) for part in four.rounds] == [10, 5, 5, 5]  # log-likelihoods come out the same
    texts = {part.items[-1].text for part in four.rounds}
    assert len(texts) > 1
    for place, item in enumerate(four.items):
        drawn = [score.values["acc"] for part in four.rounds for score in part.items if score.id == item.id]
        assert item.values["acc"] == mean(drawn)
        assert len(drawn) == (4 if place % 2 else 1)
    figures = EvaluationResult("m", "none", None, {"colori": four}, None, None, 1.0).summary()["tasks"]["colori"]
    assert figures["repeats"] == 4
    assert figures["right_in_all"] <= figures["acc"] <= figures["right_in_any"]
    by_repeat = [part.score().value for part in four.by_repeat()]
    assert figures["acc"] == pytest.approx(mean(by_repeat))
    assert figures["repeat_spread"]["standard_deviation"] == pytest.approx(stdev(by_repeat))


def test_repeats_do_not_depend_on_batches_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    identity = Identity("w", None, "none", "float32", "cpu")
    expected = repeated(3).tasks["colori"]
    assert repeated(3, ReadOptions(token_budget=8)).tasks["colori"].rounds == expected.rounds
    with AnswerCache(tmp_path, print) as answers:
        cache = ModelCache(answers, identity)
        assert repeated(1, ReadOptions(cache=cache)).tasks["colori"].cached == 0
        more = repeated(3, ReadOptions(cache=cache)).tasks["colori"]
        assert (more.cached, more.asked) == (10, 20)
        assert more.rounds == expected.rounds
        assert repeated(3, ReadOptions(cache=cache)).tasks["colori"].cached == 20


@pytest.mark.parametrize(
    ("how", "task", "message"),
    [
        ({"repeats": 2}, TASK, r"(?s)colori is written greedily.*--temperature"),
        ({"repeats": 2, "temperature": 0.0}, TASK, "written greedily"),
        ({"repeats": 2}, LETTERS, "--repeats is about written answers"),
        ({"temperature": 1.0}, LETTERS, "--temperature is about written answers"),
        ({"repeats": 0}, TASK, "cannot be repeated 0 times"),
        ({"temperature": float("nan")}, TASK, "temperature nan"),
        ({"shots": -1}, TASK, "cannot be asked with -1 examples"),
    ],
)
def test_what_makes_no_sense_is_refused(how: dict[str, float], task: Task, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(Prompting(**how), task)  # type: ignore[arg-type]


def test_prompts_and_repeats_together() -> None:
    task = run(Prompting(prompts="all", repeats=2, temperature=1.0)).tasks["colori"]
    assert [(part.prompt, part.repeat) for part in task.rounds] == [
        ("breve", 0),
        ("breve", 1),
        ("lunga", 0),
        ("lunga", 1),
    ]
    assert task.score().value == pytest.approx(mean(part.score().value for part in task.by_prompt().values()))
    assert task.score().value == pytest.approx(mean(part.score().value for part in task.by_repeat()))
    assert [part.repeats for part in task.by_prompt().values()] == [2, 2]


def contexts(rows: Sequence[object], name: str, file: str, folder: Path, **how: object) -> list[Item]:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / file).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return list(select(TASKS[name], folder, **how).items)  # type: ignore[arg-type]


EXAM = {
    "id": "1", "question": {"stem": "Quale gas respiriamo?", "choices": [{"label": "A", "text": "aria"}, {"label": "B", "text": "elio"}]},
    "answerKey": "A", "info": {"subject": "Biologia", "language": "Italian"},
}  # fmt: skip
ARTICLE = {
    "id": "d1",
    "context": "Il Po nasce dal Monviso.",
    "question": "Da dove nasce?",
    "answers": {"text": ["dal Monviso"]},
}
SCHOOL = [
    {
        "Prova_PK": "1", "Domanda_PK": "2", "ID": str(number), "question": "Chi parla?", "context": "Una volpe.",
        "options": [{"scelta": "A. la volpe"}, {"scelta": "B. il riccio"}] if number else [], "answer": [answer], "Grado": "5",
    }
    for number, answer in enumerate(("La volpe", "A"))
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rows", "file"),
    [
        ("exams_it", [EXAM], "multilingual_test.it.jsonl"),
        ("squad_it", [ARTICLE], "test.jsonl"),
        ("invalsi", SCHOOL, "invalsi.jsonl"),
    ],
)
def test_every_wording_of_our_own_tasks_asks_the_same(name: str, rows: list[object], file: str, tmp_path: Path) -> None:
    task = TASKS[name]
    asked = {prompt: contexts(rows, name, file, tmp_path, prompt=prompt) for prompt in task.prompts}
    default = contexts(rows, name, file, tmp_path)
    assert asked[task.prompts[0]] == default
    assert len(task.prompts) >= 3
    for place, item in enumerate(default):
        assert len({items[place].context for items in asked.values()}) == len(task.prompts)
        for items in asked.values():
            other = items[place]
            assert replace(other, context=item.context, header=item.header) == item
            if isinstance(other, Generation) and task.grade is not None:
                assert max(task.grade(item.references[0], other).values()) == 1  # type: ignore[union-attr]
                assert max(task.grade("il riccio", other).values()) == 0


def test_how_often_is_said_and_counted_before_the_run() -> None:
    once, often = (chosen(how)[0] for how in (Prompting(), Prompting(prompts="all", repeats=3, temperature=1.0)))
    assert "all 10 items, with 2 prompts, with 3 repeats of written answers. The score" in expectation(often)
    assert "all 10 items. The score" in expectation(once)
    assert expectation(once, 1.0).split("at most about ")[1].startswith("10s")
    assert expectation(often, 1.0).split("at most about ")[1].startswith("1m 00s")
