"""The demo in one go on a tiny model: its figures, its page, and what it leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.cli.demo import demo as command
from stilnovo.demo import job
from stilnovo.demo.job import TASKS
from stilnovo.errors import InputError
from stilnovo.recipe import load as load_recipe
from test_report import Page


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    monkeypatch.chdir(tmp_path)
    found = typer.Typer()
    found.command()(command)
    return found


def test_the_demo_writes_what_it_measured(app: typer.Typer, tiny_folder: Path, tmp_path: Path) -> None:
    options = [
        "--model",
        str(tiny_folder),
        "--steps",
        "2",
        "--prompts",
        "1",
        "--new-tokens",
        "4",
        "--device",
        "cpu",
        "--json",
    ]
    result = CliRunner().invoke(app, [*options, "--out", "run"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert set(figures["verdicts"]) == {*TASKS, "bits_per_byte"}
    assert set(figures["verdicts"].values()) <= {"improved", "regressed", "inconclusive"}
    assert figures["quote_verified"] is True
    assert figures["bits_per_byte_before"] > 0 and 0 <= figures["accuracy_after"] <= 1
    kept = json.loads((tmp_path / "run" / "demo.json").read_text(encoding="utf-8"))
    assert kept["finished"] and {key: kept[key] for key in figures} == figures
    assert kept["quantization_costs"][0]["scheme"] == "none"
    assert len(kept["texts"]) == 1 and kept["answers"][0]["question"] == figures["question"]
    text = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text()
    assert "AdamW (states in float32): 2 steps" in text, "the optimizer that ran, not one that might have"
    assert "8-bit" not in text
    assert figures["question"] in text and "mark" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_only_an_earlier_demo_is_replaced(app: typer.Typer, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("anni di lavoro", encoding="utf-8")
    result = CliRunner().invoke(app, ["--model", str(tiny_folder), "--out", "mine"])
    assert isinstance(result.exception, InputError) and "not a demo" in str(result.exception)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_table_for_which_there_is_no_room_is_left_out(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("demo").changed({"model.name": str(tiny_folder), "model.device": "cpu"})
    monkeypatch.setenv("STILNOVO_RAM", "2MB")
    assert job._scheme_costs(recipe, ["Un testo."]) == []
    monkeypatch.delenv("STILNOVO_RAM")
    assert job._scheme_costs(recipe, ["Un testo."])[0].scheme == "none"
