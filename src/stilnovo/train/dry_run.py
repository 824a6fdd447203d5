"""A training seen before it learns: what its data are and what it will do, from the same preparation as the training.

Nothing is written and no weights are opened. Small data are read whole, and every figure is the training's own; of
large ones an excerpt is read (`stilnovo.io.excerpt`), and totals are extrapolated and marked as such (`scale`).
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stilnovo.data import corpora
from stilnovo.data.conversations import shape_of
from stilnovo.data.packing import IntArray, PackedCorpus, PackIndex
from stilnovo.data.shards import is_prepared
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow
from stilnovo.io.excerpt import FileExcerpt, even_places, excerpt_of
from stilnovo.io.rows import files_of, iter_rows
from stilnovo.plan.autograd import AutogradStep
from stilnovo.plan.choice import Plan
from stilnovo.plan.speed import speed
from stilnovo.recipe import Recipe
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer
from stilnovo.train.corpus import Corpus, lengths_of
from stilnovo.train.held_out import EvaluationSchedule, schedule_of
from stilnovo.train.objectives.base import objective_of, read_corpus
from stilnovo.train.optimizer import warmup_of
from stilnovo.train.planning import card_of
from stilnovo.train.preparation import Preparation
from stilnovo.train.steps import planned_batches, planned_steps, step_tokens

COUNTED = 20_000  # documents that are compared and counted token by token; more are mapped from a prepared corpus


@dataclass(frozen=True)
class RowsSeen:
    """What was understood of one file: its rows' shape (`text`, `messages`, …) and the columns of the first row."""

    file: str
    shape: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class DataSeen:
    """Training data as they will be learnt.

    Attributes:
        scale: About how many times as much there is as was read; 1 where everything was.
        excerpt_bytes, total_bytes: What was read of what there is; 0 for a prepared corpus.
        lengths: Tokens of each document read, rehearsal left out.
        loss_share: Share of the tokens that have a loss.
        duplicates: Documents that repeat an earlier one token by token, among those counted.
        longer: Documents longer than a pack.
    """

    recipe: Recipe
    corpus: Corpus
    tokenizer: Tokenizer
    rows: tuple[RowsSeen, ...]
    scale: float
    excerpt_bytes: int
    total_bytes: int
    beginnings: tuple[str, ...]
    lengths: Sequence[int]
    loss_share: float
    duplicates: int

    @property
    def documents(self) -> int:
        """Documents of an epoch, rehearsal counted; extrapolated."""
        return round(self.scale * len(self.corpus.packed.documents))

    @property
    def held_out(self) -> int:
        """Held-out rows; extrapolated."""
        return round(self.scale * len(self.corpus.held_out))

    @property
    def tokens(self) -> int:
        """Tokens of an epoch; extrapolated."""
        return round(self.scale * self.corpus.packed.tokens)

    @property
    def packs(self) -> int:
        """Packs of an epoch; extrapolated."""
        return round(self.scale * len(self.corpus.packed.packs))

    @property
    def longer(self) -> int:
        """Documents longer than a pack; extrapolated."""
        return round(self.scale * sum(length > self.recipe.data.pack_tokens + 1 for length in self.lengths))

    def rendered(self, rows: int) -> list[list[tuple[str, bool]]]:
        """Some documents, spread over those read, as runs of text: each with whether its tokens have a loss.

        Special tokens are spelt out. Of preference pairs both sides follow each other, chosen first.
        """
        documents, sides = self.corpus.packed.documents, 2 if self.recipe.train.task == "dpo" else 1
        count = len(self.lengths) // sides
        chosen = even_places(rows, count)
        return [self._runs(documents[sides * at + side]) for at in chosen for side in range(sides)]

    def _runs(self, document: IntArray) -> list[tuple[str, bool]]:
        learnt = document >= 0
        borders = [0, *(np.flatnonzero(learnt[1:] != learnt[:-1]) + 1).tolist(), len(document)]
        return [
            (self.tokenizer.spelt(np.where(part < 0, ~part, part).tolist()), bool(part[0] >= 0))
            for part in (document[begin:end] for begin, end in itertools.pairwise(borders))
            if len(part)
        ]


@dataclass(frozen=True)
class DryRun:
    """What a training would do: its data, its steps, its memory.

    Attributes:
        step: The plan, or autograd's step where there is none.
        schedule: When it is evaluated and on how many held-out tokens; None where it is not.
        seconds: How long it takes; None where the speed of the device is not known.
    """

    data: DataSeen
    plan: Plan | None
    step: Plan | AutogradStep
    steps: int
    warmup: int
    schedule: EvaluationSchedule | None
    seconds: float | None

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a full step, on average."""
        return round(step_tokens(self.data.corpus.packed, self.data.packs, self.data.recipe.train))


def look(recipe: Recipe) -> DataSeen:
    """Read data as a training by this recipe would, without its model or plan; large files in part.

    Raises:
        InputError: for data that a training would refuse.
    """
    with _excerpted(recipe) as (chosen, excerpt):
        tokenizer = open_tokenizer(recipe.model.name)
        return _seen(recipe, read_corpus(objective_of(chosen), tokenizer), tokenizer, excerpt)


def dry_run(recipe: Recipe, folder: Path, *, resume: bool = False) -> DryRun:
    """Prepare a training as `train` does and say what it will do; a run that is resumed has its data read whole.

    Raises:
        InputError: where the training would.
    """
    with _excerpted(recipe, whole=resume) as (chosen, excerpt):
        prepared = Preparation(chosen, folder, resume=resume)
        seen = _seen(recipe, prepared.corpus, prepared.tokenizer, excerpt)
    if not seen.packs:
        raise InputError(
            "There is nothing to learn from.", "No document has two tokens.", "Give more text with --data."
        )
    empty, none = np.empty(0, np.int32), np.empty(0, np.int64)
    whole = PackIndex(empty, none, empty, np.zeros(seen.packs + 1, np.int64))
    packed = prepared.corpus.packed if seen.scale == 1 else PackedCorpus((), whole, recipe.data.pack_tokens)
    steps = planned_steps(packed, recipe.train)
    plan, seconds = prepared.plan, None
    if plan is not None and plan.speed.seconds and prepared.device.type == "cuda":
        cost, length = prepared.objective.cost(seen.loss_share), prepared.objective.document_tokens(plan.run.tokens)
        once = speed(plan.run, plan.levers, card_of(prepared.device), length, cost)
        seconds = planned_batches(packed, recipe.train) * once.seconds
    warmup, schedule = warmup_of(steps, recipe.train), _schedule(prepared, seen, steps)
    return DryRun(seen, plan, prepared.step, steps, warmup, schedule, seconds)


def _schedule(prepared: Preparation, seen: DataSeen, steps: int) -> EvaluationSchedule | None:
    """The evaluations: those prepared, or, of an excerpt, those that all of the data will have."""
    train, packed, found = seen.recipe.train, seen.corpus.packed, prepared.held_out
    if train.evaluate_every == 0 or (found is None and not train.samples):
        return None
    if seen.scale == 1:
        return replace(prepared.schedule, tokens=0 if found is None else found.tokens)
    return schedule_of(steps, step_tokens(packed, seen.packs, train), packed.pack_tokens, train)


@contextmanager
def _excerpted(recipe: Recipe, *, whole: bool = False) -> Iterator[tuple[Recipe, FileExcerpt | None]]:
    """The recipe over an excerpt of its files, which exists meanwhile; over the files themselves where they are small."""
    data = recipe.data
    prepared = any(is_prepared(Path(path).expanduser()) for path in data.paths)
    unknown = any(path in corpora.SOURCES and not Path(path).exists() for path in data.paths)
    with tempfile.TemporaryDirectory(prefix="stilnovo-") as temporary:
        excerpt, changes = None, dict[str, object]()
        if not whole and not prepared and not (unknown and recipe.train.task == "text"):
            excerpt = _take(data.paths, Path(temporary, "data"), spread=data.max_documents is None)
            if not excerpt.whole:
                changes["data.paths"] = [str(path) for path in excerpt.files]
        if not whole and data.rehearsal:
            rehearsal = _take(data.rehearsal, Path(temporary, "rehearsal"), spread=True)
            if not rehearsal.whole:
                changes["data.rehearsal"] = [str(path) for path in rehearsal.files]
        try:
            yield recipe.changed(changes) if changes else recipe, excerpt
        except InputError as error:  # a place in an excerpt is named by its file
            folder = re.compile(re.escape(f"{temporary}{os.sep}") + r"(data|rehearsal)[/\\]\d+[/\\]")
            for part in ("what", "found", "next"):
                setattr(error, part, folder.sub("", getattr(error, part)))
            error.args = ("\n".join(line for line in (error.what, error.found, error.next) if line),)
            raise


def _take(paths: Sequence[str], folder: Path, *, spread: bool) -> FileExcerpt:
    folder.mkdir()
    return excerpt_of(files_of(corpora.locate(paths, agree=None)), folder, spread=spread)


def _seen(recipe: Recipe, read: Corpus, tokenizer: Tokenizer, excerpt: FileExcerpt | None) -> DataSeen:
    packed, most = read.packed, recipe.data.max_documents
    own = len(packed.documents) if packed.anchored is None else packed.anchored
    taken, scale = own + len(read.held_out), 1.0 if excerpt is None else excerpt.scale
    if most is not None and scale > 1:
        scale = min(scale, max(1.0, most / max(1, taken)))
    documents = packed.documents
    counted = [documents[at] for at in even_places(COUNTED, own)]
    every = counted + [documents[at] for at in range(own, min(len(documents), own + COUNTED))]
    total = sum(max(0, len(document) - 1) for document in every)
    learnt = sum(int((document[1:] >= 0).sum()) for document in every)
    return DataSeen(
        recipe, read, tokenizer, () if excerpt is None else _rows(excerpt.files), scale,
        0 if excerpt is None else round(excerpt.total / excerpt.scale), 0 if excerpt is None else excerpt.total,
        () if excerpt is None else excerpt.beginnings, lengths_of(documents)[:own].tolist(),
        learnt / max(1, total), len(counted) - len({document.tobytes() for document in counted}),
    )  # fmt: skip


def _rows(files: Sequence[Path]) -> tuple[RowsSeen, ...]:
    """The shape of each file's rows, by its first usable row; of many files the first few."""
    seen = []
    for path in files[:8]:
        row = next(iter(iter_rows(path, _passed_over)), None)
        shape = (
            "nothing"
            if row is None
            else shape_of(row) or ("text" if "text" in row else "wikitext" if "wikitext" in row else "unknown")
        )
        seen.append(RowsSeen(path.name, shape, tuple(row or ())))
    return tuple(seen)


def _passed_over(_place: str, _bad: BadRow) -> None:
    """A row that the first look passes over; the reading counts it."""


def task_for(paths: Sequence[str]) -> str:
    """The training objective that fits the first rows of the files: `sft` for conversations, `dpo` for pairs, else `text`."""
    if any(is_prepared(Path(path).expanduser()) for path in paths):
        return "text"
    files = files_of(path for path in paths if path not in corpora.SOURCES or Path(path).exists())
    shape = next((shape_of(seen.columns) for seen in _rows(files[:1])), None)
    return "text" if shape is None else "dpo" if shape == "preference" else "sft"
