"""The pages of one evaluation and of two: right counts and figures, every text escaped, readable without its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Decoding, Generation, Item, Metric, MultipleChoice, item_sha256
from stilnovo.compare.paired import compare, pair
from stilnovo.report import comparison as comparison_room
from stilnovo.report.charts import IntervalRow, interval_plot
from stilnovo.report.comparison import comparison_page, differing
from stilnovo.report.evaluation import evaluation_page
from stilnovo.report.page import compose
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import mean
from test_evaluate_run import app, call
from test_report import HOSTILE, Page, estimate

__all__ = ["app"]  # the fixture: two commands over a tiny model

HEADER = "Esempio: uno.\n\n"
QUESTIONS = tuple(
    MultipleChoice(
        f"q-{n}", f"{HEADER}Domanda {n}:", (f" sì {n}", f" no davvero {n}", " forse"), n % 3, "", "storia" if n % 2 else "arte",
        header=HEADER,
    )
    for n in range(12)
)  # fmt: skip


def answered(
    items: Sequence[MultipleChoice], picks: Sequence[int], metric: Metric = "acc_norm"
) -> tuple[ItemScore, ...]:
    found = []
    for item, pick in zip(items, picks, strict=True):
        sums = tuple(-1.0 if index == pick else -40.0 for index in range(len(item.endings)))
        found.append(
            ItemScore(
                item.id, item.answer, item.choice(sums), item.choice_norm(sums), sums, item.cluster, False,
                item.category, item.values(sums),
            )
        )  # fmt: skip
    return tuple(found)


def task(
    items: Sequence[Item], scores: tuple[ItemScore, ...], metrics: tuple[Metric, ...] = ("acc_norm", "acc")
) -> TaskResult:
    return TaskResult(
        name="prova", version="1.0", source="https://example.org/prova", licence="CC BY-NC 4.0", metrics=metrics,
        split="test", available=40, seed=42, chance=1 / 3, seconds=4.0,
        items=(replace(scores[0], truncated=True), *scores[1:]), hashes=tuple(item_sha256(item) for item in items), shots=1, cached=2,
    )  # fmt: skip


def result(*tasks: TaskResult, model: str = "tiny") -> EvaluationResult:
    return EvaluationResult(
        model, "nf4", "runs/a/adapter", {one.name: one for one in tasks},
        HeldOutScore((900.0, 1100.0, 500.0), (1000, 1200, 600), (250, 300, 150), "f" * 64, 2048, 1024), "nuovi.txt", 4.0,
        {"seed": 42, "limit": 12}, {"commit": "abc", "date": "2026-03-14", "hardware": {"cores": 2}, "versions": {"torch": "2"}},
        {"weights_sha256": "a" * 64, "adapter_sha256": "b" * 64, "quantization": "nf4", "protocol": {"bos": True}},
        ["/usr/bin/stilnovo", "evaluate", "--limit", "12", "--text", "con spazio.txt"],
    )  # fmt: skip


RIGHT = [item.answer for item in QUESTIONS]
BEFORE = task(QUESTIONS, answered(QUESTIONS, RIGHT))
# lost: 0, 1, 2; the rest as before
LOST = [(pick + 1) % 3 if n < 3 else pick for n, pick in enumerate(RIGHT)]
AFTER = task(QUESTIONS, answered(QUESTIONS, LOST))


def page_of(before: TaskResult, after: TaskResult, texts: Mapping[str, Item]) -> str:
    first, second = result(before, model="base"), result(after, model="tuned")
    return comparison_page(first, second, compare(first, second), lambda _: texts, ["stilnovo", "compare", "a", "b"])


def differences(before: TaskResult, after: TaskResult, texts: Mapping[str, Item]) -> dict[str, Any]:
    return differing(pair(before, after), texts)


ALL = {item.id: item for item in QUESTIONS}


def test_the_page_of_one_evaluation() -> None:
    page = Page(evaluation_page(result(AFTER)))
    text = page.text()
    score = AFTER.score()
    assert f"prova {100 * score.value:.1f} % ({100 * score.low:.1f}–{100 * score.high:.1f}, guessing 33 %)" in text
    for words in (
        "of 40, test, drawn with seed 42, 1 example", "normalised accuracy 75.0 [", "accuracy 75.0 [",
        "2 answers were taken from the cache of an earlier run", "1 item was longer than the model's context", "prova: 2 categories",
        "nothing under", "nuovi.txt:", "3 documents, 2,800 bytes, 700 tokens",
        "stilnovo evaluate --limit 12 --text 'con spazio.txt'", "a" * 64, "b" * 64, "f" * 64, '{"bos": true}', "limit 12",
    ):  # fmt: skip
        assert words in text, words
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["scores", "held_out", "categories", "answers", "limits", "method", "repeat", "colophon"]
    bare = Page(evaluation_page(replace(result(), text=None)))
    assert [attributes["id"] for tag, attributes in bare.elements if tag == "section"] == ["repeat", "colophon"]


def test_categories_hold_every_item_once() -> None:
    categories = AFTER.by_category()
    assert {name: found.n for name, found in categories.items()} == {"arte": 6, "storia": 6}
    assert categories["arte"] == mean([float(n >= 3) for n in range(0, 12, 2)])
    plain = replace(AFTER, items=tuple(replace(item, category="") for item in AFTER.items))
    assert plain.by_category() == {}


def test_the_items_on_which_two_models_differ() -> None:
    found = differences(BEFORE, AFTER, ALL)
    assert (found["all"], found["counts"], len(found["shown"])) == (3, {"lost": 3}, 3)
    first = found["shown"][0]
    assert (first["before"].id, first["change"], first["question"]) == ("q-0", "lost", "Domanda 0:")
    assert [text for text, _, _ in first["endings"]] == ["sì 0", "no davvero 0", "forse"]
    assert [right for _, right, _ in first["endings"]] == [True, False, False]
    picked = [[chosen for *_, chosen in figures] for *_, figures in first["endings"]]
    assert picked == [[True, False], [False, True], [False, False]]
    assert first["endings"][0][2][0][1] == pytest.approx(-1.0 / len("sì 0"))
    source = Page(page_of(BEFORE, AFTER, ALL))
    articles = [attributes["class"] for tag, attributes in source.elements if tag == "article"]
    assert articles == ["item lost"] * 3
    text = source.text()
    assert "All 3 Gained 0 Lost 3 Other 0" in text.replace("  ", " ")
    assert "CC BY-NC 4.0" in text
    assert "base in nf4 with runs/a/adapter → tuned in nf4" in text
    assert "Items gained: 0, lost: 3." in text
    assert "q-0 arte" in text
    assert differences(AFTER, BEFORE, ALL)["counts"] == {"gained": 3}


def test_another_wrong_answer_is_neither_gained_nor_lost() -> None:
    wrong, other = [(pick + 1) % 3 for pick in RIGHT], [(pick + 2) % 3 for pick in RIGHT]
    found = differences(task(QUESTIONS, answered(QUESTIONS, wrong)), task(QUESTIONS, answered(QUESTIONS, other)), ALL)
    assert found["counts"] == {"other": 12}
    assert differences(BEFORE, BEFORE, ALL)["shown"] == []
    assert "Both models gave the same answer to all 12 items." in Page(page_of(BEFORE, BEFORE, ALL)).text()


def test_without_the_data_the_page_still_says_which_items() -> None:
    shown = differences(BEFORE, AFTER, {})["shown"]
    assert [item["before"].id for item in shown] == ["q-0", "q-1", "q-2"]
    assert shown[0]["question"] == ""
    assert "The text of 3 questions is not shown" in Page(page_of(BEFORE, AFTER, {})).text()


def test_a_text_that_was_not_asked_is_not_shown() -> None:
    """The data changed since: the same id, another question."""
    other = {**ALL, "q-1": replace(ALL["q-1"], context=HEADER + "Un'altra domanda:")}
    shown = differences(BEFORE, AFTER, other)["shown"]
    assert [item["question"] for item in shown] == ["Domanda 0:", "", "Domanda 2:"]
    assert "Un'altra domanda" not in page_of(BEFORE, AFTER, other)


def test_many_items_are_thinned_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_room, "MOST_ITEMS", 5)
    wrong = task(QUESTIONS, answered(QUESTIONS, [(pick + 1) % 3 for pick in RIGHT]))
    found = differences(BEFORE, wrong, ALL)
    assert (found["counts"], len(found["shown"])) == ({"lost": 12}, 5)
    assert len({item["before"].id for item in found["shown"]}) == 5
    assert "Shown: 5 of 12, evenly spaced" in Page(page_of(BEFORE, wrong, ALL)).text()


def test_written_answers_side_by_side() -> None:
    items = tuple(Generation(f"g-{n}", f"Domanda {n}:", ("Roma", "roma")[: n + 1], Decoding(8)) for n in range(2))

    def scores(texts: Sequence[str]) -> TaskResult:
        values: list[dict[Metric, float]] = [{"f1": 1.0 if text == "Roma" else 0.2} for text in texts]
        found = tuple(
            ItemScore(item.id, -1, -1, -1, (), values=value, text=text)
            for item, text, value in zip(items, texts, values, strict=True)
        )
        return task(items, found, ("f1",))

    sides = scores(["Roma", "Milano"]), scores(["Napoli", "Torino"]), {item.id: item for item in items}
    assert [item["change"] for item in differences(*sides)["shown"]] == ["lost", "other"]
    text = Page(page_of(*sides)).text()
    assert "Before Roma" in text and "After Napoli" in text and "Right: Roma / roma" in text


def test_hostile_texts_are_only_texts() -> None:
    items = tuple(replace(item, id=f"{HOSTILE}{n}", context=HOSTILE, header="", endings=(HOSTILE, f" {HOSTILE}", " b"), category=HOSTILE)
                  for n, item in enumerate(QUESTIONS))  # fmt: skip
    before, after = task(items, answered(items, RIGHT)), task(items, answered(items, LOST))
    before, after = (replace(one, name=HOSTILE, licence=HOSTILE, source=HOSTILE) for one in (before, after))
    one = replace(result(before, model=HOSTILE), text_name=HOSTILE, adapter=HOSTILE)
    two = result(after, model=HOSTILE)
    shown = comparison_page(
        one, two, compare(one, two), lambda _: {item.id: item for item in items}, [HOSTILE, HOSTILE]
    )
    for source in (evaluation_page(one), shown):
        page = Page(source)
        assert [tag for tag, _ in page.elements].count("script") == 1
        assert {tag for tag, _ in page.elements}.isdisjoint({"img", "link", "iframe", "form"})
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        assert "alert(1)" in page.text()
        assert "\x1b" not in source


def test_pages_need_nothing_but_themselves() -> None:
    for source in (evaluation_page(result(AFTER)), page_of(BEFORE, AFTER, ALL)):
        page = Page(source)
        assert page.values("src") == []
        assert "url(" not in source and "@import" not in source
        assert all(value.startswith("#") for value in page.values("href"))
        searched = page.values("data-search")
        assert set(searched) <= set(page.values("id"))


def test_an_empty_page_is_a_page() -> None:
    page = Page(compose("title", "headline", {}, [], []))
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == ["colophon"]


def test_chance_is_marked_in_its_own_row() -> None:
    rows = [IntervalRow("a", estimate(30, 20, 40), chance=25.0), IntervalRow("b", estimate(60, 50, 70), chance=50.0)]
    markup = interval_plot(rows, "%", 1, width=736, key="k", title="t")
    assert markup is not None
    drawing = ElementTree.fromstring(markup)
    marks = [line for line in drawing.iter("line") if line.get("class") == "chance"]
    dots = list(drawing.iter("circle"))
    assert len(marks) == 2
    for mark, dot in zip(marks, dots, strict=True):
        top, bottom = float(mark.attrib["y1"]), float(mark.attrib["y2"])
        assert top < float(dot.attrib["cy"]) < bottom
        assert float(mark.attrib["x1"]) < float(dot.attrib["cx"])
    assert "dotted: chance" in markup


def test_commands_write_their_pages(app: typer.Typer, tmp_path: Path) -> None:
    for model in ("0", "1"):
        _, _, made = call(app, "evaluate", "--model", model, "--tasks", "sample_questions", "--out", model)
        Page((tmp_path / made["report"]).read_text(encoding="utf-8"))
    shown, _, compared = call(app, "compare", "0", "1", "--out", "page")
    task = compared["tasks"]["sample_questions"]
    source = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    classes = [attributes["class"] for tag, attributes in Page(source).elements if tag == "article"]
    assert (classes.count("item gained"), classes.count("item lost")) == (task["gained"], task["lost"])
    assert task["gained"] + task["lost"] > 0
    assert "Domanda:" in source, "the samples lie in the package"
    kept = json.loads((tmp_path / "page" / "comparison.json").read_text(encoding="utf-8"))
    assert kept["tasks"] == compared["tasks"]
    assert {"commit", "versions", "hardware", "date", "command"} <= set(kept)
    assert "Report: page/report.html" in shown


def test_a_task_without_its_data_is_compared_without_texts(app: typer.Typer, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"a{n}",
            "instruction": f"Domanda {n}?",
            "option_a": f"il {n}",
            "option_b": f"gatto {n}",
            "answer": "AB"[n % 2],
        }
        for n in range(40)
    ]
    (tmp_path / "data" / "arc_it").mkdir(parents=True)
    (tmp_path / "data" / "arc_it" / "it_test.json").write_text(json.dumps(rows), encoding="utf-8")
    for model in ("0", "1"):
        call(app, "evaluate", "--model", model, "--tasks", "arc_it", "--data-dir", "data", "--out", model)
    call(app, "compare", "0", "1", "--out", "with")
    assert "Domanda" in (tmp_path / "with" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "data").rename(tmp_path / "moved")
    result = CliRunner().invoke(app, ["compare", "0", "1", "--out", "without"])
    assert result.exit_code == 0
    assert "the page shows no texts" in result.stderr
    assert "Domanda" not in (tmp_path / "without" / "report.html").read_text(encoding="utf-8")
    call(app, "compare", "0", "1", "--out", "again", "--data-dir", "moved")
    assert "Domanda" in (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
