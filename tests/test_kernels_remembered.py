"""The kernels' trial on a card: made once, remembered for what it holds for, never a reason to fail."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stilnovo.errors import InputError
from stilnovo.model import kernels
from stilnovo.model.kernels import parity, remembered
from stilnovo.model.kernels.remembered import Parity

CARD = torch.device("cuda", 0)


class Machine:
    """A machine with a card: facts that can change, trials that are counted."""

    def __init__(self) -> None:
        self.facts = {"card": "NVIDIA GeForce RTX 4060", "driver": "13000", "torch": "2.11", "kernels": "a"}
        self.outcome = Parity(True, errors={"rms_norm": 0.001})
        self.trials = 0

    def tried(self, _: torch.device) -> Parity:
        self.trials += 1
        return self.outcome


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(kernels.SWITCH, raising=False)
    monkeypatch.setattr(remembered, "facts", lambda _: dict(made.facts))
    monkeypatch.setattr(remembered, "_outcome", made.tried)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "installed", lambda: True)
    return made


def asked() -> bool:
    """As a new process asks."""
    kernels._decided.cache_clear()
    try:
        return kernels.wanted(CARD)
    finally:
        kernels._decided.cache_clear()


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "kernels").glob("*"))


def test_a_card_is_tried_once(machine: Machine, tmp_path: Path) -> None:
    assert [asked() for _ in range(3)] == [True] * 3
    assert machine.trials == 1
    (file,) = files(tmp_path)
    stored = json.loads(file.read_text())
    assert stored["facts"] == machine.facts and stored["parity"]["errors"] == {"rms_norm": 0.001}


@pytest.mark.parametrize("fact", ["card", "driver", "torch", "kernels"])
def test_whatever_changes_it_is_tried_again(machine: Machine, fact: str, tmp_path: Path) -> None:
    asked()
    before, machine.facts[fact] = machine.facts[fact], "another"
    machine.outcome = Parity(False, "rms_norm is off by 3.")
    assert not asked() and machine.trials == 2
    machine.facts[fact] = before
    assert asked() and machine.trials == 2
    assert len(files(tmp_path)) == 2


def test_a_failure_is_said_once_and_remembered(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.outcome = Parity(False, "RuntimeError: Failed to find C compiler.")
    with caplog.at_level(logging.WARNING):
        assert [asked() for _ in range(3)] == [False] * 3
    assert machine.trials == 1
    (record,) = caplog.records
    assert "Failed to find C compiler" in record.getMessage() and "stilnovo doctor" in record.getMessage()
    machine.outcome = Parity(True)  # a compiler was installed; doctor asks anew
    assert remembered.trial(CARD).passed and asked() and machine.trials == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"parity": {}}', '{"parity": {"passed": "yes"}}', '{"parity": [1]}', "\x00\x00"]
)
def test_a_damaged_file_is_none(machine: Machine, damage: str, tmp_path: Path) -> None:
    asked()
    (file,) = files(tmp_path)
    file.write_text(damage)
    assert asked() and machine.trials == 2
    assert asked() and machine.trials == 2


def test_what_does_not_last_is_not_remembered(machine: Machine, tmp_path: Path) -> None:
    machine.outcome = Parity(False, "CUDA out of memory.", lasting=False)
    assert not asked() and not asked() and machine.trials == 2
    assert not files(tmp_path)


def test_a_cache_that_cannot_be_written_is_no_error(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert asked() and asked() and machine.trials == 2


def test_a_broken_triton_is_no_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: torch.device) -> dict[str, str]:
        raise ImportError("libtriton.so: undefined symbol")

    monkeypatch.setattr(remembered, "facts", broken)
    assert not asked() and machine.trials == 0
    assert "undefined symbol" in caplog.records[0].getMessage()
    machine.outcome = Parity(False, "ImportError: libtriton.so: undefined symbol.")
    assert not remembered.trial(CARD).passed


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True)])
def test_the_variable_asks_nobody(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv(kernels.SWITCH, value)
    assert asked() is expected and machine.trials == 0


def test_without_triton_or_a_card_there_is_no_trial(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "installed", lambda: False)
    assert not asked()
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not asked() and machine.trials == 0


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print('{\"rms_norm\": 0.001}')", Parity(True, errors={"rms_norm": 0.001})),
        ("print('hello')", Parity(False, "their trial ended without an answer.")),
        ("raise ValueError('rms_norm is off by 0.3')", Parity(False, "ValueError: rms_norm is off by 0.3.")),
        (
            "raise MemoryError('CUDA out of memory.')",
            Parity(False, "MemoryError: CUDA out of memory.", lasting=False),
        ),
        ("import os; os.abort()", Parity(False, "exit status -6.")),
        ("import time; time.sleep(60)", Parity(False, "their trial did not end within 0.5 seconds.")),
    ],
)  # fmt: skip
def test_how_the_trials_process_may_end(program: str, expected: Parity, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    genuine = subprocess.run

    def instead(command: list[str], **options: Any) -> Any:
        ran.append(command)
        return genuine([sys.executable, "-c", program], **options)

    monkeypatch.setattr(remembered, "PATIENCE", 0.5 if "sleep" in program else 300.0)
    monkeypatch.setattr(subprocess, "run", instead)
    assert remembered._outcome(torch.device("cuda", 3)) == expected
    assert ran == [[sys.executable, "-c", remembered.PROGRAM, "3"]]


def test_the_trials_process_finds_the_package_and_fails_plainly_where_there_is_no_card() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    found = remembered._outcome(torch.device("cuda", 0))
    assert not found.passed and found.lasting
    assert "CUDA" in found.reason or "cuda" in found.reason, found.reason


def test_errors_of_all_kinds_are_seen() -> None:
    right = torch.linspace(-1, 1, 4096).view(2, -1)
    assert parity.largest_error(right, right.double()) == 0
    one = right.clone()
    one[1, 77] += 0.5
    assert parity.largest_error(one, right) > 0.5
    for value in (float("nan"), float("inf")):
        other = right.clone()
        other[0, 3] = value
        assert parity.largest_error(other, right) == parity.largest_error(right, other) == float("inf")
        assert parity.largest_error(other, other) == 0
    assert parity.largest_error(torch.tensor([float("inf")]), torch.tensor([-float("inf")])) == float("inf")


def test_a_bad_switch_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.SWITCH, "on")
    with pytest.raises(InputError, match="STILNOVO_KERNELS is 'on'"):
        kernels.wanted(torch.device("cpu"))
    assert os.environ[kernels.SWITCH] == "on"
