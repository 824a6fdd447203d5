"""Runs the parts of a benchmark in child processes, each with its own limit, inside one budget of time.

Whatever a part does (hangs, is killed by a signal, runs out of memory, writes half a row), its rows up to there stand in the
file and the next part runs. Parts of one group share a process, because starting one takes seconds, as long as all goes
well; after a failure the rest get a fresh one, since a broken CUDA context would fail them too. A part that no longer fits
into the budget is left out by name.

Unusual: this side imports neither torch nor the project, so that it cannot fail with them. A child writes into a file of its
own; whole lines of it are copied to the results, each flushed to the disk as it comes.

Needs: stilnovo.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
START = 120.0  # seconds in which a child must begin its first part: torch is imported before
BETWEEN = 20.0  # seconds between two parts, or from the last to the child's end
PAUSE = 0.05
Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        stage: To which it belongs.
        name: Its own, unique in its stage.
        call: `module:function` of this folder: called with the job, yields rows.
        job: What the function needs, JSON.
        seconds: With less left of the budget it is not begun.
        limit: Seconds after which it is killed.
        python: The interpreter that runs it.
    """

    stage: str
    name: str
    call: str
    job: Row = field(default_factory=dict)
    seconds: float = 5.0
    limit: float = 60.0
    python: str = sys.executable


def whole_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; what is cut off or no row is left out."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def finite(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


class Journal:
    """The file of results: one JSON object a line, appended and flushed to the disk as it is measured."""

    def __init__(self, path: Path, started: float) -> None:
        self.path, self.started = path, started
        self.rows = whole_rows(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        if self.rows and not path.read_bytes().endswith(b"\n"):  # of a run that was cut off
            self._file.write(b"\n")

    def append(self, row: Row) -> Row:
        """Write one row, with the time since the start; returns it."""
        row = {**row, "at": round(time.monotonic() - self.started, 2)}
        self.rows.append(row)
        self._file.write(json.dumps(finite(row), allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        return row

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def ended(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The last end of each part, by stage and name."""
    return {(row["stage"], row["part"]): row for row in rows if row.get("ended")}


@dataclass(frozen=True)
class _Child:
    """A child process, at work or waiting."""

    process: subprocess.Popen[bytes]
    folder: Path
    python: str


class Runner:
    """Runs groups of parts until the budget is over.

    Args:
        journal: Where rows go.
        deadline: On the monotonic clock.
        folder: For the children's own files.
        tell: Told of every row.
        modules: What a child imports while it waits for its first part.
        ahead: Whether the next child is started, and imports, while one is at work: seconds saved where cores are free.
    """

    def __init__(
        self, journal: Journal, deadline: float, folder: Path, tell: Callable[[Row], None], modules: Sequence[str] = (), *,
        ahead: bool = False,
    ) -> None:  # fmt: skip
        self.journal, self.deadline, self.folder, self.tell = journal, deadline, folder, tell
        self._modules, self._ahead = modules, ahead
        self._spare: _Child | None = None
        self._children, self._until = 0, deadline
        self._process: subprocess.Popen[bytes] | None = None
        before = ended(journal.rows)
        self._over = {key for key, row in before.items() if row["outcome"] == "ok"}
        self._attempt = {key: row.get("attempt", 1) + 1 for key, row in before.items()}

    def run(self, parts: Sequence[Part], until: float | None = None) -> None:
        """Run the parts of one group, none beyond `until`; those that an earlier run has finished are passed over."""
        self._until = min(self.deadline, until or self.deadline)
        waiting = [part for part in parts if (part.stage, part.name) not in self._over]
        while waiting:
            if self.left() < waiting[0].seconds:
                self._end(waiting.pop(0), "left out", "no time")
                continue
            count = next((i for i, part in enumerate(waiting) if part.python != waiting[0].python), len(waiting))
            done = self._child(waiting[:count])
            waiting = waiting[done:]

    def again(self, stage: str) -> None:
        """Do a stage again, whatever an earlier run has finished of it."""
        self._over = {key for key in self._over if key[0] != stage}

    def left(self) -> float:
        """Seconds that are left, of the budget or of the stage."""
        return self._until - time.monotonic()

    def stop(self) -> None:
        """Kill the child that is at work, and the one that waits."""
        for process in (self._process, self._spare.process if self._spare else None):
            if process is not None:
                _kill(process)

    def write(self, part: Part, row: Row) -> None:
        """Write a row of a part."""
        attempt = self._attempt.get((part.stage, part.name), 1)
        whole = {"stage": part.stage, "part": part.name, **({"attempt": attempt} if attempt > 1 else {}), **row}
        self.tell(self.journal.append(whole))

    def _end(self, part: Part, outcome: str, note: str = "", **more: Any) -> None:
        self.write(part, {"ended": True, "outcome": outcome, "note": note, **more})

    def _child(self, parts: Sequence[Part]) -> int:
        """Run parts in one process; how many of them are over."""
        try:
            child = self._started(parts[0].python)
        except OSError as error:
            self._end(parts[0], "failed", f"{parts[0].python}: {error}")
            return 1
        self._process, out = child.process, child.folder / "rows.jsonl"
        out.touch()
        job = {"parts": [vars(part) for part in parts], "until": self._until, "out": str(out)}
        (child.folder / "job.json").write_text(json.dumps(job))
        with contextlib.suppress(OSError), child.process.stdin as stdin:  # type: ignore[union-attr]
            stdin.write(b"go\n")  # one that has died already is seen below
        if self._ahead:
            self._spare = self._start(parts[0].python)
        try:
            with out.open("rb") as file:
                return self._follow(child.process, parts, file, child.folder / "log.txt")
        finally:
            _kill(child.process)
            self._process = None

    def _started(self, python: str) -> _Child:
        """The spare child if it is of this Python, else a new one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.python == python and spare.process.poll() is None:
            return spare
        if spare is not None:
            _kill(spare.process)
        return self._start(python)

    def _start(self, python: str) -> _Child:
        """Start a child that imports what all parts need and waits for its job."""
        self._children += 1
        folder = self.folder / f"child-{self._children}"
        folder.mkdir()
        command = [python, str(HERE / "gpu_child.py"), str(folder / "job.json"), str(os.getpid()), *self._modules]
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment(),
                start_new_session=True,
            )
        return _Child(process, folder, python)

    def _follow(self, process: subprocess.Popen[bytes], parts: Sequence[Part], file: BinaryIO, log: Path) -> int:
        """Copy a child's rows until it ends or exceeds a limit; how many parts are over."""
        over, began = 0, None
        bound = time.monotonic() + START
        for event in _events(process, file):
            if not event and time.monotonic() > min(bound, self._until):
                break
            if "begin" in event:
                began = time.monotonic()
                bound = began + parts[over].limit
            elif "row" in event:
                self.write(parts[over], {"outcome": "ok", **event["row"]})
            elif "end" in event:
                self._end(parts[over], **event["end"])
                over, began, bound = over + 1, None, time.monotonic() + BETWEEN
        late = process.poll() is None
        _kill(process)
        if began is None and over:
            return over  # all, or the child left because one of them failed, or because there is no time for the next
        part, outcome = parts[over], "killed" if late else "crashed"
        if began is None and process.returncode == 0:
            outcome, note = "left out", "no time"
        elif late:
            limit = START if began is None else part.limit
            note = f"killed after {limit:g} s" if self.left() > 0 else "killed: the time was over"
        else:
            note = f"{_ending(process.returncode)}: {last_line(log)}"
        if began is None and outcome != "left out":
            note = f"did not start: {note}"
        taken = 0.0 if began is None else time.monotonic() - began
        self._end(part, outcome, note + (_place(log) if late else ""), seconds=round(taken, 2), log=_tail(log))
        return over + 1


def environment() -> dict[str, str]:
    """A child's environment: this checkout's code by absolute paths, no network, no progress bars."""
    given = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "src"), *given]), "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "passive",
    }  # fmt: skip


def _events(process: subprocess.Popen[bytes], file: BinaryIO) -> Iterator[Row]:
    """What a child writes, until it ends, and `{}` at every look; half a line is nothing."""
    rest = b""
    while True:
        over = process.poll() is not None  # asked first: what was written before the end is still read
        *lines, rest = (rest + file.read()).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event
        if over:
            return
        yield {}
        time.sleep(PAUSE)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and all that it started; one that cannot be killed (in the driver) is left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _ending(status: int | None) -> str:
    if status is None:
        return "cannot be killed"
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _tail(log: Path, size: int = 1500) -> str:
    return log.read_bytes()[-size:].decode(errors="replace")


def last_line(log: Path) -> str:
    """The line of a log that says what went wrong: the last that names an error, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt|Fatal)\b", line)]
    return (named or lines or ["no output"])[-1][:300]


def _place(log: Path) -> str:
    """Where a child hung, by the trace that it wrote before its limit: the innermost call of its main thread."""
    threads = re.split(
        r"^.*most recent call first.*$", log.read_text(errors="replace").rpartition("Timeout (")[2], flags=re.M
    )
    for thread in threads:
        found = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', thread)
        if any(name == "main" for _, _, name in found):
            return f" in {Path(found[0][0]).name}:{found[0][1]} {found[0][2]}"
    return ""
