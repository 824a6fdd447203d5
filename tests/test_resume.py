"""A run that is killed and resumed repeats the uninterrupted run's losses to the last bit."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stilnovo.data.packing import pack
from stilnovo.errors import InputError, StilnovoError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train.loop import Trainer
from stilnovo.train.run import TrainingRun

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


def trainer(folder: Path, r: int = 4, **changes: object) -> Trainer:
    """A tiny training with dropout (so that the random state counts too) and a checkpoint every third step."""
    from conftest import TINY
    from stilnovo.model.llama import random_source

    model = Llama(TINY, random_source(3, std=0.1))
    model.requires_grad_(False)
    lora.attach(model, lora.LoraConfig(r=r, dropout=0.1))
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


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder).wait(120) == 0
    return losses(folder)


@pytest.mark.parametrize("kill_after", [4, 11])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kill_after: int, expected: list[float]) -> None:
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


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    first = trainer(tmp_path)
    first.run_all()
    newest = tmp_path / "checkpoints" / "step-20" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    again = trainer(tmp_path)
    again.resume()
    assert again.step == 18
    assert "step-20 is damaged" in caplog.text
    assert len(losses(tmp_path)) == 18
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2  # only the newest are kept, and nothing half-written


def test_resuming_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        trainer(tmp_path).resume()
    trainer(tmp_path).run_all()
    with pytest.raises(InputError, match="another run"):
        trainer(tmp_path, steps=25).resume()


def test_when_every_checkpoint_is_damaged_it_says_so(tmp_path: Path) -> None:
    trainer(tmp_path).run_all()
    for path in (tmp_path / "checkpoints").iterdir():
        (path / "state.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)no checkpoint.*step-20, step-18.*--out"):
        trainer(tmp_path).resume()


def test_eight_bit_states_are_restored(tmp_path: Path) -> None:
    # bitsandbytes keeps small tensors in fp32 whatever is asked: these matrices are large enough for 8 bits.
    whole = trainer(tmp_path / "whole", r=64, optimizer="adamw8bit")
    whole.run_all()
    kinds = {v.dtype for state in whole.optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)}
    assert torch.uint8 in kinds
    cut = trainer(tmp_path / "cut", r=64, optimizer="adamw8bit")
    stream = iter(cut.stream)
    for _ in range(7):
        cut.run.append_metrics(cut.train_step([next(stream)]))
        if cut.step == 5:
            cut.save()
    again = trainer(tmp_path / "cut", r=64, optimizer="adamw8bit")
    again.resume()
    assert again.step == 5
    again.run_all()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for one, other in zip(again.parameters, whole.parameters, strict=True):
        assert torch.equal(one, other)


def test_a_failed_save_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path)
    stream = iter(one.stream)
    one.train_step([next(stream)])
    one.save()
    one.train_step([next(stream)])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StilnovoError, match="disk is full"):
        one.save()
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    again = trainer(tmp_path)
    again.resume()
    assert again.step == 1


@pytest.fixture
def described(tiny_folder: Path, tmp_path: Path) -> Recipe:
    """A recipe on the tiny model and a file of its own."""
    rows = [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Recipe.model_validate(
        {
            "model": {"name": str(tiny_folder), "device": "cpu"},
            "lora": {"r": 4, "dropout": 0.1},
            "data": {"paths": [str(tmp_path / "data.jsonl")], "pack_tokens": 64},
            "train": {"steps": 6, "checkpoint_every": 2, "learning_rate": 1e-2},
        }
    )


def test_a_whole_run_writes_what_it_promises_and_resumes(described: Recipe, tmp_path: Path) -> None:
    result, lines = TrainingRun(described, tmp_path / "whole").train()
    assert result.steps == 6
    assert {line.name for line in lines if line.measured is not None} >= {"frozen projections", "adapter", "optimizer"}
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {
        "manifest.json", "recipe.yaml", "held_out.jsonl", "metrics.jsonl", "checkpoints", "adapter", "train.json",
    }  # fmt: skip
    cut = TrainingRun(described, tmp_path / "cut")
    save, saves = cut.trainer.save, list[int]()

    def killed() -> None:
        save()
        saves.append(cut.trainer.step)
        if len(saves) == 2:
            raise SystemExit

    cut.trainer.save = killed  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        cut.train()
    TrainingRun(described, tmp_path / "cut", resume=True).train()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_another_recipe_other_data_and_a_run_begun_are_refused(described: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to resume"):
        TrainingRun(described, tmp_path / "run", resume=True)
    TrainingRun(described, tmp_path / "run").train()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"holds a run already"):
        TrainingRun(described, tmp_path / "run")
    other = described.changed({"train.learning_rate": 1e-3, "lora.r": 8})
    with pytest.raises(InputError, match=r"Changed: lora\.r, train\.learning_rate"):
        TrainingRun(other, tmp_path / "run", resume=True)
    data = tmp_path / "data.jsonl"
    data.write_text(data.read_text().replace("numero 3:", "numero tre:"))
    with pytest.raises(InputError, match="data differ"):
        TrainingRun(described, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


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
