"""Protocols: what they change, what they say, and the report's figures beside a run's."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.benchmarks import protocol
from stilnovo.benchmarks.protocol import ANITA2024, PROTOCOLS, REPORT2024, STILNOVO, differences, find_protocol
from stilnovo.benchmarks.task import Draw, MultipleChoice, select
from stilnovo.benchmarks.tasks import OLDER, TASKS
from stilnovo.cli.main import app as whole_app
from stilnovo.errors import InputError
from stilnovo.report.report2024 import BENCHMARKS, INVALSI, PERPLEXITIES, published_tables
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.packed import score
from stilnovo.scoring.perplexity import HeldOutScore
from test_evaluate_run import app, call
from test_evaluate_scoring import byte_tokenizer, tiny_llama

__all__ = ["app"]  # the fixture


def rows(folder: Path, count: int) -> Path:
    (folder / "arc_it").mkdir()
    made = [
        {"id": f"x/{n}", "instruction": f"Numero {n}?", "option_a": "uno", "option_b": "due", "answer": "AB"[n % 2]}
        for n in range(count)
    ]
    (folder / "arc_it" / "it_test.json").write_text(json.dumps(made), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("available", "taken"), [(1169, 234), (9193, 1839), (13237, 2648), (10, 2), (11, 3)])
def test_the_first_fifth_is_the_harnesss(available: int, taken: int, tmp_path: Path) -> None:
    """`--limit 0.20` of lm-evaluation-harness is ceil(0.2 n); the first three are the counts of the report."""
    assert math.ceil(0.20 * available) == taken
    if available < 100:
        selection = REPORT2024.select(TASKS["arc_it"], rows(tmp_path, available))
        assert [item.id for item in selection.items] == [f"x/{n}" for n in range(taken)]
        assert selection.first


def test_the_first_fifth_of_arc_it(shared_data: Path) -> None:
    folder = shared_data / "benchmarks"
    found, every = REPORT2024.select(TASKS["arc_it"], folder), select(TASKS["arc_it"], folder)
    assert found.items == every.items[:234]
    own = REPORT2024.select(TASKS["invalsi_report_written"], folder)
    assert len(own.items) == 76, "the report's own script had no limit"
    drawn = STILNOVO.select(TASKS["arc_it"], folder, draw=Draw(0.20))
    assert len(drawn.items) == 234 and not drawn.first and drawn.items != found.items


def test_task_versions_belong_to_the_protocol() -> None:
    assert REPORT2024.task(TASKS["arc_it"]).version == STILNOVO.task(TASKS["arc_it"]).version == "2.0"
    assert ANITA2024.task(TASKS["arc_it"]) is OLDER["arc_it@1.0"]
    assert REPORT2024.quantization == "fp4"
    for one in PROTOCOLS.values():
        assert all(name in TASKS for name in one.tasks)


@pytest.mark.parametrize("bos", [True, False])
def test_opening_tokens(bos: bool) -> None:
    """The scores under `none` and `always` are those of tokenisers made that way."""
    tokenizer, model = byte_tokenizer(bos), tiny_llama()
    before = tokenizer.bos_id
    always = replace(STILNOVO, name="always", opening="always")
    assert STILNOVO.tokenizer(tokenizer) is tokenizer
    assert REPORT2024.tokenizer(tokenizer).bos_id is None
    assert always.tokenizer(tokenizer).bos_id == (before if bos else tokenizer.end_of_text_id)
    assert tokenizer.bos_id == before, "the given one is left as it is"
    items = [MultipleChoice("a", "Uno", (" due", " tre"), 0)]
    bare = score(model, byte_tokenizer(False), items)[0].loglikelihoods
    assert score(model, REPORT2024.tokenizer(tokenizer), items)[0].loglikelihoods == pytest.approx(bare)
    assert score(model, always.tokenizer(tokenizer), items)[0].loglikelihoods != pytest.approx(bare, abs=1e-3)
    assert len({json.dumps(one.identity()) for one in (STILNOVO, REPORT2024, always)}) == 3


def test_what_differs_is_said(tmp_path: Path) -> None:
    folder = rows(tmp_path, 10)
    with_bos, without = byte_tokenizer(True), byte_tokenizer(False)
    selections = [REPORT2024.select(TASKS["arc_it"], folder)]
    found = {one.what: one for one in differences(REPORT2024, "fp4", with_bos, selections)}
    assert set(found) == {"quantization", "opening token", "items of arc_it"}
    assert (found["quantization"].here, found["quantization"].default) == ("fp4", "none")
    assert found["items of arc_it"].here == "the first 2 of 10"
    assert "opening token" not in {one.what for one in differences(REPORT2024, "fp4", without, selections)}
    assert not differences(STILNOVO, "none", with_bos, [STILNOVO.select(TASKS["arc_it"], folder)])
    older = differences(ANITA2024, "none", without, [ANITA2024.select(TASKS["arc_it"], folder)])
    assert [(one.what, one.here) for one in older] == [("version of arc_it", "1.0")]


def test_measured_effects_are_said_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    effect = {
        "key": "quantization fp4",
        "words": "FP4",
        "task": "arc_it",
        "n": 7,
        "difference": -0.0123,
        "interval": [-0.03, 0.01],
    }
    record = {"model": "tiny", "metric": "acc_norm", "date": "2026-01-01", "effects": [effect]}
    monkeypatch.setattr(protocol, "EFFECTS_FILE", tmp_path / "effects.json")
    assert not any(one.effect for one in differences(REPORT2024, "fp4", byte_tokenizer(True), []))
    (tmp_path / "effects.json").write_text(json.dumps(record), encoding="utf-8")
    said = differences(REPORT2024, "fp4", byte_tokenizer(True), [])
    assert "-1.2 points" in said[0].effect and "7 items of arc_it" in said[0].effect
    assert not said[1].effect


def test_unknown_protocols_name_the_nearest() -> None:
    with pytest.raises(InputError, match="report2024"):
        find_protocol("report24")


def test_the_reports_tables_are_marked_and_leave_nothing_out(tmp_path: Path) -> None:
    folder = rows(tmp_path, 10)
    result = evaluate(
        tiny_llama(), byte_tokenizer(True), [REPORT2024.select(TASKS["arc_it"], folder)], model_name="tiny"
    )
    shown = published_tables(result, "mine")
    lines = shown.splitlines()
    for model, figures in (line for table in (BENCHMARKS, PERPLEXITIES, INVALSI) for line in table.items()):
        (row,) = [row for row in lines if row.startswith(f"{model}  ") and (figures[0] or "—") in row]
        assert row.count(" p") == sum(figure is not None for figure in figures)
    mine = [row for row in lines if row.startswith("mine")]
    assert [row.count("—") for row in mine] == [1, 1, 1], "perplexity, HellaSwag-IT, INVALSI"
    assert f"{result.tasks['arc_it'].score('acc_norm').value:.4f}".replace("0.", ".", 1) in mine[1]
    text_score = HeldOutScore((1.0, 2.0), (3, 4), (1, 1), "x", 64, 32, (1.0, 3.0), (1, 1))
    perplexity = published_tables(replace(result, text=text_score), "mine")
    assert f"{math.exp(2):.2f}" in perplexity


def test_published_shares_are_the_counts_behind_them() -> None:
    """The four decimals of the report are whole numbers of its items."""
    counts = (((668, 6521), (1169, 9193)), ((123, 1246), (234, 1839)), ((98, 953), (234, 1839)))
    for (arc, hellaswag), ((first, second), (of_arc, of_hellaswag)) in zip(BENCHMARKS.values(), counts, strict=True):
        assert arc is not None
        assert arc == f"{first / of_arc:.4f}"[1:]
        assert float(hellaswag or 0) == pytest.approx(second / of_hellaswag, abs=1e-4)


def test_bad_options_are_bad_input(tmp_path: Path) -> None:
    runner = CliRunner()
    folder = str(rows(tmp_path, 4))
    for options, message in (
        (["--protocol", "reprt2024"], "Did you mean report2024"),
        (["--tasks", "arc_it", "--data-dir", folder, "--limit", "1.5"], "whole number"),
        (["--tasks", "arc_it", "--data-dir", folder, "--limit", "0"], "whole number"),
        (["--tasks", "arc_it", "--data-dir", folder, "--shots", "5"], "cannot be asked with 5 examples"),
        (["--tasks", "arc_itt"], "Did you mean arc_it"),
    ):
        result = runner.invoke(whole_app, ["evaluate", *options])
        assert isinstance(result.exception, InputError), result.output
        assert message in str(result.exception)


def test_the_command_under_the_reports_protocol(app: typer.Typer, tmp_path: Path) -> None:
    """First fifth, FP4, no opening token: recorded, said beforehand, and the tables below."""
    folder = rows(tmp_path, 11)
    (tmp_path / "it.txt").write_text("\n".join(f"Riga {n} di un testo tenuto da parte." for n in range(90)), "utf-8")
    arguments = ["evaluate", "--model", "0", "--tasks", "arc_it", "--data-dir", str(folder), "--text", "it.txt"]
    shown, noted, found = call(app, *arguments, "--protocol", "report2024")
    task = found["tasks"]["arc_it"]
    assert (task["n"], task["available"], task["first"]) == (3, 11, True)
    assert found["quantization"] == "fp4"
    assert found["protocol"]["name"] == "report2024"
    assert {one["what"] for one in found["protocol"]["differs"]} == {"quantization", "opening token", "items of arc_it"}
    assert "simply the first ones" in noted and "opening token is none" in noted
    assert ".5256 p" in shown and "published in 2024" in shown
    assert found["text"]["perplexity_64"] > 1
    saved = json.loads(Path(found["result"]).read_text(encoding="utf-8"))
    assert saved["settings"]["protocol"] == found["protocol"]

    shown, _, usual = call(app, *arguments, "--limit", "0.2")
    assert usual["protocol"]["name"] == "stilnovo"
    assert usual["tasks"]["arc_it"]["n"] == 3
    assert not usual["tasks"]["arc_it"]["first"]
    assert usual["tasks"]["arc_it"]["cached"] == 0, "answers without an opening token are other answers"
    assert "published in 2024" not in shown
    _, _, again = call(app, *arguments, "--protocol", "report2024")
    assert again["tasks"]["arc_it"]["cached"] == 3
    assert again["tasks"]["arc_it"]["acc_norm"] == task["acc_norm"]


def test_tasks_can_be_listed(app: typer.Typer) -> None:
    shown, _, found = call(app, "evaluate", "--tasks", "list")
    assert list(found) == [*TASKS, *OLDER]
    assert found["gsm8k"]["shots"] == 5 and "written for stilnovo" in found["gsm8k"]["shots_rule"]
    assert all(name in shown for name in TASKS)
