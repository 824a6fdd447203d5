"""What a paper takes from the pages: tables in three formats, figures that stand alone, and every item to look through."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Decoding, Generation, item_sha256
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.report.answers import browsed, unpacked
from stilnovo.report.evaluation import evaluation_page
from stilnovo.report.exports import chart_style, read_exports
from stilnovo.report.page import compose
from stilnovo.report.paper import PaperColumn, PaperTable
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import Estimate
from test_evaluate_pages import AFTER, ALL, QUESTIONS, page_of, result
from test_evaluate_pages import BEFORE as LIKE_IT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HARD = "50 % & più_di #1 {a} ~^\\ <b>|x|</b> $y$ “—” \u202egirato\u200b =1+1"
EVIL = "</script><script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"


def table(*rows: tuple[Any, ...]) -> PaperTable:
    columns = (
        PaperColumn("task"), PaperColumn("n", digits=0), PaperColumn("score", "%", 1, "of all", interval=True),
        PaperColumn("p", "", None, "two-sided", is_p=True), PaperColumn("empty"),
    )  # fmt: skip
    return PaperTable("scores", "Scores, 95 %", columns, rows, "items: 3.")


def test_csv_has_every_digit_and_comes_back() -> None:
    drawn = random.Random(3)
    for _ in range(100):
        values = [drawn.uniform(-1e6, 1e6) * 10 ** drawn.randint(-12, 3) for _ in range(3)]
        score = Estimate(values[0], values[1], values[2], 0.1, 12, 12)
        text = table((HARD, 12, score, values[1], "")).csv()
        heading, row = list(csv.reader(io.StringIO(text)))
        assert heading == ["task", "n", "score (%)", "score low (%)", "score high (%)", "p", "empty"]
        assert row[0].replace("\ufffd", "") == HARD
        assert [float(cell) for cell in row[2:5]] == values
        assert (row[1], float(row[5])) == ("12", values[1])


@pytest.mark.parametrize("start", ["=1+1", "+39", "-x", "@a", " =1", "\n=1", "\t=1", "\uff1d1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(start: str) -> None:
    row = table((start, 1, None, None, "")).csv().split("\r\n", 1)[1]
    assert next(iter(csv.reader(io.StringIO(row, newline=""))))[0] == f"'{start}"


def test_latex_is_balanced_and_escapes_every_sign() -> None:
    score = Estimate(51.234, 45.06, 57.4, 3.0, 60, 60)
    text = table((HARD, 60, score, 0.0004, ""), ("b", None, None, None, "")).filled().latex()
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert r"50 \% \& più\_di \#1 \{a\} \textasciitilde{}\textasciicircum{}\textbackslash{}" in body[0]
    assert "\u202e" not in text
    assert "\u200b" not in text
    assert r"$60$ & $51.2$ & $[45.1$ & $57.4]$ & $<0.001$ \\" in body[0]
    assert body[1] == r"b & -- & -- & &  & -- \\"
    assert r"\begin{tabular}{lrrr@{, }lr}" in text
    unescaped = re.sub(r"\\[\\{}%&$#_]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {5}
    assert text.count(r"\begin") == text.count(r"\end")


def test_latex_takes_no_name_for_an_argument_a_dash_or_a_character_that_it_lacks() -> None:
    names = ("[2pt] a", "*b", "a--b", "perche\u0301", "\ufffd")
    text = table(*((name, 1, None, None, "") for name in names)).latex()
    rows = text.split("\\midrule\n")[1].splitlines()
    assert [row.split(" & ")[0] for row in rows[:5]] == ["{[}2pt{]} a", "{*}b", "a-{}-b", "perché", "?"]
    assert text.splitlines()[0] == r"% \usepackage{booktabs} \usepackage[T1]{fontenc}"
    assert "LuaLaTeX" in table(("漢", 1, None, None, "")).latex().splitlines()[0]


def test_a_page_of_a_stranger_writes_nowhere_else_and_damage_is_said(tmp_path: Path) -> None:
    page = compose("a", "b", {}, [], [], tables=[PaperTable("../../out", "x", (PaperColumn("a"),), (("b",),))])
    for text in (page, page.replace("tables", "tavole"), re.sub('data-content="[^"]*"', 'data-content="{"', page)):
        with pytest.raises(InputError, match="damaged"):
            read_exports(text)


def test_a_figure_is_xml_whatever_a_name_holds() -> None:
    odd = compose("a\ufffe\uffff", "b", {}, [], [])
    assert "\ufffe" not in odd
    assert "\uffff" not in odd


def test_markdown_has_as_many_cells_as_headings() -> None:
    lines = (
        table((HARD, 60, Estimate(1.0, 0.5, 1.5, 0.2, 60, 60), 0.5, ""), ("b", 1, None, None, ""))
        .filled()
        .markdown()
        .splitlines()
    )
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "1.0 \\[0.5, 1.5\\]" in rows[2]
    assert "<b>" not in "".join(rows).replace("\\<b\\>", "")


def test_a_table_that_holds_markup_comes_back_and_stays_text() -> None:
    columns = (PaperColumn("task"),)
    page = compose("a", "b", {}, [], [], tables=[PaperTable("scores", EVIL, columns, ((EVIL,),), EVIL)])
    assert EVIL not in page
    assert page.count("<script") == 1
    assert EVIL in read_exports(page).tables["scores"]["csv"].replace('""', '"')


def test_tables_and_figures_are_taken_out_of_pages(tmp_path: Path) -> None:
    page = evaluation_page(result(AFTER))
    held = read_exports(page)
    assert set(held.tables) == {"scores", "categories", "held_out"}
    rows = list(csv.DictReader(io.StringIO(held.tables["scores"]["csv"])))
    assert float(rows[0]["score (%)"]) == 100 * AFTER.score().value
    assert float(rows[0]["score low (%)"]) == 100 * AFTER.score().low
    assert (rows[0]["n"], rows[0]["units"], rows[0]["metric"]) == ("12", "12", "normalised accuracy")
    assert "commit abc, 2026-03-14" in held.tables["scores"]["latex"]
    compared = read_exports(page_of(LIKE_IT, AFTER, ALL))
    verdicts = list(csv.DictReader(io.StringIO(compared.tables["verdicts"]["csv"])))
    assert {row["measure"] for row in verdicts} == {"prova", "Held-out text"}
    for figures in (held.figures, compared.figures):
        assert figures
        for svg in figures.values():
            root = ElementTree.fromstring(svg)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert float(root.attrib["width"]) == 736
            assert "var(" not in svg
    with pytest.raises(InputError, match="offers nothing"):
        read_exports("<html></html>")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--format", "csv", "--format", "svg", "--json"])
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout.splitlines()[-1])["files"]
    assert {Path(file).name for file in files} >= {"scores.csv", "categories.csv", "held_out.csv", "scores.svg"}
    assert (tmp_path / "paper" / "scores.csv").read_bytes().decode() == held.tables["scores"]["csv"]


def test_the_style_of_figures_names_no_variable() -> None:
    style = chart_style()
    assert "var(" not in style
    assert ".chart .curve.curve-5{stroke: #8a6a00" in style


def written(*texts: str) -> tuple[TaskResult, dict[str, Generation]]:
    """A task of written answers, a right one every second."""
    items = [
        Generation(f"w-{n}", f"Domanda {n}: che cosa è?", ("giusto",), Decoding(8), category="")
        for n in range(len(texts))
    ]
    scores = tuple(
        ItemScore(item.id, -1, -1, -1, (), values={"f1": float(n % 2), "exact_match": float(n % 2)}, text=text)
        for n, (item, text) in enumerate(zip(items, texts, strict=True))
    )
    task = replace(
        AFTER,
        name="scritta",
        metrics=("f1", "exact_match"),
        items=scores,
        hashes=tuple(item_sha256(item) for item in items),
    )
    return task, {item.id: item for item in items}


def two_tasks() -> tuple[EvaluationResult, Any]:
    task, items = written(EVIL, "è giusto, e \u202eal contrario", "nulla")
    return result(AFTER, task), lambda asked: items if asked.name == "scritta" else ALL


def test_every_item_is_there_with_what_was_answered() -> None:
    found, find = two_tasks()
    told = browsed(found, find)
    first, second = unpacked(told["data"])
    assert (len(first["items"]), len(second["items"])) == (12, 3)
    endings = first["items"][1]["e"]
    assert [right for _, right, *_ in endings] == [int(n == QUESTIONS[1].answer) for n in range(3)]
    assert sum(share for _, _, share, *_ in endings) == pytest.approx(1, abs=2e-4)
    assert sum(chosen for *_, chosen in endings) == 1
    assert second["items"][0]["a"][0][0] == EVIL
    assert second["items"][1]["a"][0][0] == "è giusto, e ⟨U+202E⟩al contrario"
    assert second["items"][1]["a"][0][2] == 1
    assert second["items"][1]["x"] == ["giusto"]
    page = evaluation_page(found, find)
    assert EVIL not in page
    assert page.count("</script>") == 1
    assert "licence: CC BY-NC 4.0" in page


def test_questions_that_are_not_the_ones_asked_are_not_shown() -> None:
    other = {name: replace(item, context=f"{item.context} altra") for name, item in ALL.items()}
    told = browsed(result(AFTER), lambda _: other)
    assert told["told"][0]["unknown"] == 12
    assert not [item for item in unpacked(told["data"])[0]["items"] if "q" in item]
    assert "are not the question" not in evaluation_page(result(AFTER), lambda _: other)


def test_more_items_than_a_page_holds_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.report.answers.MOST_BROWSED", 400)
    task, _ = written(*[f"risposta {n}" for n in range(460)])
    told = browsed(result(task), None)
    items = unpacked(told["data"])[0]["items"]
    numbers = [int(item["i"].removeprefix("w-")) for item in items]
    assert (len(items), told["told"][0]["shown"]) == (400, 400)
    assert max(b - a for a, b in itertools.pairwise(numbers)) <= 2
    assert "400 of 460 items are here" in evaluation_page(result(task))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_items_are_looked_through_and_files_are_saved(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(evaluation_page(*two_tasks()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("#browser-items .item")
    form = page.locator("#browser-filter")
    assert page.locator("#browser-items .item").count() == 12
    form.locator("[value=wrong]").check()
    assert page.locator("#browser-count").inner_text() == "1–3 of 3 items"
    form.locator("[name=category]").select_option("storia")
    assert page.locator("#browser-count").inner_text() == "1–1 of 1 item"
    form.locator("[name=task]").select_option("1")
    form.locator("[value=all]").check()
    assert page.locator("#browser-items .item").count() == 3
    assert EVIL in page.locator("#browser-items").text_content()
    assert page.locator("#browser-items [lang=it]").count() > 0
    form.locator("[name=words]").fill("nulla")
    assert page.locator("#browser-count").inner_text() == "1–1 of 1 item"
    assert page.title() != "hacked"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.locator("#scores details.export > summary").first.press("Enter")
    assert page.locator("#scores details.export").first.get_attribute("open") is not None
    page.locator("details").evaluate_all("folds => folds.forEach((fold) => { fold.open = true; })")
    saved = {}
    for section, button in (
        ("scores", "CSV"),
        ("categories", "LaTeX"),
        ("held_out", "Markdown"),
        ("scores", "SVG"),
        ("scores", "PNG"),
    ):
        place = page.locator(f"#{section}")
        with page.expect_download() as waiting:
            place.get_by_role("button", name=button).first.press("Enter")
        saved[button] = Path(waiting.value.path()).read_bytes()
    assert saved["CSV"].startswith(b"task,prompt,version")
    assert b"\\toprule" in saved["LaTeX"]
    assert b"bits per byte" in saved["Markdown"]
    assert saved["PNG"].startswith(b"\x89PNG")
    assert int.from_bytes(saved["PNG"][16:20]) == 3 * 736
    assert "var(" not in ElementTree.tostring(ElementTree.fromstring(saved["SVG"]), encoding="unicode")
    assert not faults
