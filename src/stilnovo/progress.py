"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_SECONDS = 10.0


def seconds_text(seconds: float) -> str:
    """Format a duration: `8s`, `3m 20s`, `2h 05m`."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60:02d}s"
    return f"{total // 3600}h {total % 3600 // 60:02d}m"


def bytes_text(count: float) -> str:
    """Format a size in binary units: `98.3 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


class Progress:
    """Progress bar: `with Progress("train", total) as progress: progress.update(done, "loss 2.31")`."""

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total = label, total
        self._started = self._printed = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, facts="")
        return self

    def update(self, done: float, facts: str = "") -> None:
        """Report how much is done, with a short text; cheap to call often."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts)
            return
        now = time.monotonic()
        if now - self._printed < _LINE_SECONDS and done < self.total:
            return
        self._printed = now
        elapsed = now - self._started
        left = elapsed / done * (self.total - done) if done else 0.0
        print(
            f"{self.label}: {done / self.total if self.total else 1:.0%} {facts} ({seconds_text(elapsed)} gone, {seconds_text(left)} left)",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
