"""Progress away from a terminal, and durations and sizes as people read them."""

from __future__ import annotations

import pytest

from stilnovo import progress
from stilnovo.progress import Progress, bytes_text, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (8.4, "8s"), (59.7, "1m 00s"), (200, "3m 20s"), (3599.6, "1h 00m"), (7500, "2h 05m")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98.3 * 2**20, "98.3 MiB"),
        (8 * 2**30, "8.00 GiB"),
        (3 * 2**40, "3072.00 GiB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_lines_on_stderr_and_not_too_many(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("train", 100) as shown:
        for done in range(1, 101):
            clock[0] += 1
            shown.update(done, f"loss {done}")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "train: 10% loss 10 (10s gone, 1m 30s left)"
    assert lines[-1] == "train: 100% loss 100 (1m 40s gone, 0s left)"


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("score", 0) as shown:
        shown.update(0)
    assert capsys.readouterr().err.startswith("score: 100%")
