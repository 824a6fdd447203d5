"""Benchmark tasks and their items, and how a run samples them.

A task only says how a row of its dataset becomes an item, a `MultipleChoice` or a `Generation`; scoring, statistics and
reports know nothing of any benchmark. What makes results comparable travels with them: number and hash of the items.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stilnovo.benchmarks.draw import SEED as SEED
from stilnovo.benchmarks.draw import Draw as Draw
from stilnovo.benchmarks.known_files import FilesRead
from stilnovo.errors import InputError


class MissingData(InputError):
    """Benchmark data is not on this machine."""


Metric = Literal[
    "acc", "acc_norm", "mc1", "mc2", "exact_match", "exact_match_flexible", "number_match", "f1", "rouge1_precision"
]
METRIC_NAMES: dict[Metric, str] = {
    "acc": "accuracy",
    "acc_norm": "normalised accuracy",
    "mc1": "accuracy with one true answer (mc1)",
    "mc2": "probability of the true answers (mc2)",
    "exact_match": "exact match",
    "exact_match_flexible": "exact match, last number",
    "number_match": "the number given, by value",
    "f1": "F1 over words",
    "rouge1_precision": "ROUGE-1 precision",
}


def _check(rules: Mapping[str, bool]) -> None:
    """Refuse a question by the first broken rule; each rule is a condition with the error to show where it fails."""
    if broken := [fault for fault, holds in rules.items() if not holds]:
        raise ValueError(broken[0])


@dataclass(frozen=True)
class MultipleChoice:
    """A multiple-choice question.

    Attributes:
        id: Unique in its task.
        context: What every ending follows; of `contexts`, the beginning that they share.
        endings: Appended as they are, a leading space included.
        answer: Index of the right one.
        cluster: What the item shares with others (a passage, a subject); empty for an item on its own.
        category: The group that a breakdown of the score puts it in; empty for none.
        header: The beginning of `context` that many items share, a few-shot header; empty for none.
        contexts: One a choice, where the choices differ before the ending (Winogrande); empty otherwise.
        rivals: Indices that compete for `choice`; empty when all do.
        labels: For several true answers, one an ending: 1 true, 0 false, -1 not asked; empty otherwise.
        lengths: Characters of each ending for `acc_norm`; by default all but one leading space.
    """

    id: str
    context: str
    endings: tuple[str, ...]
    answer: int
    cluster: str = ""
    category: str = ""
    header: str = ""
    contexts: tuple[str, ...] = ()
    rivals: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.endings)
        choices_follow = all(context.startswith(self.context) for context in self.contexts)
        _check({
            f"answer {self.answer} of {count} endings": count >= 2 and 0 <= self.answer < count,
            "an ending is empty": all(ending.removeprefix(" ") for ending in self.endings),
            "the context does not begin with its header": self.context.startswith(self.header),
            "a choice's context does not begin with the context": choices_follow,
            "contexts and labels need one entry an ending": {len(self.contexts), len(self.labels)} <= {0, count},
            "the answer is not among the endings that compete": not self.rivals or self.answer in self.rivals,
        })  # fmt: skip

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(context, ending) of every choice, as they are scored."""
        return list(zip(self.contexts or (self.context,) * len(self.endings), self.endings, strict=True))

    @property
    def competing(self) -> Sequence[int]:
        """Indices of the endings among which the answer is chosen."""
        return self.rivals or range(len(self.endings))

    @property
    def repeats_an_option(self) -> bool:
        """Whether the answer repeats an option before it: of equals the first is chosen, as in the reference, so it is never right."""
        pairs = self.pairs
        return not self.labels and pairs[self.answer] in [
            pairs[index] for index in self.competing if index < self.answer
        ]

    @property
    def chance(self) -> float:
        """Score of random guessing; with several true answers that of mc2, their share."""
        asked = [label for label in self.labels if label >= 0]
        return sum(asked) / len(asked) if asked else 1 / len(self.competing)

    def values(self, loglikelihoods: Sequence[float]) -> dict[Metric, float]:
        """Compute the item's metrics from its endings' log-likelihoods in nats.

        acc: the most probable ending is right; acc_norm: the most probable per character, without the leading space;
        the first of equals in both. mc1 is acc where there are labels too; mc2 is the share of the probability of all
        labelled endings that the true ones have (TruthfulQA, Lin et al. 2022).
        """
        right = float(self.choice(loglikelihoods) == self.answer)
        if not self.labels:
            return {"acc": right, "acc_norm": float(self.choice_norm(loglikelihoods) == self.answer)}
        asked = [(value, label) for value, label in zip(loglikelihoods, self.labels, strict=True) if label >= 0]
        peak = max(value for value, _ in asked)
        masses = [(math.exp(value - peak), label) for value, label in asked]
        true = sum(mass for mass, label in masses if label)
        return {"mc1": right, "mc2": true / sum(mass for mass, _ in masses)}

    def choice(self, loglikelihoods: Sequence[float]) -> int:
        """Index of the most probable ending among those that compete."""
        return max(self.competing, key=lambda index: loglikelihoods[index])

    def choice_norm(self, loglikelihoods: Sequence[float]) -> int:
        """Index of the ending most probable per character."""
        lengths = self.lengths or [len(ending.removeprefix(" ")) for ending in self.endings]
        return max(self.competing, key=lambda index: loglikelihoods[index] / lengths[index])

    def identity(self) -> list[Any]:
        """The values that identify this question, for the hash."""
        extras = (self.contexts, self.rivals, self.labels)
        own = [self.id, self.context, list(self.endings), self.answer]
        return [*own, *map(list, extras)] if any(extras) else own


@dataclass(frozen=True)
class Decoding:
    """Generation settings: at most `max_tokens`, cut before any of `stop`; temperature 0 is greedy."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Generation:
    """A question answered by generated text.

    `references` are right answers; `context` is the prompt, `header` its beginning that many items share; `cluster` and
    `category` as in `MultipleChoice`.
    """

    chance = 0.0  # the score of random guessing

    id: str
    context: str
    references: tuple[str, ...]
    decoding: Decoding
    cluster: str = ""
    category: str = ""
    header: str = ""

    def __post_init__(self) -> None:
        _check({
            "a question needs a prompt and an answer": bool(self.context and self.references),
            "the context does not begin with its header": self.context.startswith(self.header),
        })  # fmt: skip

    def identity(self) -> list[Any]:
        """The values that identify this question, for the hash."""
        how = self.decoding
        return [
            self.id, self.context, list(self.references), how.max_tokens, list(how.stop), how.temperature, how.top_p,
        ]  # fmt: skip


Item = MultipleChoice | Generation


@dataclass(frozen=True)
class Request:
    """A request to load a task: split, few-shot examples, and where its data may come from; `read` notes what was read."""

    split: str
    data_dir: Path | None = None
    shots: int = 0
    download: bool = False
    read: FilesRead = field(default_factory=FilesRead, compare=False)


@dataclass(frozen=True)
class TaskFacts:
    """Facts shared by a task and its result.

    Attributes:
        name: As typed after `--tasks`.
        version: Of the protocol; changes whenever prompts or items do.
        source: Address of the dataset.
        licence: Of the dataset.
        metrics: What each item is measured by; a verdict is about the first.
    """

    name: str
    version: str
    source: str
    licence: str
    metrics: tuple[Metric, ...]

    @property
    def metric(self) -> Metric:
        """The metric that a verdict is about."""
        return self.metrics[0]


@dataclass(frozen=True)
class Task(TaskFacts):
    """A benchmark.

    Attributes:
        splits: Names for `--split`; the first is the default.
        load: Request → items.
        shots: Examples before each question, unless asked otherwise.
        shots_rule: Which examples those are.
        grade: For `Generation` items: (written answer, item) → metrics.
        reference: The task of lm-evaluation-harness that this one equals; empty where it has none.
        categories: What `category` of its items is, such as "subject".
        files: For a user's own task: path of its file and of its data → hex sha256.
        untried: Whether it was only ever run on made-up rows in the benchmark's form: its own were not at hand.
    """

    splits: tuple[str, ...]
    load: Callable[[Request], Sequence[Item]]
    shots: int = 0
    shots_rule: str = ""
    grade: Callable[[str, Generation], Mapping[Metric, float]] | None = None
    reference: str = ""
    categories: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    untried: bool = False


@dataclass(frozen=True)
class Selection:
    """Items selected from a task: `items` out of `available`.

    Chosen with `seed`, or simply the first ones where a protocol asks for them (`first`); `shots` examples before each.
    `files` hold the rows (name → sha256), `known` if they are the benchmark's; else source and licence of `task` say so.
    `instead_of` is the task's own split, where that is not here and another is.
    """

    task: Task
    split: str
    items: tuple[Item, ...] = field(repr=False)
    available: int
    seed: int
    shots: int = 0
    first: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    known: bool = True
    instead_of: str = ""

    @property
    def clusters(self) -> list[str] | None:
        """Cluster name of each item, or None if all items are independent."""
        return cluster_names((item.id, item.cluster) for item in self.items)


def select(
    task: Task,
    data_dir: Path | None = None,
    split: str | None = None,
    draw: Draw = Draw(),  # noqa: B008 - frozen
    *,
    shots: int | None = None,
    download: bool = False,
    first: bool = False,
) -> Selection:
    """Load a task's items and sample them as `draw` says.

    Args:
        task: From `stilnovo.benchmarks.tasks`.
        data_dir: A folder with one folder a benchmark.
        split: Instead of the task's own; where nothing is said and its own is not here, the next one that is.
        draw: How many items, and the seed that `subset` draws them with.
        shots: Examples before each question instead of the task's own number.
        download: Whether data that are not here may be fetched from the hub.
        first: Take the first items instead of drawing; only the 2024 protocol does.

    Raises:
        InputError: unknown split, missing or unusable data, a limit or shots that make no sense.
    """
    if split is not None and split not in task.splits:
        raise InputError(
            f"Task {task.name} has no split '{split}'.", f"It has: {', '.join(task.splits)}.", "Change --split."
        )
    candidates = [split] if split is not None else task.splits[: 1 if data_dir is None else 2]
    draw.count(1)  # a limit that makes no sense is said before anything is read
    if shots is not None and (shots < 0 or (shots and not task.shots_rule)):
        raise InputError(f"Task {task.name} cannot be asked with {shots} examples.", next="Leave --shots out.")
    wanted = task.shots if shots is None else shots
    items: Sequence[Item] = ()
    missing: MissingData | None = None
    for chosen in candidates:
        try:
            items = task.load(request := Request(chosen, data_dir, wanted, download))
            break
        except MissingData as error:
            missing = missing or error
    else:
        raise missing or AssertionError("a task has a split")
    rows: dict[str, int] = {}
    for row, item in enumerate(items, start=1):
        if (first_row := rows.setdefault(item.id, row)) != row:
            raise InputError(f"Rows {first_row} and {row} of task {task.name} have the same id.", f"Found: {item.id}.")
    count = draw.count(len(items))
    taken = list(items[:count]) if first else subset(items, count, draw.seed)
    files, known = request.read.provenance()
    task = task if known else replace(task, source=request.read.users_rows(task.source), licence="not known")
    return Selection(
        task, chosen, tuple(taken), len(items), draw.seed, wanted, first and len(taken) < len(items), files, known,
        "" if chosen == candidates[0] else candidates[0],
    )  # fmt: skip


def subset(items: Sequence[Item], limit: int | None, seed: int = SEED) -> list[Item]:
    """Sample `limit` items at random, spread evenly over clusters, in their original order.

    The first items of a benchmark are not a sample of it: HellaSwag's first third comes from one of its two sources.
    Inside each shuffled cluster the items get evenly spaced marks (rank + u) / size with one random u per cluster; the
    smallest marks are taken. Every item is equally likely to be drawn and every cluster gets its share, to within one.
    """
    if limit is None or limit >= len(items):
        return list(items)
    clusters: dict[tuple[str, int], list[int]] = {}
    for index, item in enumerate(items):
        clusters.setdefault((item.cluster, -1) if item.cluster else ("", index), []).append(index)
    rng = random.Random(seed)
    marks: list[tuple[float, int]] = []
    for members in clusters.values():
        rng.shuffle(members)
        offset = rng.random()
        marks += [((rank + offset) / len(members), index) for rank, index in enumerate(members)]
    return [items[index] for index in sorted(index for _, index in sorted(marks)[:limit])]


def cluster_names(members: Iterable[tuple[str, str]]) -> list[str] | None:
    """Cluster name of each (id, cluster), its own for one without; None if none has a cluster."""
    listed = list(members)
    return [cluster or f"\0{name}" for name, cluster in listed] if any(cluster for _, cluster in listed) else None


def item_sha256(item: Item) -> str:
    """Hash a question: all that its answer depends on, group names left out."""
    return hashlib.sha256(json.dumps(item.identity(), separators=(",", ":")).encode()).hexdigest()


def items_sha256(items: Iterable[Item]) -> str:
    """Hash several questions, in order."""
    return joined_sha256(map(item_sha256, items))


def joined_sha256(hashes: Iterable[str]) -> str:
    """Hash a sequence of hashes."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
