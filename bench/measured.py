"""Run a command and measure it: processor seconds, most memory, its output and the JSON of its last line.

Memory is that of the process itself as /proc says it (Linux): resident, which includes the pages of files that it maps and the
system may take back, and anonymous, which it may not. Both are the most that was seen in 20 looks a second; the first is the kernel's
own high-water mark, so that no peak is missed but the last twentieth of a second's. Processor seconds are the kernel's account of
the process and of those that it waited for.

Needs: stilnovo.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOK = 0.05


@dataclass(frozen=True)
class Measured:
    """What a command did.

    Attributes:
        code: Its exit code; negative where it was killed.
        cpu_seconds: Of the process and its children.
        seconds: On the wall.
        resident_bytes: The most that was resident.
        anonymous_bytes: The most that was its own.
        output: What it printed.
        errors: What it said on stderr.
    """

    code: int
    cpu_seconds: float
    seconds: float
    resident_bytes: int
    anonymous_bytes: int
    output: str
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON of the last line printed; empty where it is none."""
        try:
            found = json.loads(self.output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return {}
        return found if isinstance(found, dict) else {}


def stilnovo(*arguments: str, **more: Any) -> Measured:
    """Run a command of this project in a process of its own; see `measure`."""
    return measure([sys.executable, "-m", "stilnovo.cli.main", *arguments], **more)


def measure(
    command: Sequence[str], *, typed: str = "", environment: Mapping[str, str] | None = None, folder: Path | None = None,
    kill_when: Callable[[], bool] | None = None,
) -> Measured:  # fmt: skip
    """Run a command to its end, or until `kill_when` says so, which is asked at every look.

    Args:
        command: What to run.
        typed: What it reads from stdin.
        environment: Variables beside those of this process.
        folder: Where it runs.
        kill_when: When to kill it (SIGKILL).
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(typed)
        given.seek(0)
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=given, stdout=out, stderr=err, cwd=folder, env={**os.environ, **(environment or {})}
        )
        peaks = {"VmHWM": 0, "RssAnon": 0}
        while True:
            peaks = _larger(peaks, process.pid)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            if kill_when is not None and kill_when():
                process.send_signal(signal.SIGKILL)
                kill_when = None
            time.sleep(LOOK)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return Measured(
        process.returncode, usage.ru_utime + usage.ru_stime, time.perf_counter() - started, peaks["VmHWM"],
        peaks["RssAnon"], *texts,
    )  # fmt: skip


def _larger(peaks: dict[str, int], pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return peaks
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(tuple(peaks))}
    return {key: max(peak, 1024 * int(found.get(key, 0))) for key, peak in peaks.items()}
