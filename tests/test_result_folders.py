"""A folder into which one process writes its results is refused to a second one, for as long as the first lives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.folderlock import locked
from stilnovo.model import lora
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.spec import ModelSpec

HOLD = """
import sys, time
from pathlib import Path
from stilnovo.folderlock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "a training")
(Path(sys.argv[1]) / "begun").touch()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def work(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("Una riga di testo.\n" * 4, encoding="utf-8")
    os.symlink(tiny_folder, tmp_path / "model")
    llama, _ = open_model(ModelSpec("model", quantization="none", device="cpu"))
    config = LoraConfig(r=2, alpha=4.0, projections=("q_proj",))
    lora.attach(llama, config)
    lora.save(llama, config, tmp_path / "adapter", "model")
    return tmp_path


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


EVALUATE = ("evaluate", "--model", "model", "--text", "text.txt", "--device", "cpu", "--out", "results")
SWEEP = (
    "sweep", "--model", "model", "--adapter", "adapter", "--held-out", "text.txt", "--tasks", "none", "--scales", "0.5",
    "--device", "cpu", "--out", "results",
)  # fmt: skip
COMPARE = ("compare", "first", "first", "--out", "results")
COMMANDS = {"evaluate": EVALUATE, "sweep": SWEEP, "compare": COMPARE}


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_in_use_is_refused_until_its_holder_is_gone(work: Path, name: str) -> None:
    assert invoke(*EVALUATE[:-1], "first").exit_code == 0
    with held(work / "results") as holder:
        refused = invoke(*COMMANDS[name])
        assert isinstance(refused.exception, InputError)
        assert re.search(
            f"in use by another process.\nIt is a training, process {holder.pid} .*\n.*--out",
            str(refused.exception),
        )
        assert sorted(path.name for path in (work / "results").iterdir()) == [".lock", "begun"]
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        done = invoke(*COMMANDS[name])
    assert done.exit_code == 0, done.exception
    assert (work / "results" / "report.html").is_file()
    assert not (work / "results" / ".lock").exists(), "nothing is left of the lock"


@pytest.mark.parametrize("name", ["evaluate", "sweep"])
def test_a_command_holds_its_folder_while_it_works(work: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(*_: Any, **__: Any) -> Any:
        with pytest.raises(InputError) as refused, locked(work / "results", "another"):
            pass
        seen.append(str(refused.value))
        raise KeyboardInterrupt

    monkeypatch.setattr("stilnovo.model.load.build", look)
    invoke(*COMMANDS[name])
    assert re.search(f"It is an? {'evaluation' if name == 'evaluate' else 'sweep'}, process {os.getpid()}", seen[0])
    assert not (work / "results").exists(), "a folder into which nothing was written is gone with the lock"


def test_a_lock_takes_the_folders_away_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine" / "a" / "b", "a sweep"):
        assert (tmp_path / "mine" / "a" / "b" / ".lock").is_file()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with locked(tmp_path / "mine" / "a" / "b", "a sweep"):
        (tmp_path / "mine" / "a" / "kept").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept", "mine"]
