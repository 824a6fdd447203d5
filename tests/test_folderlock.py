"""Two processes never write into one folder: the second is refused, and a killed one leaves the folder open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stilnovo.data.prepare import prepare
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.folderlock import FolderLock, is_held, locked
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.text.tokenizer import from_folder
from stilnovo.train.run import TrainingRun

HOLDER = """
import sys, time
from pathlib import Path
from stilnovo.folderlock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "a training")
print("held", flush=True)
time.sleep(600)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the lock on a folder until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def recipe_of(model: Path, **changes: Any) -> Recipe:
    return Recipe().changed(
        {"model.name": str(model), "model.device": "cpu", "lora.r": 2, "data.max_documents": 6, "data.pack_tokens": 64}
        | changes
    )


def test_a_folder_in_use_is_refused_with_its_holder_and_left_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = holder(folder)
    try:
        assert is_held(folder)
        before = sorted(folder.iterdir())
        for begin in (
            lambda: TrainingRun(recipe_of(tiny_folder), folder),
            lambda: TrainingRun(recipe_of(tiny_folder), folder, resume=True),
            lambda: prepare(PreparationSettings(("sample",)), from_folder(tiny_folder), "tiny", folder),
        ):
            with pytest.raises(InputError, match=rf"(?s)in use by another process.*process {process.pid} on .*--out"):
                begin()
        assert sorted(folder.iterdir()) == before
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert (folder / ".lock").exists() and is_held(folder) is False
    TrainingRun(recipe_of(tiny_folder, **{"train.steps": 1}), folder).train()
    assert len(RunFolder(folder).metrics()) == 1 and not (folder / ".lock").exists()


@pytest.mark.parametrize("_attempt", range(5))
def test_of_many_that_begin_at_once_one_gets_the_folder(_attempt: int, tmp_path: Path) -> None:
    folder, ready, got, refused = tmp_path / "run", threading.Barrier(8), list[FolderLock](), list[InputError]()

    def begin() -> None:
        ready.wait()
        try:
            got.append(FolderLock(folder, "a training"))
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()
    assert not folder.exists()


def test_whatever_ends_a_training_frees_its_folder(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        TrainingRun(recipe_of(tiny_folder, **{"data.paths": ["not-here.jsonl"]}), tmp_path / "run")
    assert is_held(tmp_path / "run") is False and not (tmp_path / "run").exists()
    run = TrainingRun(recipe_of(tiny_folder, **{"train.steps": 1}), tmp_path / "run")
    assert is_held(tmp_path / "run")
    run.train()
    assert is_held(tmp_path / "run") is False
    with locked(tmp_path / "run", "a test"), pytest.raises(InputError, match="It is a test, process"):
        TrainingRun(recipe_of(tiny_folder), tmp_path / "run", resume=True)
