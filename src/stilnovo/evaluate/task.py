"""A benchmark as data: questions with endings, where they come from, and which part of them a run looks at.

A task only says how a row of its dataset becomes a `MultipleChoice`; scoring, statistics and reports know nothing of
any particular benchmark. What makes two results comparable travels with them: the number of items and a hash of them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from stilnovo.errors import InputError

SEED = 42
Metric = Literal["acc", "acc_norm"]
METRIC_NAMES: dict[Metric, str] = {"acc": "accuracy", "acc_norm": "normalised accuracy"}


@dataclass(frozen=True)
class MultipleChoice:
    """One question.

    `endings` are appended to `context` as they are, a leading space included; `answer` is the index of the right one;
    `cluster` names what an item shares with others (a passage, a subject); empty for an item on its own.
    """

    id: str
    context: str
    endings: tuple[str, ...]
    answer: int
    cluster: str = ""

    def __post_init__(self) -> None:
        if len(self.endings) < 2 or not 0 <= self.answer < len(self.endings):
            raise ValueError(f"answer {self.answer} of {len(self.endings)} endings")
        if not all(ending.strip() for ending in self.endings):
            raise ValueError("an ending is empty")


class Clustered(Protocol):
    """What belongs to a cluster: a question, or the score of one."""

    @property
    def id(self) -> str:
        """Its name, unique in a task."""
        ...

    @property
    def cluster(self) -> str:
        """The cluster's name, empty for none."""
        ...


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        name: As typed after `--tasks`.
        version: Of the protocol; changes whenever prompts or items do.
        source: Address of the dataset.
        licence: Of the dataset.
        metric: The one a verdict is about: `acc` (highest log-likelihood) or `acc_norm` (highest per character).
        splits: Names for `--split`; the first is the default.
        load: (data folder or None, split) → items.
    """

    name: str
    version: str
    source: str
    licence: str
    metric: Metric
    splits: tuple[str, ...]
    load: Callable[[Path | None, str], list[MultipleChoice]]


@dataclass(frozen=True)
class Selection:
    """The items of one task that a run will look at: `items` out of `available`, chosen with `seed`."""

    task: Task
    split: str
    items: tuple[MultipleChoice, ...]
    available: int
    seed: int

    @property
    def clusters(self) -> list[str] | None:
        """A cluster name for each item, or None where all items stand alone."""
        return cluster_names(self.items)


def select(
    task: Task, data_dir: Path | None = None, split: str | None = None, limit: int | None = None, seed: int = SEED
) -> Selection:
    """Read a task's items and keep all of them, or `limit` drawn by `subset`.

    Raises:
        InputError: unknown split, missing data, a limit below one.
    """
    chosen = split or task.splits[0]
    if chosen not in task.splits:
        raise InputError(
            f"Task {task.name} has no split '{chosen}'.", f"It has: {', '.join(task.splits)}.", "Change --split."
        )
    if limit is not None and limit < 1:
        raise InputError("--limit must be at least 1.", f"Found: {limit}.")
    items = task.load(data_dir, chosen)
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError(f"Task {task.name} has two items with the same id.", f"Found twice: {item.id}.")
        seen.add(item.id)
    return Selection(task, chosen, tuple(subset(items, limit, seed)), len(items), seed)


def subset(items: Sequence[MultipleChoice], limit: int | None, seed: int = SEED) -> list[MultipleChoice]:
    """`limit` items drawn at random, spread evenly over clusters, in their original order; never simply the first ones.

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


def cluster_names(items: Iterable[Clustered]) -> list[str] | None:
    """A cluster name for each item (an item without one is its own), or None where none has any."""
    listed = list(items)
    if not any(item.cluster for item in listed):
        return None
    return [item.cluster or f"\0{item.id}" for item in listed]


def items_sha256(items: Iterable[MultipleChoice]) -> str:
    """Hex sha256 over id, context, endings and answer of every item, in order: equal only for the same questions."""
    digest = hashlib.sha256()
    for item in items:
        row = [item.id, item.context, list(item.endings), item.answer]
        digest.update(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
    return digest.hexdigest()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a dataset file: one JSON array (`.json`) or one object a line (`.jsonl`).

    Raises:
        InputError: the file is missing, is not UTF-8 JSON, or holds something other than objects.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("A benchmark file is missing.", f"Not found: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("A benchmark file cannot be read.", f"{path}: {error}") from error
    try:
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError("A benchmark file is not valid JSON.", f"{path}: {error}", "Download it again.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError("A benchmark file does not hold a list of rows.", f"File: {path}", "Download it again.")
    return rows


def build(
    rows: Iterable[dict[str, Any]], make: Callable[[dict[str, Any]], MultipleChoice], origin: str
) -> list[MultipleChoice]:
    """Turn rows into items.

    Raises:
        InputError: a row lacks a field or its answer points nowhere; names the row and `origin`, the file.
    """
    items = []
    for number, row in enumerate(rows, start=1):
        try:
            items.append(make(row))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"Row {number} of a benchmark file cannot be used: {reason}.", f"File: {origin}"
            ) from error
    return items
