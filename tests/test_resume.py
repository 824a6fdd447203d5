"""A run that is killed and resumed repeats the uninterrupted run's losses to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stilnovo.data.packing import pack
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.recipe import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train.loop import Trainer

SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_resume import trainer
t = trainer(Path({folder!r}))
if {resume}:
    t.resume()
step = t.train_step
def slowly(batches):
    time.sleep(0.05)
    return step(batches)
t.train_step = slowly
t.run_all()
"""


def trainer(folder: Path, **changes: object) -> Trainer:
    """A tiny training with dropout (so that the random state counts too) and a checkpoint every third step."""
    from conftest import TINY
    from stilnovo.model.llama import random_source

    model = Llama(TINY, random_source(3, std=0.1))
    model.requires_grad_(False)
    lora.attach(model, lora.LoraConfig(r=4, dropout=0.1))
    corpus = pack([[(7 * i + j) % 97 for j in range(40)] for i in range(30)], 64)
    section = {"steps": 20, "batch_packs": 2, "checkpoint_every": 3, "learning_rate": 1e-2, **changes}
    return Trainer(model, corpus, TrainSection.model_validate(section), RunFolder(folder))


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in RunFolder(folder).metrics()]


def run(folder: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), resume=resume)
    return subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("kill_after", [4, 11])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kill_after: int) -> None:
    assert run(tmp_path / "whole").wait(120) == 0
    expected = losses(tmp_path / "whole")
    assert len(expected) == 20
    assert expected[-1] < expected[0]
    process = run(tmp_path / "cut")
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "cut")) < kill_after and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert kill_after <= len(losses(tmp_path / "cut")) < 20
    assert run(tmp_path / "cut", resume=True).wait(120) == 0
    assert losses(tmp_path / "cut") == expected


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = trainer(tmp_path)
    first.run_all()
    newest = tmp_path / "checkpoints" / "step-20" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    again = trainer(tmp_path)
    again.resume()
    assert again.step == 18
    assert "step-20 is damaged" in capsys.readouterr().err
    assert len(losses(tmp_path)) == 18
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2  # only the newest are kept, and nothing half-written


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        trainer(tmp_path).resume()
    trainer(tmp_path).run_all()
    with pytest.raises(InputError, match="another run"):
        trainer(tmp_path, steps=25).resume()


@pytest.mark.parametrize("optimizer", ["adamw8bit", "adamw"])
def test_both_optimizers_learn(tmp_path: Path, optimizer: str) -> None:
    result = trainer(tmp_path, optimizer=optimizer).run_all()
    assert result.last_loss < result.first_loss - 0.2


def test_interruption_names_the_way_back(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    step = one.train_step

    def interrupted(batches: list[object]) -> dict[str, object]:
        if one.step == 5:
            raise KeyboardInterrupt
        return step(batches)  # type: ignore[arg-type]

    one.train_step = interrupted  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt, match=r"step 5 of 20.*--resume"):
        one.run_all()
