"""List runs: what every run folder under a folder says of itself, read from its files alone.

A damaged file spoils nothing but its own figures, and is named. Whether a training still runs is known from the lock on
its folder: one that was ended by force is told as interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from stilnovo.errors import InputError
from stilnovo.folderlock import is_held
from stilnovo.report.numbers import MISSING, decimal, drawable, duration
from stilnovo.report.page import text_table
from stilnovo.report.training import STATUS, learns_pairs
from stilnovo.scoring.result import FILE_NAME as EVALUATION

_DEPTH = 3  # folders below the one that is listed
_INSIDE = ("checkpoints", "adapter", "tensorboard", "wandb", "mlruns")  # of a run, and never runs themselves


@dataclass
class RunSummary:
    """What is known of one run; what its files do not say is None, and `damaged` names the files that cannot be read.

    Attributes:
        kind: `training` or `evaluation`.
        status: running, interrupted, finished, stopped early, failed, or unknown.
        objective: What a training learnt by; losses of `dpo` are per pair, others per loss token.
        held_out_loss: The lowest, reached at `held_out_step`.
        data: Names of the training data, or of what was evaluated.
        seconds: Time in training steps, or of an evaluation.
    """

    path: str
    kind: str
    status: str = "unknown"
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    held_out_loss: float | None = None
    held_out_step: int | None = None
    model: str = ""
    objective: str = ""
    data: list[str] = field(default_factory=list)
    date: str = ""
    seconds: float | None = None
    damaged: list[str] = field(default_factory=list)


def find_runs(folder: Path) -> list[RunSummary]:
    """Find the runs in a folder and up to three folders below it, the newest first.

    Raises:
        InputError: when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", next="Name the folder of your runs: stilnovo runs DIR")
    found = [_summary(path, files) for path, files in _walk(folder)]
    runs = [run for run in found if run is not None]
    return sorted(runs, key=lambda run: (run.date, run.path), reverse=True)


def runs_text(runs: Sequence[RunSummary]) -> Iterator[str | Table]:
    """Render the list for the terminal."""
    if runs:
        pairs = {learns_pairs({"train": {"task": run.objective}}) for run in runs if run.kind == "training"}
        per = {frozenset({True}): "pair", frozenset({True, False}): "loss token, of dpo per pair"}
        yield text_table(
            f"Losses are nats per {per.get(frozenset(pairs), 'loss token')}; of the held-out loss the lowest, with its step.",
            ("run", "status", "step", "loss", "held-out loss", "objective", "model", "data", "date", "time"),
            [_cells(run) for run in runs],
            left=("status", "objective", "model", "data", "date"),
        )
    for run in runs:
        if run.damaged:
            yield f"{run.path}: damaged and not read: {', '.join(run.damaged)}"


def _cells(run: RunSummary) -> tuple[str, ...]:
    step = MISSING if run.step is None else f"{run.step:,}" + (f"/{run.steps:,}" if run.steps else "")
    best = "" if run.held_out_step is None else f" ({run.held_out_step:,})"
    data = ", ".join(Path(name).name for name in run.data[:3]) + (" …" if len(run.data) > 3 else "")
    return (
        run.path, run.status if run.kind == "training" else f"{run.kind}, {run.status}", step, decimal(run.loss),
        decimal(run.held_out_loss) + best, run.objective, Path(run.model).name, data, run.date[:16].replace("T", " "),
        duration(run.seconds),
    )  # fmt: skip


def _walk(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield folders with the names of their files, those of a run's own parts left out."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        deep = len(here.relative_to(folder).parts) >= _DEPTH
        folders[:] = sorted(
            inner for inner in folders if not deep and inner not in _INSIDE and not inner.startswith(".")
        )
        yield here, set(files)


def _summary(path: Path, files: set[str]) -> RunSummary | None:
    """Summarise a folder; None where it is no run."""
    if "recipe.yaml" in files or "metrics.jsonl" in files:
        return _training(path)
    return _evaluation(path) if EVALUATION in files else None


def _training(path: Path) -> RunSummary:
    run = RunSummary(str(path), "training")
    manifest, train, status = (_read(path / name, run) for name in ("manifest.json", "train.json", STATUS))
    rows, recipe = _metrics(path / "metrics.jsonl", run), _section(manifest, "recipe")
    run.model, run.date = _words(_section(recipe, "model").get("name")), _words(manifest.get("date"))
    run.objective = _words(_section(recipe, "train").get("task"))
    paths = _section(recipe, "data").get("paths")
    run.data = [str(name) for name in paths] if isinstance(paths, list) else []
    guard = _section(train, "guard")
    planned = _whole(manifest.get("steps"), guard.get("planned_steps"), train.get("steps"))
    run.step, run.steps = (_whole(rows[-1].get("step")) if rows else 0), planned
    if rows:
        run.loss, run.seconds = _number(rows[-1].get("loss")), _number(rows[-1].get("seconds"))
    evaluated = [
        (loss, _whole(row.get("step"))) for row in rows if (loss := _number(row.get("held_out_loss"))) is not None
    ]
    if evaluated:
        run.held_out_loss, run.held_out_step = min(evaluated, key=lambda pair: pair[0])
    run.status = _status(status, path) or (
        "stopped early" if guard.get("ended") else "finished" if train else "interrupted"
    )
    return run


def _evaluation(path: Path) -> RunSummary:
    run = RunSummary(str(path), "evaluation")
    result = _read(path / EVALUATION, run)
    tasks = _section(result, "tasks")
    run.model, run.date = _words(result.get("model")), _words(_section(result, "environment").get("date"))
    run.data = [*tasks, *([_words(result.get("text_name")) or "text"] if result.get("text") else [])]
    seconds = [_number(_section(tasks, name).get("seconds")) for name in tasks]
    run.seconds = sum(value for value in seconds if value is not None) if seconds else None
    run.status = "finished" if result else "unknown"
    return run


def _status(noted: dict[str, Any], path: Path) -> str:
    """The status that the run's own file tells, corrected where nobody works in its folder; empty where it tells none."""
    status = _words(noted.get("status"))
    return "interrupted" if status == "running" and is_held(path) is False else status


def _read(path: Path, run: RunSummary) -> dict[str, Any]:
    """Read a JSON object; empty where there is none, and named where it is damaged."""
    if not path.exists():
        return {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if isinstance(found := json.loads(path.read_text(encoding="utf-8")), dict):
            return found
    run.damaged.append(path.name)
    return {}


def _metrics(path: Path, run: RunSummary) -> list[dict[str, Any]]:
    """Read the rows of a metrics file; a cut last line belongs to a kill and is no damage."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError:
        lines, run.damaged = [], [*run.damaged, path.name]
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines) and path.name not in run.damaged:
            run.damaged.append(path.name)
    return rows


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _words(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and drawable(value) else None


def _whole(*values: object) -> int | None:
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)
