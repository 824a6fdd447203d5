"""`stilnovo runs`: what folders of every kind and state say of themselves; damage is told and never fatal."""

from __future__ import annotations

import json
import platform
import random
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from typer.testing import CliRunner

from stilnovo.api import train_recipe
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.folderlock import locked
from stilnovo.recipe import Recipe
from stilnovo.report.runs import find_runs, runs_text

MANIFEST = {
    "recipe": {"model": {"name": "some/model"}, "data": {"paths": ["a/rows.jsonl", "b.txt"]}}, "steps": 9,
    "date": "2026-01-02T03:04:05+00:00",
}  # fmt: skip


def made(folder: Path, status: dict[str, Any] | None = None, **files: Any) -> Path:
    """A run folder with these files, as JSON."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "loss": 5.0 - step, "seconds": 2.0 * step} for step in (1, 2, 3)]
    rows[1] |= {"held_out_loss": 1.5}
    rows[2] |= {"held_out_loss": 1.75}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, value in {"manifest": MANIFEST, **files, **({"status": status} if status else {})}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


RUNNING = {"status": "running"}
LEFT_BEHIND = "a training, process 1 on {}, since 2026-01-02 03:04:05\n"


@pytest.mark.parametrize(
    ("expected", "status", "files"),
    [
        ("interrupted", RUNNING, {}),
        ("failed", {"status": "failed"}, {}),
        ("stopped early", {"status": "stopped early"}, {"train": {"steps": 3}}),
        ("interrupted", None, {}),
        ("finished", None, {"train": {"steps": 3, "guard": None}}),
        ("stopped early", None, {"train": {"guard": {"ended": True}}}),
    ],
)
def test_status(expected: str, status: dict[str, Any] | None, files: dict[str, Any], tmp_path: Path) -> None:
    made(tmp_path / "deep" / "run", status, **files)
    (run,) = find_runs(tmp_path)
    assert (run.status, run.kind, run.model, run.data) == (
        expected,
        "training",
        "some/model",
        ["a/rows.jsonl", "b.txt"],
    )
    assert (run.step, run.steps, run.loss, run.held_out_loss, run.held_out_step, run.seconds) == (
        3,
        9,
        2.0,
        1.5,
        2,
        6.0,
    )
    assert run.damaged == []


def test_a_training_runs_while_its_folder_is_locked(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", RUNNING)
    with locked(folder, "a training"):
        assert [find_runs(tmp_path)[0].status for _ in range(2)] == ["running", "running"]
    assert find_runs(tmp_path)[0].status == "interrupted"
    for host, status in ((platform.node(), "interrupted"), ("another machine", "running")):
        (folder / ".lock").write_text(LEFT_BEHIND.format(host))  # of a process that was killed, or cannot be seen
        assert find_runs(tmp_path)[0].status == status


@pytest.mark.parametrize(
    ("tasks", "caption"),
    [
        (["text", "sft"], "nats per loss token;"),
        (["dpo"], "nats per pair;"),
        (["dpo", "sft"], "nats per loss token, of dpo per pair;"),
    ],
)
def test_the_unit_of_losses_is_the_objectives(tasks: list[str], caption: str, tmp_path: Path) -> None:
    for task in tasks:
        made(tmp_path / task, manifest=MANIFEST | {"recipe": {"train": {"task": task}}})
    runs = find_runs(tmp_path)
    (table,) = runs_text(runs)
    assert isinstance(table, Table) and caption in str(table.caption)
    assert {run.objective for run in runs} == {*tasks}


def test_a_run_itself_an_empty_folder_and_no_folder(tmp_path: Path) -> None:
    assert [run.path for run in find_runs(made(tmp_path / "run"))] == [str(tmp_path / "run")]
    (tmp_path / "empty").mkdir()
    assert find_runs(tmp_path / "empty") == []
    with pytest.raises(InputError, match="stilnovo runs DIR"):
        find_runs(tmp_path / "absent")


def test_the_newest_is_first_and_a_runs_own_parts_are_no_runs(tmp_path: Path) -> None:
    for day in (3, 1, 2):
        made(tmp_path / f"run{day}", manifest=MANIFEST | {"date": f"2026-01-0{day}"})
    made(tmp_path / "run1" / "checkpoints" / "step-1")
    made(tmp_path / "a" / "b" / "c" / "d" / "too-deep")
    assert [Path(run.path).name for run in find_runs(tmp_path)] == ["run3", "run2", "run1"]


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_named_and_never_fatal(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    whole = made(tmp_path / "whole")
    hurt = made(tmp_path / "hurt", {"status": "finished"}, train={"steps": 3, "guard": {"ended": False}})
    name = chance.choice(["manifest.json", "train.json", "status.json", "metrics.jsonl"])
    content = (hurt / name).read_bytes()
    cut = chance.randrange(1, len(content) - 2)
    (hurt / name).write_bytes(
        chance.choice(
            [content[:cut], b"\xff\xfe" + content, b"[1, 2]\n" + content, b"", b"null", b'{"recipe": 3, "guard": []}']
        )
    )
    runs = {Path(run.path).name: run for run in find_runs(tmp_path)}
    assert set(runs) == {"whole", "hurt"} and runs["whole"].damaged == [] and str(whole) == runs["whole"].path
    assert runs["hurt"].damaged in ([], [name])
    assert (f"damaged and not read: {name}" in "".join(map(str, runs_text(list(runs.values()))))) == bool(
        runs["hurt"].damaged
    )


def test_an_evaluation_is_listed(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    result = {
        "model": "smollm2", "tasks": {"quiz": {"seconds": 3.0}}, "text": None, "environment": {"date": "2026-01-01T00:00"},
    }  # fmt: skip
    (tmp_path / "before" / "evaluation.json").write_text(json.dumps(result))
    (run,) = find_runs(tmp_path)
    assert (run.kind, run.status, run.model, run.data, run.seconds) == (
        "evaluation",
        "finished",
        "smollm2",
        ["quiz"],
        3.0,
    )


def test_the_command_lists_a_training(tmp_path: Path, tiny_folder: Path) -> None:
    changes = {
        "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4, "data.max_documents": 10, "data.pack_tokens": 64,
        "train.steps": 2,
    }  # fmt: skip
    train_recipe(Recipe(), tmp_path / "runs" / "first", changes=changes)
    done = CliRunner().invoke(app, ["runs", str(tmp_path / "runs"), "--json"])
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert (run["status"], run["step"], run["steps"], run["damaged"]) == ("finished", 2, 2, [])
    assert "finished" in done.stdout and "2/2" in done.stdout
