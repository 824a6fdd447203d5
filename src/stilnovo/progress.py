"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

Unusual: where nothing is reported for a while, the last line is repeated with the time that has gone by, so that a slow
step shows that it lives.
"""

from __future__ import annotations

import sys
import threading
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


def counted(count: int, noun: str) -> str:
    """Format a number of things: "1 item", "1,200 items"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def rate_text(rate: float) -> str:
    """Format a number of things a second: `1,240`, `3.4`, `0.052`; never a rounded 0."""
    if rate >= 10 or rate <= 0:
        return f"{rate:,.0f}"
    return f"{rate:.2g}" if rate >= 0.001 else f"{rate:.1e}"


class Progress:
    """Progress bar: `with Progress("train", total) as progress: progress.update(done, "loss 2.31")`.

    `begun` is what was done before, whose time does not count in the forecast.
    """

    def __init__(self, label: str, total: float, begun: float = 0.0) -> None:
        self.label, self.total, self.begun = label, total, begun
        self._started = self._printed = time.monotonic()
        self._bar: Any = None
        self._last: tuple[float, str] = (begun, "")
        self._ended, self._printing = threading.Event(), threading.Lock()
        self._signs: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.begun, facts="")
        else:
            self._signs = threading.Thread(target=self._show_life, daemon=True)
            self._signs.start()
        return self

    def update(self, done: float, facts: str = "") -> None:
        """Report how much is done, with a short text; cheap to call often."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts)
            return
        self._last = done, facts
        if time.monotonic() - self._printed >= _LINE_SECONDS or done >= self.total:
            self._print()

    def _print(self) -> None:
        with self._printing:
            (done, facts), now = self._last, time.monotonic()
            self._printed = now
            elapsed, new = now - self._started, done - self.begun
            left = f", {seconds_text(elapsed / new * (self.total - done))} left" if new > 0 else ""
            share = done / self.total if self.total else 1
            print(
                f"{self.label}: {share:.0%} {facts} ({seconds_text(elapsed)} gone{left})", file=sys.stderr, flush=True
            )

    def _show_life(self) -> None:
        while not self._ended.wait(_LINE_SECONDS / 2):
            if time.monotonic() - self._printed >= _LINE_SECONDS:
                self._print()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._signs is not None:
            self._signs.join()
        if self._bar is not None:
            self._bar.stop()
