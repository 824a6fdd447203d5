"""Benchmark tasks, and how a run selects items from them: split, sample, prompt, examples, repeats.

A task only says how a row of its dataset becomes an item (`items.py`); scoring, statistics and reports know nothing of any
benchmark. A selection is of one prompt: a task with several is asked by several selections of the same items.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stilnovo.benchmarks.corpus_metrics import is_corpus_metric
from stilnovo.benchmarks.draw import SEED as SEED
from stilnovo.benchmarks.draw import Draw as Draw
from stilnovo.benchmarks.examples import SPLITS, behind, draw_examples
from stilnovo.benchmarks.items import METRIC_NAMES as METRIC_NAMES
from stilnovo.benchmarks.items import Decoding as Decoding
from stilnovo.benchmarks.items import FewShot as FewShot
from stilnovo.benchmarks.items import Generation as Generation
from stilnovo.benchmarks.items import Item as Item
from stilnovo.benchmarks.items import Metric as Metric
from stilnovo.benchmarks.items import MultipleChoice as MultipleChoice
from stilnovo.benchmarks.items import cluster_names as cluster_names
from stilnovo.benchmarks.items import item_sha256 as item_sha256
from stilnovo.benchmarks.items import items_sha256 as items_sha256
from stilnovo.benchmarks.items import joined_sha256 as joined_sha256
from stilnovo.benchmarks.known_files import FilesRead
from stilnovo.errors import InputError


class MissingData(InputError):
    """Benchmark data is not on this machine."""


@dataclass(frozen=True)
class Request:
    """A request to load a task: split, few-shot examples, and where its data may come from; `read` notes what was read.

    `prompt` is one of the task's `prompts`, empty for a task that has one only.
    """

    split: str
    data_dir: Path | None = None
    shots: int = 0
    download: bool = False
    prompt: str = ""
    read: FilesRead = field(default_factory=FilesRead, compare=False)


@dataclass(frozen=True)
class TaskFacts:
    """Facts shared by a task and its result.

    Attributes:
        name: As typed after `--tasks`.
        version: Of the protocol; changes whenever prompts or items do.
        source: Address of the dataset.
        licence: Of the dataset.
        metrics: What items are measured by, each or all together (`corpus_metrics.py`); a verdict is about the first.
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
        shots_rule: Which examples those are, where `load` puts them before the questions; without a rule they are drawn
            from another split (`examples.py`).
        grade: For `Generation` items: (written answer, item) → metrics.
        count: For `Generation` items of corpus metrics: (written answer, item) → the row of counts that it adds.
        reference: The task of lm-evaluation-harness that this one equals; empty where it has none.
        categories: What `category` of its items is, such as "subject".
        files: For a user's own task: path of its file and of its data → hex sha256.
        untried: Whether it was only ever run on made-up rows in the benchmark's form: its own were not at hand.
        prompts: Names of the wordings in which it can be asked, the default first; empty for one only.
        example_splits: Splits that are not evaluated and can give examples, beside those of `splits`.
    """

    splits: tuple[str, ...]
    load: Callable[[Request], Sequence[Item]]
    shots: int = 0
    shots_rule: str = ""
    grade: Callable[[str, Generation], Mapping[Metric, float]] | None = None
    count: Callable[[str, Generation], tuple[float, ...]] | None = None
    reference: str = ""
    categories: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    untried: bool = False
    prompts: tuple[str, ...] = ()
    example_splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if all(map(is_corpus_metric, self.metrics)):
            raise ValueError(
                f"task {self.name} needs a metric of single items, such as acc, beside {', '.join(self.metrics)}"
            )

    def prompts_of(self, asked: str | None) -> list[str]:
        """The prompts that `asked` names: `default` (also None), `all`, or names with commas; `[""]` for a task with one.

        Raises:
            InputError: one of the names is not a prompt of the task.
        """
        if asked in (None, "default", "all"):
            return [*self.prompts] if asked == "all" and self.prompts else [*self.prompts[:1]] or [""]
        names = list(dict.fromkeys(name.strip() for name in str(asked).split(",") if name.strip()))
        for name in names or [""]:
            if name not in self.prompts:
                has = f"It has: {', '.join(self.prompts)}." if self.prompts else "It has one prompt, without a name."
                raise InputError(
                    f"Task {self.name} has no prompt '{name}'.",
                    has,
                    "Change --prompts; `default` and `all` go with any task.",
                )
        return names


@dataclass(frozen=True)
class Selection:
    """Items selected from a task: `items` out of `available`.

    Chosen with `seed`, or simply the first ones where a protocol asks for them (`first`); `shots` examples before each.
    `files` hold the rows (name → sha256), `known` if they are the benchmark's; else source and licence of `task` say so.
    `instead_of` is the task's own split, where that is not here and another is. `prompt` is the name of the prompt, empty
    for a task that has one only; `examples` are the drawn examples, SPLIT:ID; written answers are drawn `repeats` times.
    The run asks the task with `prompts_asked` prompts, each a selection.
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
    prompt: str = ""
    examples: tuple[str, ...] = ()
    repeats: int = 1
    prompts_asked: int = 1

    @property
    def label(self) -> str:
        """The task, with the prompt where it is not the default."""
        return (
            f"{self.task.name}, prompt {self.prompt}"
            if self.prompt not in (*self.task.prompts[:1], "")
            else self.task.name
        )

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
    prompt: str = "",
) -> Selection:
    """Load a task's items and sample them as `draw` says.

    Args:
        task: From `stilnovo.benchmarks.tasks`.
        data_dir: A folder with one folder a benchmark.
        split: Instead of the task's own; where nothing is said and its own is not here, the next one that is.
        draw: How many items, and the seed that `subset` draws them with, and examples where the task has no rule for them.
        shots: Examples before each question instead of the task's own number.
        download: Whether data that are not here may be fetched from the hub.
        first: Take the first items instead of drawing; only the 2024 protocol does.
        prompt: One of the task's prompts; by default its first.

    Raises:
        InputError: unknown split or prompt, missing or unusable data, a limit or shots that make no sense.
    """
    if split is not None and split not in task.splits:
        raise InputError(
            f"Task {task.name} has no split '{split}'.", f"It has: {', '.join(task.splits)}.", "Change --split."
        )
    candidates = [split] if split is not None else task.splits[: 1 if data_dir is None else 2]
    draw.count(1)  # a limit that makes no sense is said before anything is read
    (prompt,) = task.prompts_of(prompt or None)
    wanted = task.shots if shots is None else shots
    if wanted < 0:
        raise InputError(f"Task {task.name} cannot be asked with {wanted} examples.", next="Leave --shots out.")
    drawn = 0 if task.shots_rule else wanted
    items: Sequence[Item] = ()
    missing: MissingData | None = None
    for chosen in candidates:
        try:
            request = Request(chosen, data_dir, wanted - drawn, download, prompt)
            items = task.load(request)
            break
        except MissingData as error:
            missing = missing or error
    else:
        raise missing or AssertionError("a task has a split")
    rows: dict[str, int] = {}
    for row, item in enumerate(items, start=1):
        if (first_row := rows.setdefault(item.id, row)) != row:
            raise InputError(f"Rows {first_row} and {row} of task {task.name} have the same id.", f"Found: {item.id}.")
    examples: tuple[str, ...] = ()
    files, known = request.read.provenance()
    own = task if known else replace(task, source=request.read.users_rows(task.source), licence="not known")
    if drawn:
        items, examples, read = _with_examples(task, request, items, drawn, draw.seed)
        files = {**read, **files}
    count = draw.count(len(items))
    taken = list(items[:count]) if first else subset(items, count, draw.seed)
    return Selection(
        own, chosen, tuple(taken), len(items), draw.seed, wanted, first and len(taken) < len(items), files, known,
        "" if chosen == candidates[0] else candidates[0], prompt, examples,
    )  # fmt: skip


def _with_examples(
    task: Task, request: Request, items: Sequence[Item], count: int, seed: int
) -> tuple[Sequence[Item], tuple[str, ...], dict[str, str]]:
    """Put drawn examples before every item; also which they are, as SPLIT:ID, and the hashes of their files."""
    sources = [name for name in SPLITS if name in (*task.example_splits, *task.splits) and name != request.split]
    missing: MissingData | None = None
    for source in sources:
        try:
            asked = replace(request, split=source, read=FilesRead())
            pool = task.load(asked)
            chosen = draw_examples(pool, items, count, seed, task.name)
            names = tuple(f"{source}:{item.id}" for item in chosen)
            return [behind(item, chosen) for item in items], names, asked.read.provenance()[0]
        except MissingData as error:
            missing = missing or error
    only = f"It has no split to take them from, only {request.split}, which is measured."
    raise InputError(
        f"Task {task.name} cannot be asked with {count} examples.",
        f"{missing.what} {missing.found}" if missing else only,
        missing.next if missing else "Leave --shots out.",
    )


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
