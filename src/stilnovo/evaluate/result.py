"""What an evaluation leaves behind: typed in memory, one JSON file on disk, with everything needed to repeat it.

The answer to every item is kept (its id, never its text: some benchmarks may not be passed on), because two runs can
only be compared item by item. A hash of the items says whether they were the same questions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.evaluate.perplexity import HeldOutScore
from stilnovo.evaluate.scoring import ItemScore
from stilnovo.evaluate.statistics import Estimate, mean, smallest_visible_difference
from stilnovo.evaluate.task import Metric, cluster_names
from stilnovo.runlog import write_atomic

FILE_NAME = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True)
class TaskResult:
    """One task's answers: `n` of `available` items were asked in `seconds`; `chance` is what guessing scores."""

    name: str
    version: str
    source: str
    licence: str
    metric: Metric
    split: str
    n: int
    available: int
    seed: int
    items_sha256: str
    chance: float
    truncated: int
    seconds: float
    items: tuple[ItemScore, ...]

    @property
    def clusters(self) -> list[str] | None:
        """A cluster name for each item, or None where all stand alone."""
        return cluster_names(self.items)

    def right(self, metric: Metric) -> list[bool]:
        """Which items were answered rightly under a metric, (N,)."""
        return [item.correct_norm if metric == "acc_norm" else item.correct for item in self.items]

    def accuracy(self, metric: Metric | None = None) -> Estimate:
        """Accuracy with its interval; the task's own metric by default."""
        return mean(self.right(metric or self.metric), self.clusters)


@dataclass(frozen=True)
class EvaluationResult:
    """One model's answers to several tasks and its bits per byte on held-out text.

    `model`, `quantization`, `adapter` and `settings` are what the command was given; `environment` is commit, versions,
    hardware and date.
    """

    model: str
    quantization: str
    adapter: str | None
    tasks: dict[str, TaskResult]
    text: HeldOutScore | None
    text_name: str | None
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures without the items: what `--json` prints."""
        figures: dict[str, Any] = {
            "model": self.model,
            "quantization": self.quantization,
            "adapter": self.adapter,
            "tasks": {},
        }
        for name, task in self.tasks.items():
            plain, norm = task.accuracy("acc"), task.accuracy("acc_norm")
            figures["tasks"][name] = {
                "n": task.n, "available": task.available, "split": task.split, "version": task.version,
                "acc": plain.value, "acc_interval": [plain.low, plain.high],
                "acc_norm": norm.value, "acc_norm_interval": [norm.low, norm.high],
                "metric": task.metric, "chance": task.chance, "truncated": task.truncated,
                "smallest_visible_difference": smallest_visible_difference(task.n),
                "items_sha256": task.items_sha256, "seconds": task.seconds,
            }  # fmt: skip
        if self.text is not None:
            bits = self.text.bits_per_byte()
            figures["text"] = {
                "name": self.text_name, "documents": len(self.text.sizes), "bytes": sum(self.text.sizes),
                "tokens": sum(self.text.tokens),
                "bits_per_byte": bits.value, "bits_per_byte_interval": [bits.low, bits.high],
                "texts_sha256": self.text.texts_sha256,
            }  # fmt: skip
        figures["seconds"] = self.seconds
        checked: dict[str, Any] = finite(figures)
        return checked

    def save(self, folder: Path) -> Path:
        """Write `evaluation.json` into a run folder, whole or not at all; returns its path."""
        content = finite({"format": FORMAT, "summary": self.summary(), **asdict(self)})
        path = folder / FILE_NAME
        write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        return path


def load_result(path: Path) -> EvaluationResult:
    """Read a result back from its file or its run folder.

    Raises:
        InputError: there is no such file, or it is not an evaluation.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(
                "The evaluation was written by another version.", f"{file}: format {content['format']}", "Run it again."
            )
        tasks = {name: _task(value) for name, value in content["tasks"].items()}
        text = None if content["text"] is None else HeldOutScore(**_tuples(content["text"]))
        plain = ("model", "quantization", "adapter", "text_name", "seconds", "settings", "environment")
        return EvaluationResult(tasks=tasks, text=text, **{key: content[key] for key in plain})
    except FileNotFoundError as error:
        raise InputError(
            "There is no evaluation here.", f"Not found: {file}", "Make one: stilnovo evaluate … --out DIR"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "This file is not an evaluation.",
            f"{file}: {type(error).__name__}: {error}",
            "Make one: stilnovo evaluate … --out DIR",
        ) from error


def _task(value: dict[str, Any]) -> TaskResult:
    items = tuple(ItemScore(**_tuples(item)) for item in value["items"])
    return TaskResult(**{**value, "items": items})


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(entry) if isinstance(entry, list) else entry for key, entry in value.items()}


def finite(value: Any) -> Any:
    """`value` with every infinity and NaN replaced by None: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
