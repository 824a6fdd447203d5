"""Kill a process at each of its steps on a library file: statements of SQL, copies, renamed files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Killed(sqlite3.Connection):
    """A connection whose process is killed before its nth statement or copy."""

    left = 0

    @classmethod
    def step(cls) -> None:
        cls.left -= 1
        if cls.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self.step()
        return super().execute(*arguments)

    def backup(self, target: sqlite3.Connection, **more: Any) -> None:
        def progress(*counts: int) -> None:
            self.step()
            more["progress"](*counts)

        super().backup(target, pages=12, progress=progress)


def die_after(steps: int) -> None:
    """From now on every step counts; the process is killed before the one after so many."""
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Killed)  # type: ignore[assignment, misc]
    for name in ("link", "fsync", "unlink"):
        call: Callable[..., Any] = getattr(os, name)
        setattr(os, name, lambda *a, _call=call, **k: (Killed.step(), _call(*a, **k)))
    Killed.left = steps


def forked(work: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a process of its own; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode or 0


def killed_at_every_step(
    folder: Path, make: Callable[[Path], None], work: Callable[[Path], None], stride: int = 1
) -> Iterator[Path]:
    """A file made by `make` after `work` was killed on it at its first step, at its second, and so on to the end."""

    def run(path: Path, steps: int) -> None:
        die_after(steps)
        work(path)

    for steps in range(0, 3000, stride):
        path = folder / str(steps) / "libri.sqlite"
        path.parent.mkdir()
        make(path)
        code = forked(run, path, steps)
        yield path
        if code == 0:
            assert steps > 20
            return
        assert code == -signal.SIGKILL
    raise AssertionError("it never ended")
