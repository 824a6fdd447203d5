"""Checkpoints on disk: whole or absent, and written when somebody asks a training to stop."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from stilnovo.errors import InputError, StilnovoError
from stilnovo.train import checkpoint
from stilnovo.train.loop import Trainer
from test_resume import losses, trainer

STATE: dict[str, Any] = {"step": 1, "parameters": [torch.arange(5.0)]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_what_is_read_and_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (5, 10, 9, 100):
        checkpoint.save(tmp_path, step, {**STATE, "step": step}, keep=3)
    assert checkpoint.steps(tmp_path) == [9, 10, 100]
    state, damaged = checkpoint.newest(tmp_path)
    assert state["step"] == 100
    assert torch.equal(state["parameters"][0], STATE["parameters"][0])
    assert damaged == []


def test_what_a_kill_left_behind_does_not_count(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, STATE, keep=2)
    (tmp_path / ".step-6.partial").mkdir()
    (tmp_path / ".step-6.partial" / "state.pt").write_bytes(b"half")
    (tmp_path / "step-notes").mkdir()
    assert checkpoint.steps(tmp_path) == [3]
    checkpoint.save(tmp_path, 6, {**STATE, "step": 6}, keep=2)
    assert names(tmp_path) == ["step-3", "step-6", "step-notes"]
    assert checkpoint.newest(tmp_path)[0]["step"] == 6


@pytest.mark.parametrize("file", ["state.pt", "checkpoint.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": 3}', b"\xff\xfe", None])
def test_any_damage_is_passed_over(tmp_path: Path, file: str, content: bytes | None) -> None:
    checkpoint.save(tmp_path, 3, {**STATE, "step": 3}, keep=2)
    checkpoint.save(tmp_path, 6, {**STATE, "step": 6}, keep=2)
    if content is None:
        (tmp_path / "step-6" / file).unlink()
    else:
        (tmp_path / "step-6" / file).write_bytes(content)
    state, damaged = checkpoint.newest(tmp_path)
    assert (state["step"], damaged) == (3, ["step-6"])


def test_one_wrong_bit_is_found(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, STATE, keep=2)
    whole = bytearray((tmp_path / "step-3" / "state.pt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "step-3" / "state.pt").write_bytes(whole)
    with pytest.raises(InputError, match=r"(?s)no checkpoint to resume from.*Damaged: step-3"):
        checkpoint.newest(tmp_path)


def test_a_disk_that_fills_up_while_torch_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:
            if self.tell() + len(data) > 2000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    checkpoint.save(tmp_path, 3, STATE, keep=2)
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", **more: Full(path, mode) if mode == "wb" else opened(path, mode, **more)
    )
    with pytest.raises(StilnovoError, match="disk is full"):
        checkpoint.save(tmp_path, 6, {**STATE, "big": torch.zeros(5000)}, keep=2)
    assert names(tmp_path) == ["step-3"]


def interrupting(one: Trainer, at: int, times: int) -> None:
    """Let somebody press Ctrl-C during step `at`."""
    step = one.train_step

    def pressed(batches: Any) -> dict[str, Any]:
        if one.step == at - 1:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return step(batches)

    one.train_step = pressed  # type: ignore[method-assign]


def test_one_ctrl_c_ends_the_step_and_leaves_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    trainer(tmp_path / "whole").run_all()
    one = trainer(tmp_path / "cut", checkpoint_every=50)  # no checkpoint is due
    before = signal.getsignal(signal.SIGINT)
    interrupting(one, at=7, times=1)
    with pytest.raises(KeyboardInterrupt, match=r"^Stopped at step 7 of 20\. Continue from step 7 with --resume\.$"):
        one.run_all()
    assert signal.getsignal(signal.SIGINT) is before
    assert "Stopping after this step" in caplog.text
    assert len(losses(tmp_path / "cut")) == 7
    again = trainer(tmp_path / "cut", checkpoint_every=50)
    again.resume()
    again.run_all()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_second_ctrl_c_drops_the_step(tmp_path: Path) -> None:
    one = trainer(tmp_path, checkpoint_every=3)
    interrupting(one, at=5, times=2)
    with pytest.raises(KeyboardInterrupt, match=r"step 4 of 20\. Continue from step 3"):
        one.run_all()
    early = trainer(tmp_path / "early")
    interrupting(early, at=1, times=2)
    with pytest.raises(KeyboardInterrupt, match=r"step 0 of 20\. Continue from step 0"):
        early.run_all()


def test_ctrl_c_in_the_last_step_is_a_finished_run(tmp_path: Path) -> None:
    one = trainer(tmp_path, steps=4)
    interrupting(one, at=4, times=1)
    assert one.run_all().steps == 4


def test_training_in_another_thread_works(tmp_path: Path) -> None:
    one, results = trainer(tmp_path, steps=3), list[int]()
    thread = threading.Thread(target=lambda: results.append(one.run_all().steps))
    thread.start()
    thread.join()
    assert results == [3]
