"""Repeat what a bundle holds and compare number by number: an evaluation, a training or its first steps, a comparison.

A number is repeated to the last bit, or within a tolerance that is written beside it, or it is not. Tolerances are for other
hardware or versions: 0.5 % of a loss and of bits per byte, 5 % of a gradient's norm, one item or half a point of a score
(whichever is more), and 0.05 nats of a log-likelihood.

Unusual: the first steps of a training are made under the schedule of the whole one, which is ended after them.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stilnovo import api
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.task_file import SUFFIXES
from stilnovo.bundle.check import BundleCheck
from stilnovo.bundle.contents import ADAPTER_FILES, TRAINED
from stilnovo.bundle.found_files import BUILT_IN, FoundFiles, lay, place
from stilnovo.bundle.zip_file import OpenedBundle, name_fault
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError
from stilnovo.recipe import Recipe
from stilnovo.recipe import load as load_recipe
from stilnovo.report.comparison import comparison_figures
from stilnovo.runlog import VARIABLES, sha256_file
from stilnovo.scoring.result import FILE_NAME, EvaluationResult, TaskResult, load_result
from stilnovo.spec import ModelSpec
from stilnovo.train.observers import Observer

Outcome = Literal["bit-equal", "within tolerance", "not repeated"]
LOSS, NORM, SHARE, NATS = 0.005, 0.05, 0.005, 0.05  # relative, relative, absolute, absolute
_STEP_NUMBERS = (
    ("loss", "loss", LOSS),
    ("held_out_loss", "held-out loss", LOSS),
    ("gradient_norm", "gradient norm", NORM),
)


@dataclass(frozen=True)
class RepeatedNumber:
    """A number as it was recorded and as it came out here; None where there is none. `tolerance` is absolute."""

    name: str
    recorded: float | None
    here: float | None
    tolerance: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Equal to the last bit, near enough, or neither."""
        if self.recorded == self.here:
            return "bit-equal"
        if self.recorded is None or self.here is None:
            return "not repeated"
        return "within tolerance" if abs(self.here - self.recorded) <= self.tolerance else "not repeated"


@dataclass(frozen=True)
class BundleRepetition:
    """What came of a repetition; `notes` say what was done otherwise, and what no number says."""

    numbers: tuple[RepeatedNumber, ...]
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The worst of all numbers; without any nothing was repeated."""
        found = {number.outcome for number in self.numbers}
        order: tuple[Outcome, ...] = ("not repeated", "within tolerance", "bit-equal")
        return next((outcome for outcome in order if outcome in found), "not repeated")


def repeat(
    checked: BundleCheck, bundle: OpenedBundle, found: FoundFiles, *, steps: int | None = None,
    note: Callable[[str], None] = lambda _: None, progress: Callable[[str, int, int], None] = lambda *_: None,
) -> BundleRepetition:  # fmt: skip
    """Do again what a bundle holds, with its own settings, and compare.

    Args:
        checked: The bundle, checked on this machine.
        bundle: The same, open.
        found: Where its data are.
        steps: Of a training only the first of these.
        note: Called with what the run says.
        progress: Called with (what, done, in all) during an evaluation.

    Raises:
        InputError: something that is needed is not here, or the run is of a kind that is not repeated.
    """
    if checked.obstacles:
        first = checked.obstacles[0]
        raise InputError("The run cannot be repeated here.", f"{first.what}: {first.here}.", "See the lines above.")
    kind = checked.facts["kind"]
    if steps is not None and kind != "training":
        raise InputError("--steps is for a training.", f"The bundle holds: {kind}.", "Leave --steps out.")
    served = (checked.facts.get("model") or {}).get("served")
    if kind == "sweep" or served:
        what = "An evaluation of a served model" if served else "A sweep"
        command = shlex.join(checked.facts["command"])
        raise InputError(f"{what} is not repeated by --run.", f"Its command: {command}", "Run that command.")
    with tempfile.TemporaryDirectory(prefix="stilnovo-bundle-") as name, _as_recorded(checked.facts) as notes:
        folder = Path(name)
        if kind == "comparison":
            return BundleRepetition(_comparison(bundle, folder), tuple(notes))
        if kind == "evaluation":
            return _evaluation(checked, bundle, found, folder, notes, note, progress)
        return _training(checked, bundle, found, folder, steps, notes, note)


@contextlib.contextmanager
def _as_recorded(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """Compute with the recorded number of threads and variables meanwhile; yields what was set."""
    import torch

    computing, threads = facts["computing"], torch.get_num_threads()
    before = {name: os.environ.get(name) for name in VARIABLES if name.startswith("STILNOVO_")}
    notes = []
    if isinstance(count := computing.get("threads"), int) and 0 < count <= 1024 and count != threads:
        torch.set_num_threads(count)
        notes.append(f"Computed with {count} threads, as recorded; this machine would have used {threads}.")
    try:
        if "variables" in computing:
            for name in before:
                _set(name, computing["variables"].get(name))
        yield notes
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if isinstance(value, str):
        os.environ[name] = value
    else:
        os.environ.pop(name, None)


def _entries(facts: Mapping[str, Any], use: str) -> list[dict[str, Any]]:
    return [entry for entry in facts["data"] if entry["use"] == use]


def _laid(entries: Sequence[dict[str, Any]], found: FoundFiles, bundle: OpenedBundle, folder: Path) -> list[str]:
    """Lay inputs, and return what names them for a recipe or a command, in their order."""
    names = []
    for index, entry in enumerate(entries):
        if entry["kind"] == BUILT_IN:
            names.append(entry["given"])
            continue
        below, single = folder / str(index), [file["name"] for file in entry["files"]] == [entry["given"]]
        named = below / (entry["given"] if not name_fault(entry["given"]) else "input")  # `.` and `..` were given too
        lay(entry, found, bundle, below if single else named)
        names.append(str(named))
    return names


def _device(recorded: object, notes: list[str]) -> str:
    import torch

    if isinstance(recorded, str) and recorded.startswith("cuda") and not torch.cuda.is_available():
        notes.append(f"The run was on {recorded}; this machine has no card.")
        return "auto"
    return str(recorded or "auto")


def _comparison(bundle: OpenedBundle, folder: Path) -> tuple[RepeatedNumber, ...]:
    results = []
    for side in ("before", "after"):
        bundle.extract(f"run/{side}/{FILE_NAME}", folder / side / FILE_NAME)
        results.append(load_result(folder / side))
    here = json.loads(json.dumps(comparison_figures(compare(*results))))
    recorded = bundle.json("run/comparison.json")
    return tuple(_tree("", recorded.get("tasks"), here["tasks"]))


def _tree(name: str, recorded: Any, here: Any) -> Iterator[RepeatedNumber]:
    """Every number of a tree of JSON values that was recorded."""
    if isinstance(recorded, dict):
        for key, value in recorded.items():
            yield from _tree(f"{name} {key}".strip(), value, here.get(key) if isinstance(here, dict) else None)
    elif isinstance(recorded, list):
        for index, value in enumerate(recorded):
            other = here[index] if isinstance(here, list) and index < len(here) else None
            yield from _tree(f"{name} {index + 1}", value, other)
    elif isinstance(recorded, int | float) and not isinstance(recorded, bool):
        yield RepeatedNumber(name, recorded, here if isinstance(here, int | float) else None, 1e-9 * abs(recorded))


def _evaluation(
    checked: BundleCheck, bundle: OpenedBundle, found: FoundFiles, folder: Path, notes: list[str],
    note: Callable[[str], None], progress: Callable[[str, int, int], None],
) -> BundleRepetition:  # fmt: skip
    bundle.extract(f"run/{FILE_NAME}", folder / "recorded" / FILE_NAME)
    recorded, facts = load_result(folder / "recorded"), checked.facts
    settings, benchmarks = recorded.settings, folder / "benchmarks"
    own: dict[str, str] = {}
    for entry in _entries(facts, "benchmark"):
        below = place(benchmarks, entry["given"]) if "task_file" in entry else benchmarks
        lay(entry, found, bundle, below)
        if "task_file" in entry:
            own[entry["given"]] = str(place(below, entry["task_file"]))
    _refuse_files_elsewhere([name for name in settings["tasks"] if name not in own])
    adapters = _laid(_entries(facts, "adapter"), found, bundle, folder / "adapter")
    assert checked.model is not None
    spec = ModelSpec(
        checked.model, Path(adapters[0]) if adapters else None, recorded.quantization, _device(settings.get("device"), notes)  # type: ignore[arg-type]
    )  # fmt: skip
    chosen = {name: settings[name] for name in _free_parameters() if name in settings}
    how = Prompting.of(settings.get("prompting") or {})
    here = api.evaluate_model(
        spec, [own.get(name, name) for name in settings["tasks"]],
        _laid(_entries(facts, "held-out text"), found, bundle, folder / "text"),
        draw=api.Draw(settings.get("limit"), settings["seed"], settings["protocol"]["name"]),
        data_dir=benchmarks if benchmarks.is_dir() else None, use_cache=False, note=note, progress=progress,
        **{**chosen, "prompting": how},
    )  # fmt: skip
    return BundleRepetition(tuple(_scores(recorded, here)), tuple(notes), here.settings)


def _refuse_files_elsewhere(tasks: Sequence[str]) -> None:
    """Refuse names of tasks that are files of this machine: a bundle may open, and run, only what was found by its hash."""
    if own := [name for name in tasks if Path(name).suffix in SUFFIXES]:
        raise InputError(
            f"The bundle names a task file {own[0]!r}, and has no hash of it.",
            next="Run the command of the bundle yourself, if you trust the file.",
        )


def _free_parameters() -> list[str]:
    """Parameters of an evaluation that its settings record under their own name."""
    elsewhere = {"spec", "tasks", "texts", "draw", "data_dir", "download", "cache", "use_cache", "note", "progress"}
    return [name for name in inspect.signature(api.evaluate_model).parameters if name not in elsewhere]


def _scores(recorded: EvaluationResult, here: EvaluationResult) -> Iterator[RepeatedNumber]:
    for name, task in recorded.tasks.items():
        again = here.tasks.get(name)
        for metric in task.metrics:
            other = again.score(metric).value if again is not None and metric in again.metrics else None
            yield RepeatedNumber(f"{name} {metric}", task.score(metric).value, other, max(SHARE, 1 / task.n) + 1e-12)
        if again is not None:
            yield from _items(name, task, again)
    if recorded.text is not None:
        bits, again_text = recorded.text.bits_per_byte().value, here.text
        value = None if again_text is None else again_text.bits_per_byte().value
        yield RepeatedNumber("bits per byte", bits, value, LOSS * bits)
        if again_text is not None:
            same = again_text.texts_sha256 == recorded.text.texts_sha256
            yield RepeatedNumber("the same texts", 1, int(same))
            if same:
                gap = max(abs(a - b) for a, b in zip(recorded.text.nats, again_text.nats, strict=True))
                most = max(recorded.text.nats, default=0.0)
                yield RepeatedNumber("largest difference of a document, nats", 0.0, gap, LOSS * most)


def _items(name: str, recorded: TaskResult, here: TaskResult) -> Iterator[RepeatedNumber]:
    """How many items are the same question, are graded alike, and how far their log-likelihoods are apart."""
    asked = dict(zip((item.id for item in here.items), zip(here.items, here.hashes, strict=True), strict=True))
    pairs = [
        (item, asked[item.id][0])
        for item, digest in zip(recorded.items, recorded.hashes, strict=True)
        if item.id in asked and asked[item.id][1] == digest
    ]
    yield RepeatedNumber(f"{name}: items with the same question", recorded.n, len(pairs))
    alike = sum(item.values == again.values for item, again in pairs)
    yield RepeatedNumber(f"{name}: items graded alike", recorded.n, alike, max(1.0, 0.02 * recorded.n))
    yield from _written(name, recorded, here)
    gaps = [
        abs(a - b)
        for item, again in pairs
        for a, b in zip(item.loglikelihoods, again.loglikelihoods, strict=False)
    ]  # fmt: skip
    if gaps:
        yield RepeatedNumber(f"{name}: largest difference of a log-likelihood, nats", 0.0, max(gaps), NATS)


def _written(name: str, recorded: TaskResult, here: TaskResult) -> Iterator[RepeatedNumber]:
    """How many answers have the same words; on other hardware words may differ where the grades do not, so any number is tolerated."""
    before, after = (
        {(part.prompt, part.repeat, item.id): item.text for part in task.all_rounds for item in part.items}
        for task in (recorded, here)
    )
    if count := sum(map(bool, before.values())):
        alike = sum(bool(text) and after.get(place) == text for place, text in before.items())
        yield RepeatedNumber(f"{name}: answers with the same words", count, alike, count)


class _FirstSteps(Observer):
    """Ends a training after its first steps, whose learning rates are those of the whole."""

    def __init__(self, steps: int | None) -> None:
        self.steps, self.reached = steps, False

    def step(self, row: dict[str, Any]) -> None:
        """End it once the last of them is written."""
        if row["step"] == self.steps:
            self.reached = True
            raise KeyboardInterrupt


def _training(
    checked: BundleCheck, bundle: OpenedBundle, found: FoundFiles, folder: Path, steps: int | None, notes: list[str],
    note: Callable[[str], None],
) -> BundleRepetition:  # fmt: skip
    bundle.extract("run/recipe.yaml", folder / "recipe.yaml")
    recipe = _recipe_here(load_recipe(folder / "recipe.yaml"), checked, found, bundle, folder, notes)
    bundle.extract("run/metrics.jsonl", folder / "metrics.jsonl")
    recorded = _rows(folder / "metrics.jsonl")
    planned = max((row["step"] for row in recorded), default=0)
    if not planned:
        raise InputError("The training in the bundle has made no step.", next="There is nothing to repeat.")
    first = _FirstSteps(planned if steps is None else min(steps, planned))
    run = api.open_training(recipe, folder / "run", note=note, observers=[first])
    whole = first.steps == run.trainer.steps
    if whole:
        first.steps = None  # nothing is cut: its end is repeated too
    try:
        run.train()
    except KeyboardInterrupt:
        if not first.reached:
            raise
    levers = json.loads((folder / "run" / "manifest.json").read_text(encoding="utf-8"))["levers"]
    if checked.facts.get("levers") != levers:
        notes.append("The memory plan is another here: the step may round otherwise.")
    here = _rows(folder / "run" / "metrics.jsonl")
    if whole:
        notes += _adapter_note(checked.facts, folder / "run" / "adapter" / ADAPTER_FILES[1])
    else:
        notes.append(f"Repeated: the first {len(here):,} of {run.trainer.steps:,} steps.")
    return BundleRepetition(
        tuple(_steps(recorded, here, first.steps or planned)), tuple(notes), recipe.model_dump(mode="json")
    )


def _adapter_note(facts: Mapping[str, Any], weights: Path) -> Iterator[str]:
    """Whether the same adapter came of it, byte by byte."""
    for entry in _entries(facts, TRAINED):
        recorded = next((file["sha256"] for file in entry["files"] if file["name"] == weights.name), None)
        if recorded is not None and weights.is_file():
            yield f"The adapter's file is {'the same, byte by byte' if sha256_file(weights) == recorded else 'another'}."


def _recipe_here(
    recipe: Recipe, checked: BundleCheck, found: FoundFiles, bundle: OpenedBundle, folder: Path, notes: list[str]
) -> Recipe:
    """The recipe with the places where this machine has model and data."""
    facts = checked.facts
    frozen = _laid(_entries(facts, "frozen adapter"), found, bundle, folder / "frozen")
    changes: dict[str, Any] = {
        "model.name": checked.model, "model.device": _device(recipe.model.device, notes),
        "model.adapter": frozen[0] if frozen else None, "train.trackers": [], "train.samples": [],
        "train.sample_tokens": Recipe().train.sample_tokens,
        "data.paths": _laid(_entries(facts, "training data"), found, bundle, folder / "data"),
        "data.rehearsal": _laid(_entries(facts, "rehearsal"), found, bundle, folder / "rehearsal"),
    }  # fmt: skip
    if recipe.guard.every:
        _refuse_files_elsewhere(recipe.guard.tasks)
        changes["guard.texts"] = _laid(_entries(facts, "protected text"), found, bundle, folder / "protected")
        if recipe.guard.data_dir is not None and found.folders:
            changes["guard.data_dir"] = str(found.folders[0])
    return recipe.changed(changes)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _steps(recorded: list[dict[str, Any]], here: list[dict[str, Any]], most: int) -> Iterator[RepeatedNumber]:
    """Loss, gradient norm and held-out loss of every step."""
    again = {row["step"]: row for row in here}
    for row in recorded:
        if row["step"] > most:
            continue
        other = again.get(row["step"], {})
        for key, name, tolerance in _STEP_NUMBERS:
            value = row.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                yield RepeatedNumber(f"step {row['step']} {name}", value, other.get(key), tolerance * abs(value))
