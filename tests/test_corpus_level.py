"""Metrics of all items together: equal to scikit-learn's, with intervals, paired tests and verdicts like any other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stilnovo.benchmarks.corpus_metrics import (
    chance_of,
    class_f1,
    corpus_measure,
    item_metric,
    macro_f1,
    matthews,
    positive_f1,
    table_row,
)
from stilnovo.benchmarks.task import Metric, MultipleChoice
from stilnovo.compare.paired import compare
from stilnovo.compare.verdict import corpus_verdict
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.result import EvaluationResult, TaskResult, load_result
from stilnovo.statistics.corpus_level import change_error, difference, estimate, swap_test
from stilnovo.statistics.estimates import sign_flip


def table_rows(answers: np.ndarray, choices: np.ndarray, classes: int) -> np.ndarray:
    return np.asarray([table_row(*pair, classes) for pair in zip(answers, choices, strict=True)])


def drawn(rng: np.random.Generator, n: int, classes: int = 2, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    answers = rng.choice(classes, size=n, p=[0.8, *[0.2 / (classes - 1)] * (classes - 1)])
    choices = np.where(rng.random(n) < right, answers, rng.integers(0, classes, size=n))
    return answers, choices


@pytest.mark.parametrize("classes", [2, 4])
def test_equal_to_scikit_learn(classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    for n in (3, 10, 200):
        answers, choices = drawn(rng, n, classes, 0.6)
        sums = table_rows(answers, choices, classes).sum(axis=0)
        assert matthews(sums, classes) == pytest.approx(sklearn.matthews_corrcoef(answers, choices))
        assert macro_f1(sums, classes) == pytest.approx(sklearn.f1_score(answers, choices, average="macro"))
        each = sklearn.f1_score(answers, choices, average=None, labels=range(classes), zero_division=0)
        assert class_f1(sums, classes) == pytest.approx(each)
        assert positive_f1(sums, classes) == pytest.approx(each[-1])


def test_always_the_same_answer_is_no_knowledge() -> None:
    answers = [1] * 90 + [0] * 10
    measure, rows = corpus_measure("mcc", 4), table_rows(answers, [1] * 100, 2)
    found = estimate(measure, rows)
    assert found.value == 0.0
    assert -0.5 < found.low <= 0.0 <= found.high < 0.5
    assert macro_f1(rows.sum(axis=0), 2) < 0.5 < rows[:, 3].mean()


def test_intervals_shrink_and_few_units_give_none() -> None:
    rng, measure = np.random.default_rng(2), corpus_measure("mcc", 4)
    widths = []
    for n in (50, 200, 800):
        found = estimate(measure, table_rows(*drawn(rng, n), 2))
        assert -1 <= found.low <= found.value <= found.high <= 1
        widths.append(found.high - found.low)
    assert widths[0] > 1.3 * widths[1] > 1.3 * 1.3 * widths[2]
    rows = table_rows(*drawn(rng, 140), 2)
    grouped = estimate(measure, rows, [index // 20 for index in range(140)])
    assert (grouped.low, grouped.high, grouped.clusters) == (-1.0, 1.0, 7)
    alone, alike = (
        estimate(measure, np.repeat(rows[:20], 7, axis=0), names) for names in (None, np.repeat(range(20), 7))
    )
    assert alike.high - alike.low > 2 * (alone.high - alone.low), "seven copies are no new evidence"
    with pytest.raises(ValueError, match="no items"):
        estimate(measure, np.zeros((0, 4)))


def test_the_exchange_test_of_a_mean_is_the_sign_flip_test() -> None:
    """A share of parts with one part an item is a mean, whose test exists already."""
    from stilnovo.benchmarks.corpus_metrics import share
    from stilnovo.statistics.corpus_level import CorpusMeasure

    rng = np.random.default_rng(3)
    before, after = rng.random(40) < 0.4, rng.random(40) < 0.65
    first, second = (np.stack([side, np.ones(40)], axis=1) for side in (before, after))
    measure = CorpusMeasure(share, np.array([[0.0, 1.0], [1.0, 1.0]]), 0.5)
    groups = [index // 2 for index in range(40)]
    for names in (None, groups):
        reference = sign_flip(second[:, 0] - first[:, 0], names)
        assert swap_test(measure, first, second, names) == pytest.approx(reference, abs=0.02)
    assert swap_test(measure, first, first) == 1.0
    assert estimate(measure, first).value == before.mean()


def test_differences_are_paired() -> None:
    rng, measure = np.random.default_rng(4), corpus_measure("macro_f1", 4)
    answers, choices = drawn(rng, 300)
    changed = np.where(rng.random(300) < 0.1, answers, choices)
    before, after = table_rows(answers, choices, 2), table_rows(answers, changed, 2)
    found = difference(measure, before, after)
    single = estimate(measure, after)
    assert found.value == pytest.approx(measure.of(after.sum(axis=0)) - measure.of(before.sum(axis=0)))
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.7 * (single.high - single.low)
    same = difference(measure, before, before)
    assert same.low < 0 < same.high, "equal answers do not prove equality"
    with pytest.raises(ValueError, match="same items"):
        difference(measure, before, after[:-1])


def test_the_error_of_a_change_is_that_of_changes() -> None:
    """Against draws: a fifth of the answers become another one."""
    rng, measure = np.random.default_rng(5), corpus_measure("mcc", 4)
    answers, choices = drawn(rng, 400)
    rows = table_rows(answers, choices, 2)
    found = []
    for _ in range(400):
        changing = rng.random(400) < 0.2
        found.append(float(measure.of(table_rows(answers, np.where(changing, 1 - choices, choices), 2).sum(axis=0))))
    assert 0.95 * np.std(found) <= change_error(measure, rows, 0.2) <= 1.6 * np.std(found), (
        "promises no more than is seen"
    )


def test_guessing() -> None:
    items = [MultipleChoice(str(i), "x", (" a", " b"), int(i >= 30)) for i in range(40)]
    assert chance_of("mcc", items) == pytest.approx(0.0)
    assert chance_of("acc", items) == 0.5
    assert chance_of("f1_positive", items) == pytest.approx(2 * 5 / (20 + 10))
    assert item_metric(("mcc", "acc")) == "acc"


def result(choices: list[int], answers: list[int], clusters: list[str] | None = None) -> EvaluationResult:
    groups = clusters or [""] * len(answers)
    items = tuple(
        ItemScore(
            f"{n}",
            a,
            c,
            c,
            (-1.0, -2.0),
            groups[n],
            values={"acc": float(a == c)},
            counts=(table_row(a, c, 2),),
        )
        for n, (a, c) in enumerate(zip(answers, choices, strict=True))
    )
    task = TaskResult(
        "made", "1.0", "somewhere", "made", ("mcc", "macro_f1", "acc"), split="test", available=len(items), seed=42,
        chance=0.0, seconds=1.0, items=items, hashes=tuple(str(n) for n in range(len(items))),
    )  # fmt: skip
    return EvaluationResult("tiny", "none", None, {"made": task}, None, None, 1.0)


def test_a_result_is_saved_compared_and_shown(tmp_path: Path) -> None:
    from stilnovo.report.comparison import comparison_figures, comparison_page, comparison_text
    from stilnovo.report.evaluation import evaluation_page, evaluation_text

    rng = np.random.default_rng(6)
    answers = (rng.random(200) < 0.85).astype(int)
    weak, strong = result([1] * 200, answers.tolist()), result(answers.tolist()[:-4] + [0] * 4, answers.tolist())
    path = strong.save(tmp_path)
    loaded = load_result(path)
    assert loaded.tasks["made"].score() == strong.tasks["made"].score()
    figures = json.loads(path.read_text())["summary"]["tasks"]["made"]
    assert figures["mcc"] == strong.tasks["made"].score().value
    assert figures["mcc_interval"][0] < figures["mcc"] <= figures["mcc_interval"][1]
    assert 0 < figures["smallest_visible_difference"] < 1
    comparison = compare(weak, loaded)
    verdict = comparison.verdicts["made"]
    assert verdict.outcome == "improved"
    assert verdict.before.value == 0.0
    assert re.search(
        r"Matthews correlation \(MCC\) 0\.0 % → 9\d\.\d % .*exchange test p < \.001, 200 items", verdict.sentence
    )
    assert compare(loaded, weak).verdicts["made"].outcome == "regressed"
    assert compare(weak, weak).verdicts["made"].outcome == "inconclusive"
    assert comparison_figures(comparison)["tasks"]["made"]["gained"] == verdict.gained > 0
    assert "Matthews correlation" in evaluation_page(loaded)
    assert list(evaluation_text(loaded))
    assert "exchange test" in comparison_page(weak, loaded, comparison, lambda task: {})
    assert list(comparison_text(weak, loaded, comparison))


def test_several_rounds_are_averaged() -> None:
    """The measure of a task asked twice is the mean of both, not that of all answers together."""
    from dataclasses import replace

    from stilnovo.scoring.rounds import Round, averaged

    rng = np.random.default_rng(8)
    answers = (rng.random(120) < 0.7).astype(int)
    tasks = [
        result(np.where(rng.random(120) < share, answers, 1 - answers).tolist(), answers.tolist()).tasks["made"]
        for share in (0.6, 0.95)
    ]
    rounds = tuple(Round(name, 0, task.items, task.hashes) for name, task in zip(("a", "b"), tasks, strict=True))
    both = replace(tasks[0], items=averaged(rounds), prompts=("a", "b"), rounds=rounds)
    scores = [task.score() for task in tasks]
    assert both.score().value == pytest.approx((scores[0].value + scores[1].value) / 2)
    assert both.score().low < both.score().value < both.score().high
    assert [part.score() for part in both.by_prompt().values()] == scores
    assert 0 < both.smallest_visible < 1
    once = EvaluationResult("tiny", "none", None, {"made": replace(tasks[1], prompts=())}, None, None, 1.0)
    twice = EvaluationResult("tiny", "none", None, {"made": both}, None, None, 1.0)
    assert compare(once, twice).verdicts["made"].difference.value == pytest.approx(both.score().value - scores[1].value)


def test_few_groups_reach_no_verdict() -> None:
    rng, measure = np.random.default_rng(7), corpus_measure("mcc", 4)
    answers, choices = drawn(rng, 70)
    before, after = table_rows(answers, choices, 2), table_rows(answers, answers, 2)
    verdict = corpus_verdict(
        measure, before, after, metric="mcc", changed=(1, 0), clusters=np.repeat(range(7), 10).tolist()
    )
    assert verdict.outcome == "inconclusive"
    assert "no verdict can be reached: 7 independent groups" in verdict.sentence
    eight = corpus_verdict(measure, before[:8], before[:8], metric="mcc", changed=(0, 0))
    assert "8 items can show no change at all" in eight.sentence
    assert not eight.can_decide


def test_what_can_be_seen_is_said_before_the_run() -> None:
    """Of the measure that the verdict is about, not of accuracy: a rare class makes it known worse."""
    from stilnovo.benchmarks.task import Selection, Task
    from stilnovo.scoring.evaluate import expectation

    def said(rare: int, metrics: tuple[Metric, ...]) -> list[float]:
        items = tuple(MultipleChoice(str(i), "x", (" a", " b"), int(i % 100 < rare)) for i in range(200))
        task = Task("made", "1.0", "here", "made", metrics, ("test",), lambda request: [])
        text = expectation(Selection(task, "test", items, 200, 42))
        return [float(number) for number in re.findall(r"±(\d+\.\d) points", text)] + [
            float(number) for number in re.findall(r"nothing under (\d+)", text)
        ]

    even, rare, accuracy = said(50, ("mcc", "acc")), said(10, ("mcc", "acc")), said(50, ("acc",))
    assert rare[0] > even[0] > accuracy[0]
    assert rare[1] > even[1] > accuracy[1]
    with pytest.raises(ValueError, match="needs a metric of single items"):
        said(50, ("mcc",))
