"""A new training objective is one file (`reversed_objective.py`) and one entry: it is checked, planned, trained, printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import OBJECTIVES, ObjectiveEntry
from stilnovo.train.run import TrainingRun


@pytest.fixture
def recipe_file(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registration, and a recipe that names it."""
    monkeypatch.setitem(OBJECTIVES, "reversed", ObjectiveEntry("reversed_objective:ReversedObjective"))
    rows = [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    recipe = Recipe().changed(
        {
            "train.task": "reversed", "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4,
            "data.paths": [str(tmp_path / "data.jsonl")], "data.pack_tokens": 64, "train.steps": 4,
            "train.learning_rate": 1e-2,
        }
    )  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    return path


def invoke(*arguments: str) -> tuple[str, dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exception is None, result.output
    return result.stdout, json.loads(result.stdout.splitlines()[-1])


def test_it_is_planned_by_its_own_cost(recipe_file: Path) -> None:
    _, figures = invoke("plan", "--recipe", str(recipe_file))
    assert figures["objective"] == {"learnt": 0.5, "base": 0.0, "compared": 0.0, "anchored": 0.0}
    recipe_file.write_text(recipe_file.read_text().replace("task: reversed", "task: text"))
    assert figures["flops_per_token"] < invoke("plan", "--recipe", str(recipe_file))[1]["flops_per_token"]


def test_it_is_trained_and_printed(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text, figures = invoke("train", "--recipe", str(recipe_file), "--out", str(out))
    assert figures["steps"] == 4 and figures["last_loss"] < figures["first_loss"]
    held_out = figures["held_out"]
    assert f"Held-out, 4 texts from back to front: loss {held_out['loss']:.3f}" in text
    assert math.isfinite(held_out["loss"]) and held_out["n"] > 0
    rows = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(set(row) == {"text"} for row in rows)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4


def test_keys_of_other_objectives_are_refused(recipe_file: Path, tmp_path: Path) -> None:
    recipe = Recipe().changed({"train.task": "reversed", "train.beta": 0.2})
    with pytest.raises(InputError, match=r"train\.beta needs train\.task: dpo"):
        TrainingRun(recipe, tmp_path / "run")


def test_a_name_that_is_not_registered() -> None:
    with pytest.raises(InputError, match=r"train\.task: .*choose text, sft, dpo"):
        Recipe().changed({"train.task": "reversed"})
