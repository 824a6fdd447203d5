"""Evaluation results: typed in memory, one JSON file on disk, with everything needed to repeat them.

The answer to every item is kept (its id, never its text: some benchmarks may not be passed on), because two runs can
only be compared item by item. A hash of every item, and one of all of them, say whether they were the same questions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stilnovo.benchmarks.corpus_metrics import corpus_measure, is_corpus_metric, item_metric
from stilnovo.benchmarks.task import Metric, TaskFacts, cluster_names, joined_sha256
from stilnovo.errors import InputError, NonFiniteScore
from stilnovo.runlog import finite, json_text, write_atomic
from stilnovo.scoring.group_scores import GroupScore, group_scores
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.rounds import Round, averaged, one_repeat
from stilnovo.statistics.corpus_level import CorpusMeasure, estimate, smallest_visible
from stilnovo.statistics.estimates import Estimate, Floats, mean
from stilnovo.statistics.power import ASSUMED_DISCORDANCE, smallest_visible_difference
from stilnovo.statistics.spread import combined_performance, spread_of

FILE_NAME = "evaluation.json"
FORMAT = 2
_DERIVED = ("n", "truncated", "items_sha256")  # written for readers of the file, computed anew from the items


@dataclass(frozen=True)
class TaskResult(TaskFacts):
    """Result of a task: `n` of `available` items, `cached` of them answered by an earlier run, the rest in `seconds`.

    `chance` is what guessing scores; `shots` examples stood before each question; `first` says that the items are the
    first ones and no draw; `hashes` (`item_sha256`) go with `items`, one each; `files` are those of its rows, file name →
    sha256; `known`, `instead_of`, `examples` and `repeats` as in `Selection`; `prompts` names the prompts of a task that has
    several. Where it was asked in several `rounds`, the values of `items` are means over them, and what else stands there is
    the first round's.
    """

    split: str
    available: int
    seed: int
    chance: float
    seconds: float
    items: tuple[ItemScore, ...]
    hashes: tuple[str, ...]
    shots: int = 0
    first: bool = False
    cached: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    known: bool = True
    instead_of: str = ""
    prompts: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    repeats: int = 1
    rounds: tuple[Round, ...] = ()

    @property
    def label(self) -> str:
        """What it is called where it is shown: rows that are not known to be the benchmark's, by their hash."""
        name = self.name if self.known else f"{self.name}'s form, rows {next(iter(self.files.values()), '')[:12]}"
        return f"{name} ({self.split}, not {self.instead_of})" if self.instead_of else name

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def all_rounds(self) -> tuple[Round, ...]:
        """Its rounds, also where it is one."""
        return self.rounds or (Round(next(iter(self.prompts), ""), 0, self.items, self.hashes),)

    @property
    def asked(self) -> int:
        """How many answers were asked for: items, with every prompt and repeat."""
        return sum(len(part.items) for part in self.all_rounds)

    def by_prompt(self) -> dict[str, TaskResult]:
        """Its result with each prompt, by name; empty where it was asked with one."""
        if len(self.prompts) < 2:
            return {}
        parts = {name: tuple(part for part in self.rounds if part.prompt == name) for name in self.prompts}
        return {name: replace(self._of(rounds), prompts=(name,)) for name, rounds in parts.items()}

    def by_repeat(self) -> list[TaskResult]:
        """Its result in each repeat; empty where nothing was repeated."""
        if self.repeats < 2:
            return []
        return [replace(self._of(one_repeat(self.rounds, number)), repeats=1) for number in range(self.repeats)]

    def _of(self, rounds: tuple[Round, ...]) -> TaskResult:
        """The result of some of its rounds."""
        return replace(self, items=averaged(rounds), hashes=rounds[0].hashes, rounds=rounds if len(rounds) > 1 else ())

    def right_again(self, metric: Metric | None = None) -> dict[str, float]:
        """Shares of items that are right (1) in all and in any of the repeats, over all prompts; empty without repeats."""
        rows = list(zip(*(part.values(metric) for part in self.by_repeat()), strict=True))
        counts = {
            "right_in_all": sum(min(row) == 1 for row in rows),
            "right_in_any": sum(max(row) == 1 for row in rows),
        }
        return {key: count / self.n for key, count in counts.items()} if rows else {}

    @property
    def truncated(self) -> int:
        """Number of items truncated to fit the model."""
        return sum(item.truncated for item in self.items)

    @property
    def items_sha256(self) -> str:
        """Hex sha256 over the hashes of all items."""
        return joined_sha256(self.hashes)

    @property
    def clusters(self) -> list[str] | None:
        """A cluster name for each item, or None where all stand alone."""
        return cluster_names((item.id, item.cluster) for item in self.items)

    def values(self, metric: Metric | None = None) -> list[float]:
        """Every item's value of a metric, (N,) in [0, 1]; by default of the first that single items have."""
        return [item.values[metric or item_metric(self.metrics)] for item in self.items]

    def score(self, metric: Metric | None = None) -> Estimate:
        """Value of a metric with its interval; the task's main metric by default."""
        return self._estimate(metric or self.metric, self.items, self.clusters)

    def _estimate(self, metric: Metric, items: Sequence[ItemScore], clusters: list[str] | None) -> Estimate:
        if is_corpus_metric(metric):
            return estimate(*counted_by(metric, items), clusters)
        return mean([item.values[metric] for item in items], clusters, shares=True)

    @property
    def smallest_visible(self) -> float:
        """The smallest difference to another run on these items that a paired test would show (80 % power), as a share."""
        if not is_corpus_metric(self.metric):
            return smallest_visible_difference(self.n, clusters=self.clusters)
        return smallest_visible(*counted_by(self.metric, self.items), ASSUMED_DISCORDANCE, self.clusters)

    @property
    def items_per_second(self) -> float | None:
        """Speed of what was answered in this run; None where nothing was."""
        return (self.asked - self.cached) / self.seconds if self.asked > self.cached and self.seconds > 0 else None

    def by_category(self, metric: Metric | None = None) -> dict[str, Estimate]:
        """Score by category, in order of first appearance, or of their numbers (`grade 2`, `grade 10`); empty if items have none.

        Clusters count inside a category too, unless the category is one cluster: then its items are all there is.
        """
        members: dict[str, list[int]] = {}
        for index, item in enumerate(self.items):
            members.setdefault(item.category, []).append(index)
        if set(members) <= {""}:
            return {}
        clusters, scores = self.clusters, {}
        numbers = {name: [int(digits) for digits in re.findall(r"\d+", name)] for name in members if name}
        ordered = sorted(numbers, key=lambda name: numbers[name]) if all(numbers.values()) else [*numbers]
        for name in [*ordered, *([""] if "" in members else [])]:
            indices = members[name]
            names = [clusters[index] for index in indices] if clusters else []
            inside = names if len(set(names)) > 1 else None
            scores[name or "other"] = self._estimate(metric or self.metric, [self.items[i] for i in indices], inside)
        return scores


@dataclass(frozen=True)
class EvaluationResult:
    """Result of an evaluation: several tasks, and bits per byte on held-out text.

    `model`, `quantization`, `adapter` and `settings` are what the command was given, `command` is the whole of it;
    `identity` holds the hashes of weights, adapter and code (None for a model that lives in memory only); `environment`
    is commit, versions, hardware and date. `memory` is in bytes, as predicted and as measured (`predicted_peak_bytes`,
    `peak_memory_bytes`); empty for a model that was open before. `inputs`: where others find the model, and the files of the
    held-out text by size and hash. `groups` are groups of tasks that were asked for (name → all their tasks, those without
    data too).
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
    identity: dict[str, Any] | None = None
    command: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def group_scores(self) -> list[GroupScore]:
        """Macro averages of the groups that were asked for."""
        return group_scores(self.groups, self.tasks)

    def summary(self) -> dict[str, Any]:
        """The figures without the items, as `--json` prints them."""
        tasks = {name: _task_figures(task) for name, task in self.tasks.items()}
        figures: dict[str, Any] = {
            "model": self.model, "quantization": self.quantization, "adapter": self.adapter, "tasks": tasks,
            "chat_template": self.settings.get("chat_template"),
        }  # fmt: skip
        if self.groups:
            figures["task_groups"] = {group.name: group.figures() for group in self.group_scores}
        if self.text is not None:
            bits = self.text.bits_per_byte()
            figures["text"] = {
                "name": self.text_name, "documents": len(self.text.sizes), **units_of(bits), "bytes": sum(self.text.sizes),
                "tokens": sum(self.text.tokens),
                "bits_per_byte": bits.value, "bits_per_byte_interval": [bits.low, bits.high],
                "texts_sha256": self.text.texts_sha256,
            }  # fmt: skip
            # the same as a task, for whoever reads all of them alike
            tasks["bits_per_byte"] = {
                "n": len(self.text.sizes), **units_of(bits), "metric": "bits_per_byte", "bits_per_byte": bits.value,
                "bits_per_byte_interval": [bits.low, bits.high], "items_sha256": self.text.texts_sha256,
                "seconds": max(0.0, self.seconds - sum(task.seconds for task in self.tasks.values())),
            }  # fmt: skip
            if (short := self.text.perplexity_of_short_windows()) is not None:
                figures["text"] |= {"perplexity_64": short.value, "perplexity_64_interval": [short.low, short.high]}
        return dict(finite(figures | self.memory | {"seconds": self.seconds}))

    def save(self, folder: Path | str) -> Path:
        """Write `evaluation.json` atomically into a run folder; returns its path."""
        content = {"format": FORMAT, "summary": self.summary(), **asdict(self)}
        for name, task in self.tasks.items():
            content["tasks"][name] |= {key: getattr(task, key) for key in _DERIVED}
        path = Path(folder) / FILE_NAME
        write_atomic(path, json_text(content, indent=1) + "\n")
        return path


def counted_by(metric: Metric, items: Sequence[ItemScore]) -> tuple[CorpusMeasure, Floats]:
    """A corpus metric's measure, and what each item adds to it, (N, C)."""
    rows = np.asarray([item.counts for item in items])  # (N, rounds, C)
    return corpus_measure(metric, rows.shape[2]).averaged(rows.shape[1]), rows.reshape(len(items), -1)


def units_of(found: Estimate) -> dict[str, int | None]:
    """Independent units that an interval rests on, and the groups of its items, None where they stand alone."""
    return {"units": found.clusters, "groups": found.clusters if found.clusters < found.n else None}


def _task_figures(task: TaskResult) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "n": task.n, "available": task.available, "split": task.split, "version": task.version, "shots": task.shots,
        "instead_of": task.instead_of or None, "known": task.known, "source": task.source, "licence": task.licence,
        "seed": task.seed, "first": task.first, "metric": task.metric, "chance": task.chance,
        "truncated": task.truncated, "smallest_visible_difference": task.smallest_visible,
        **units_of(task.score()),
        "items_sha256": task.items_sha256, "seconds": task.seconds, "cached": task.cached,
    }  # fmt: skip
    for metric in task.metrics:
        estimate = task.score(metric)
        figures |= {metric: estimate.value, f"{metric}_interval": [estimate.low, estimate.high]}
    figures |= _round_figures(task)
    if categories := task.by_category():
        figures["categories"] = {
            name: {"n": score.n, **units_of(score), task.metric: score.value, "interval": [score.low, score.high]}
            for name, score in categories.items()
        }
    return figures


def _round_figures(task: TaskResult) -> dict[str, Any]:
    """What several prompts and repeats show; nothing where there is one of each."""
    figures: dict[str, Any] = {"prompt": task.prompts[0]} if len(task.prompts) == 1 else {}
    if task.examples:
        figures["examples"] = list(task.examples)
    by_prompt = {name: {key: part.score(key) for key in task.metrics} for name, part in task.by_prompt().items()}
    if by_prompt:
        figures["prompts"] = {
            name: {key: score.value for key, score in scores.items()}
            | {f"{key}_interval": [score.low, score.high] for key, score in scores.items()}
            for name, scores in by_prompt.items()
        }
        scores = [each[task.metric].value for each in by_prompt.values()]
        figures |= {
            "prompt_spread": asdict(spread_of(scores)),
            "combined_performance_score": combined_performance(scores),
        }
    if by_repeat := [part.score().value for part in task.by_repeat()]:
        figures |= {"repeats": task.repeats, "repeat_spread": asdict(spread_of(by_repeat)), **task.right_again()}
    return figures


def load_result(path: Path) -> EvaluationResult:
    """Load a result from its file or run folder.

    Raises:
        InputError: there is no such file, or it is not an evaluation.
        NonFiniteScore: one of its answers is no finite number.
    """
    from pydantic import TypeAdapter

    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(
                "The evaluation was written by another version.", f"{file}: format {content['format']}", "Run it again."
            )
        for task in content["tasks"].values():
            task["items"] = _with_gaps(task["items"])
            task["rounds"] = _with_gaps(task.get("rounds", []))
        if content["text"]:
            content["text"] = _with_gaps(content["text"])
        result = TypeAdapter(EvaluationResult).validate_python(content)
        if any(not task.n == len(task.hashes) == content["tasks"][name]["n"] for name, task in result.tasks.items()):
            raise ValueError("some answers or hashes are missing")
        _check(result)
        return result
    except NonFiniteScore as error:
        raise NonFiniteScore(f"{error.where}, in {file},") from error
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


def _check(result: EvaluationResult) -> None:
    """Refuse, by ValueError, answers that no evaluation gives: a changed file would be compared without a word."""
    for name, task in result.tasks.items():
        if len({item.id for item in task.items}) < task.n or not task.n:
            raise ValueError(f"{name} has no items, or two of one id")
        for item in (*task.items, *(score for part in task.rounds for score in part.items)):
            known = {*item.values} | {metric for metric in task.metrics if is_corpus_metric(metric) and item.counts}
            if not set(task.metrics) <= known or not all(0 <= value <= 1 for value in item.values.values()):
                raise ValueError(f"item {item.id} of {name} has no {', '.join(task.metrics)} between 0 and 1")
        if len({tuple(map(len, item.counts)) for item in task.items}) > 1:
            raise ValueError(f"items of {name} have counts of different lengths")
    if result.text is not None:
        text = result.text
        if not len(text.nats) == len(text.sizes) == len(text.tokens) or min(text.sizes, default=0) <= 0:
            raise ValueError("the held-out text needs as many sizes above 0 as documents")


def _with_gaps(content: Any) -> Any:
    """Stored answers with NaN in place of null, which an older version wrote for it: the item is then refused by name."""
    if isinstance(content, dict):
        return {key: _with_gaps(entry) for key, entry in content.items()}
    if isinstance(content, list):
        return [_with_gaps(entry) for entry in content]
    return math.nan if content is None else content
