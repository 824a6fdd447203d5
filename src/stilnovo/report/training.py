"""The page of a training, `report.html` in its run folder, and the observer that renews it while the training goes on.

Everything but the plan comes from the run folder's files, so that a resumed run's page shows the whole run. Unusual: a
page that took t seconds is renewed at the earliest 100·t later, whatever the recipe's checkpoints, so that pages take
less than a hundredth of the time; at the end it is always written.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stilnovo.plan.ledger import MemoryItem
from stilnovo.report.charts import evenly, loss_values, smooth, smoothing_span, step_chart
from stilnovo.report.numbers import byte_size, decimal, drawable, duration, per_second, percent, rate
from stilnovo.report.page import Section, both_widths, compose
from stilnovo.report.result_tables import course_tables
from stilnovo.runlog import RunFolder, write_atomic
from stilnovo.train.held_out import is_evaluation
from stilnovo.train.observers import ObservedRun, Observer
from stilnovo.train.outcome import STEP_METRICS

FILE = "report.html"
STATUS = "status.json"
_COURSE_NOTE = (
    "Learning rate, gradient norm before clipping, loss tokens per second, and what the loss reports beside itself."
)
_PATIENCE = 100  # a renewal waits at least so many times as long as the last one took
_EVALUATIONS, _SAMPLES, _PROMPTS, _LETTERS, _REMARKS, _OWN = 24, 8, 20, 1500, 50, 6
_COURSE = 100  # steps of a table that is downloaded; all are in metrics.jsonl


class TrainingReport(Observer):
    """Writes `report.html` and `status.json` at the beginning, at checkpoints and at the end."""

    def begin(self, run: ObservedRun) -> None:
        """See `Observer.begin`."""
        self._run = run
        self._ended = -float("inf")
        self._seconds = 0.0
        self._write("running")

    def checkpoint(self, step: int) -> None:
        """See `Observer.checkpoint`."""
        if time.monotonic() - self._ended >= _PATIENCE * self._seconds:
            self._write("running")

    def end(self, run: ObservedRun, status: str) -> None:
        """See `Observer.end`; a failure is on the page with its message."""
        error = sys.exception() if status == "failed" else None
        self._write(status, "" if error is None else str(error) or type(error).__name__)

    def _write(self, status: str, why: str = "") -> None:
        started = time.monotonic()
        folder, plan = self._run.folder, self._run.plan
        folder.write_json(STATUS, {"status": status, "why": why})
        record = read_training(folder, plan.ledger.items if plan else (), plan.peak if plan else None)
        record.status, record.why = status, why
        write_atomic(folder.path / FILE, training_page(record))
        self._ended = time.monotonic()
        self._seconds = self._ended - started


@dataclass
class TrainingRecord:
    """What a run folder holds of its training, and what was planned for it.

    Attributes:
        manifest: `manifest.json`: recipe, environment, data summary.
        metrics: Rows of `metrics.jsonl`, one a step.
        guard: Rows of `guard.jsonl`.
        train: `train.json`; empty until the training has ended.
        memory: The ledger, with what was measured where that is known.
        status: running, interrupted, finished, stopped early or failed; `why` is a failure's message.
        predicted: The plan's peak in bytes.
    """

    folder: Path
    manifest: dict[str, Any]
    metrics: list[dict[str, Any]]
    guard: list[dict[str, Any]] = field(default_factory=list)
    train: dict[str, Any] = field(default_factory=dict)
    memory: list[MemoryItem] = field(default_factory=list)
    status: str = "running"
    why: str = ""
    predicted: int | None = None

    @property
    def step(self) -> int:
        """Steps made."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory as measured."""
        return max((row["memory_bytes"] for row in self.metrics if "memory_bytes" in row), default=None)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Rows in which the held-out loss was measured."""
        return [row for row in self.metrics if drawable(row.get("held_out_loss"))]


def read_training(
    folder: RunFolder, planned: Sequence[MemoryItem] = (), predicted: int | None = None
) -> TrainingRecord:
    """Read a run folder; `planned` is the ledger to show until memory was measured."""

    def read(name: str) -> dict[str, Any]:
        path = folder.path / name
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found if isinstance(found, dict) else {}

    train, guard = read("train.json"), folder.path / "guard.jsonl"
    memory = [
        MemoryItem(line["item"], "card", line["predicted"], line["note"], line["measured"])
        for line in train.get("memory", [])
    ]
    return TrainingRecord(
        folder.path, read("manifest.json"), folder.metrics(), train=train, memory=memory or list(planned), predicted=predicted,
        guard=[json.loads(line) for line in guard.read_text(encoding="utf-8").splitlines()] if guard.is_file() else [],
    )  # fmt: skip


def training_page(record: TrainingRecord) -> str:
    """Render the page of a training; its size does not grow with the number of steps."""
    manifest, metrics = record.manifest, record.metrics
    recipe = manifest.get("recipe", {})
    samples = _samples(metrics)
    sections: list[Section] = [
        ("glance", "At a glance", "", True),
        ("standing", "How to go on", "", record.status in ("running", "interrupted", "failed")),
        ("loss", "The loss", "Training loss, step by step, and the loss on held-out rows where it was evaluated.", bool(metrics)),
        ("evaluations", "Held-out loss", "Lower is better. These rows are never trained on.", bool(record.evaluations)),
        ("generations", "Samples", "The same prompts, answered at each evaluation.", bool(samples)),
        ("guard", "The guard", "What the guard against forgetting found.", bool(record.guard)),
        ("course", "Rate, norm and speed", _COURSE_NOTE, len(metrics) > 1),
        ("outcome", "At the end", "What was measured when the training had ended.", bool(_outcome(record.train))),
        ("memory", "Memory, line by line", "Outlined bars: predicted. Filled bars: measured.", bool(record.memory)),
        ("data", "The data", "What was read, and what was said of it.", True),
    ]  # fmt: skip
    return compose(
        f"Training of {_model(recipe)}", _headline(record), manifest, manifest.get("command", []), sections,
        tables=course_tables(evenly(metrics, _COURSE), evenly(record.evaluations, _COURSE), f"a training of {_model(recipe)}", manifest),
        prose="training", recipe=_yaml(recipe), facts=_facts(record), tiles=_tiles(record), record=record,
        result=record, run=record.folder, resume=f"stilnovo train --resume --out {shlex.quote(str(record.folder))}",
        evaluations=evenly(record.evaluations, _EVALUATIONS), samples=samples, guard=evenly(record.guard, _EVALUATIONS),
        courses=[
            both_widths(step_chart, metrics, name, caption, key=name.replace(" ", "-"), format=shown)
            for name, caption, shown in _courses(metrics)
        ],
        peak_memory=record.peak_memory_bytes,
        memory_most=max((max(item.size, item.measured or 0) for item in record.memory), default=0),
        outcome=_outcome(record.train), preferences=learns_pairs(recipe),
        data=_data(manifest, recipe), remarks=_remarks(manifest), trained=_trained(recipe),
        **loss_values(metrics, "nats per pair" if learns_pairs(recipe) else "nats per token"),
    )  # fmt: skip


def _model(recipe: Mapping[str, Any]) -> str:
    return str(recipe.get("model", {}).get("name", "a model"))


def _trained(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of the recipe that the prose speaks of, whatever version wrote them."""
    return {"model": {"adapter": None, **recipe.get("model", {})}, "lora": recipe.get("lora", {})}


def _headline(record: TrainingRecord) -> str:
    planned = record.manifest.get("steps")
    steps = f"{record.step:,} of {planned:,} steps" if planned else f"{record.step:,} steps"
    parts = [f"{record.status.capitalize()} after {steps}" if record.status != "running" else f"Running: {steps}"]
    if losses := [row["loss"] for row in record.metrics if drawable(row.get("loss"))]:
        means = smooth(losses, smoothing_span(len(losses)))
        parts.append(f"training loss {decimal(means[0])} → {decimal(means[-1])}")
    if evaluations := record.evaluations:
        best = min(evaluations, key=lambda row: row["held_out_loss"])
        base = next((row["base_held_out_loss"] for row in evaluations if drawable(row.get("base_held_out_loss"))), None)
        beside = f", the base's {decimal(base)}" if base is not None else ""
        parts.append(f"lowest held-out loss {decimal(best['held_out_loss'])} at step {best['step']:,}{beside}")
    return "; ".join(parts) + "."


def _tiles(record: TrainingRecord) -> list[tuple[str, str, str, str, str]]:
    manifest, metrics, recipe = record.manifest, record.metrics, record.manifest.get("recipe", {})
    model, last = recipe.get("model", {}), metrics[-1] if metrics else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    planned = manifest.get("steps")
    tiles = [
        ("Model", f"{_model(recipe)} · {model.get('quantization', '')}", f"objective {recipe.get('train', {}).get('task', '')}", "", ""),
        ("Status", record.status, f"as of {now}", "", ""),
        ("Step", f"{record.step:,}", f"of {planned:,}" if planned else "", "", ""),
    ]  # fmt: skip
    if metrics:
        tiles.append(
            ("Training loss", decimal(last.get("loss")), "of the last step", decimal(metrics[0].get("loss")), "")
        )
    if evaluations := record.evaluations:
        row = evaluations[-1]
        base = row.get("base_held_out_loss", evaluations[0].get("base_held_out_loss"))
        tiles.append(
            ("Held-out loss", decimal(row["held_out_loss"]), f"at step {row['step']:,}; before: the base's" if drawable(base) else "",
             decimal(base) if drawable(base) else "", "")
        )  # fmt: skip
    trainable, total = manifest.get("trainable_parameters"), manifest.get("total_parameters")
    if trainable and total:
        tiles.append(
            ("Trainable parameters", f"{trainable:,}", f"{percent(trainable / total, 2)} of {total:,}", "", "")
        )
    if metrics:
        speeds = sorted(row["tokens_per_second"] for row in metrics if drawable(row.get("tokens_per_second")))
        speed, peak = speeds[len(speeds) // 2] if speeds else None, record.peak_memory_bytes
        predicted = f"predicted: {byte_size(record.predicted)}" if record.predicted else ""
        tiles += [
            ("Training speed", per_second(speed), "tokens per second, median of the steps", "", ""),
            ("Peak memory", byte_size(peak), predicted, "", f"{peak:,} bytes" if peak else ""),
            ("Time in steps", duration(last.get("seconds")), f"{last.get('tokens', 0):,} tokens", "", ""),
        ]  # fmt: skip
    return tiles


def learns_pairs(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe, as plain data, learns pairs: their loss is per pair."""
    return bool(recipe.get("train", {}).get("task") == "dpo")


def _courses(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Callable[[float], str]]]:
    """Choose the figures to draw over the steps: those of every step, then what this loss reports beside itself."""
    last = metrics[-1] if metrics else {}
    own = [
        name
        for name, value in last.items()
        if isinstance(value, int | float)
        and name not in STEP_METRICS
        and not is_evaluation(name)
        and not isinstance(value, bool)
    ]
    return [
        ("learning_rate", "learning rate", rate),
        ("gradient_norm", "gradient norm", decimal),
        ("tokens_per_second", "tokens per second", per_second),
        *((name, name.replace("_", " "), decimal) for name in own[:_OWN]),
    ]


def _outcome(train: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `train.json` says beyond the steps: held-out figures, and why a training stopped and which adapter it kept."""
    rows = [
        (f"held-out {name.replace('_', ' ')}", f"{value:,}" if isinstance(value, int) else decimal(value, 4))
        for name, value in (train.get("held_out") or {}).items()
        if isinstance(value, int | float)
    ]
    for name, stop in train.items():
        if isinstance(stop, dict) and "adapter_step" in stop:
            rows += [(f"{name}: adapter of step", f"{stop['adapter_step']:,}")]
            rows += [(f"{name}: why", str(stop["why"]))] * bool(stop.get("why"))
    return rows


def _samples(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collect the answers by prompt, at most `_SAMPLES` steps evenly apart: prompt and (step, answer) pairs."""
    answers: dict[str, list[tuple[int, str]]] = {}
    for row in evenly([row for row in metrics if row.get("samples")], _SAMPLES):
        for sample in row["samples"]:
            answers.setdefault(sample["prompt"], []).append((row["step"], _cut(sample["answer"])))
    return [{"prompt": _cut(prompt), "answers": told} for prompt, told in list(answers.items())[:_PROMPTS]]


def _data(manifest: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = recipe.get("data", {})
    counts = (
        ("documents that are learnt", "documents"), ("tokens of one epoch", "tokens_per_epoch"), ("packs", "packs"),
        ("held-out rows", "held_out_documents"),
    )  # fmt: skip
    paths, rehearsal = data.get("paths", []), data.get("rehearsal", [])
    rows = [("data", _names(paths)), *([("rehearsal", _names(rehearsal))] if rehearsal else [])]
    return rows + [(what, f"{manifest[name]:,}") for what, name in counts if isinstance(manifest.get(name), int)]


def _names(paths: Sequence[str]) -> str:
    beyond = len(paths) - 10
    return ", ".join(paths[:10]) + (f" and {beyond:,} more" if beyond > 0 else "")


def _remarks(manifest: Mapping[str, Any]) -> list[str]:
    remarks = [_cut(line) for line in manifest.get("remarks", [])]
    beyond = len(remarks) - _REMARKS
    return remarks[:_REMARKS] + ([f"… and {beyond:,} more lines."] if beyond > 0 else [])


def _facts(record: TrainingRecord) -> list[tuple[str, str]]:
    manifest, recipe = record.manifest, record.manifest.get("recipe", {})
    facts = [
        ("run", str(record.folder)), ("adapter", str(record.folder / "adapter")), ("data sha256", manifest.get("data_sha256")),
        ("seed", recipe.get("train", {}).get("seed")),
        ("the same again", f"stilnovo train --recipe {shlex.quote(str(record.folder / 'recipe.yaml'))} --out AGAIN"),
    ]  # fmt: skip
    return [(what, str(value)) for what, value in facts if value is not None]


def _yaml(recipe: Mapping[str, Any]) -> str:
    import yaml

    lines = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True).splitlines() if recipe else []
    return "\n".join(_cut(line) for line in (lines[:400] + ["# … the rest is in recipe.yaml"] * (len(lines) > 400)))


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else text[:_LETTERS] + " …"
