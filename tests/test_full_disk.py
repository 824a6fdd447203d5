"""A full disk: what it spoils, what the last line says, and that the same command goes on once there is room.

A write into a full disk is a real one: /dev/full takes the place of the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from stilnovo.cli.main import app
from stilnovo.errors import StilnovoError
from stilnovo.runlog import RunFolder

CLOCKS = {"seconds", "evaluation_seconds", "tokens_per_second", "memory_bytes"}


@pytest.fixture
def work(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"Testo numero {number}: " + "parola " * (3 + number % 7)} for number in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    os.symlink(tiny_folder, tmp_path / "model")
    return tmp_path


TRAIN = (
    "train", "--model", "model", "--quantization", "none", "--data", "data.jsonl", "--steps", "6", "--device", "cpu",
    "--set", "data.pack_tokens=64", "--set", "data.held_out=0", "--set", "train.checkpoint_every=2", "--set", "lora.r=2",
)  # fmt: skip


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def replace_fails(monkeypatch: pytest.MonkeyPatch, full: Callable[[Path], bool]) -> None:
    """A disk that is full for the files of which `full` is true: they cannot be put in their place."""
    honest = os.replace

    def replace(source: Any, target: Any, **options: Any) -> None:
        if full(Path(target)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(source, target, **options)

    monkeypatch.setattr(os, "replace", replace)


def append_fails(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A disk that is full when the metrics of a step are written."""
    honest = RunFolder.append_metrics

    def append(self: RunFolder, row: dict[str, Any]) -> None:
        if row["step"] != step:
            return honest(self, row)
        path = self.path / "metrics.jsonl"
        path.touch()
        path.rename(self.path / "aside")
        path.symlink_to("/dev/full")
        try:
            honest(self, row)
        finally:
            path.unlink()
            (self.path / "aside").rename(path)

    monkeypatch.setattr(RunFolder, "append_metrics", append)


def rows(run: Path) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row.keys() - CLOCKS} for row in RunFolder(run).metrics()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(("step", "way"), [(1, "from step 0"), (3, "from step 2"), (5, "from step 4")])
def test_a_training_says_where_it_stands_and_goes_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, step: int, way: str
) -> None:
    with monkeypatch.context() as full:
        append_fails(full, step)
        stopped = invoke(*TRAIN, "--out", "run")
    assert type(stopped.exception) is StilnovoError
    assert stopped.exception.exit_code == 1
    assert "The disk is full" in str(stopped.exception)
    assert str(stopped.exception).splitlines()[-1] == f"Stopped at step {step} of 6. Continue {way} with --resume."
    assert "To go on: stilnovo train --resume --out run" in stopped.output
    assert invoke("train", "--resume", "--out", "run").exit_code == 0
    assert invoke(*TRAIN, "--out", "whole").exit_code == 0
    assert rows(work / "run") == rows(work / "whole")
    assert (work / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == (
        work / "whole" / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", ["step-2", "step-4"])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    step = int(name.removeprefix("step-"))
    with monkeypatch.context() as full:
        replace_fails(full, lambda target: target.name == name)
        stopped = invoke(*TRAIN, "--out", "run")
    last = str(stopped.exception).splitlines()[-1]
    assert last == f"Stopped at step {step} of 6. Continue from step {step - 2} with --resume."
    assert not list((work / "run" / "checkpoints").glob(".*"))
    assert invoke("train", "--resume", "--out", "run").exit_code == 0
    assert [row["step"] for row in rows(work / "run")] == [1, 2, 3, 4, 5, 6]


def test_an_adapter_that_does_not_fit_is_written_by_a_resume(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        replace_fails(full, lambda target: target.name == "adapter_model.safetensors")
        stopped = invoke(*TRAIN, "--out", "run")
    assert type(stopped.exception) is StilnovoError
    assert re.search(r"Stopped at step (\d+) of \1\. Continue from step \1 with --resume\.$", str(stopped.exception))
    assert "To go on: stilnovo train --resume --out run" in stopped.output
    assert invoke("train", "--resume", "--out", "run").exit_code == 0
    assert (work / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_training_that_has_no_room_is_refused(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    result = invoke(*TRAIN, "--out", "run")
    assert type(result.exception) is StilnovoError
    assert "no room for run" in result.exception.what
    assert "4.9 KiB are free" in result.exception.found
    assert "train.keep_checkpoints=1" in result.exception.next
    assert not (work / "run").exists()


def test_what_a_run_is_said_to_write_is_what_it_writes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    monkeypatch.setattr("stilnovo.train.planning.check_room", lambda _path, needed, _next: said.append(needed))
    assert invoke(*TRAIN, "--out", "run", "--set", "lora.r=64").exit_code == 0
    checkpoints = [path.stat().st_size for path in (work / "run" / "checkpoints").rglob("state.pt")]
    adapter = (work / "run" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert len(checkpoints) == 2
    assert sum(checkpoints) + max(checkpoints) + adapter == pytest.approx(said[0], rel=0.1)


def test_a_preparation_goes_on_where_the_disk_was_full(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [f"part{number}.txt" for number in range(3)]
    for number, name in enumerate(sources):
        (work / name).write_text(f"Il libro {number} comincia qui, e finisce con altre parole.\n" * 3, encoding="utf-8")
    prepare = ("prepare", *sources, "--model", "model", "--processes", "1", "--duplicates", "0", "--out", "prepared")
    with monkeypatch.context() as full:
        replace_fails(full, lambda target: target.name == "00002.tokens")
        stopped = invoke(*prepare)
    assert type(stopped.exception) is StilnovoError, stopped.exception
    assert "The disk is full" in str(stopped.exception)
    last = str(stopped.exception).splitlines()[-1]
    assert last == "Stopped after 2 blocks. Run the same command again: it goes on from there."
    again = invoke(*prepare)
    assert again.exit_code == 0, again.exception
    assert "2 blocks were done before" in again.output
