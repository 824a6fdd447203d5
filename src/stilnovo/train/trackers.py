"""Trackers: a training's metrics also go to TensorBoard, Weights & Biases, MLflow and trackio, under their usual names.

Unusual: nothing leaves the machine unless the user's own environment says so: W&B writes offline runs (`wandb sync` sends
them), MLflow a store inside the run folder, trackio its local database. Each package is imported when its run begins; one
that fails is dropped by `stilnovo.train.observers` and the training goes on.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.runlog import write_atomic
from stilnovo.train.observers import ObservedRun, Observer

PROJECT = "stilnovo"
FILE = "trackers.json"
#: What other trainers call the figures of `metrics.jsonl`; all others keep their name, under `train/`.
NAMES = {
    "held_out_loss": "eval/loss", "base_held_out_loss": "eval/base_loss", "evaluation_seconds": "eval/runtime",
    "gradient_norm": "train/grad_norm", "tokens": "train/num_input_tokens_seen",
}  # fmt: skip


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """Rename a row of `metrics.jsonl` as the trackers' users know it; only finite numbers, without the step."""
    return {
        NAMES.get(name, f"train/{name}"): value
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step" and math.isfinite(value)
    }


class Tracker(Observer, ABC):
    """An observer that sends every step's figures to a package; a resumed training appends to its earlier run.

    After a kill a training goes on from its checkpoint, and makes again steps that the tracker may hold already. They are
    the same (on a card but for their last digits), so that those are not sent again.

    Attributes:
        package: What is imported, and installed by this name.
        resumed: Step from which the training goes on; 0 for a new one.
        logged: Last step that the tracker holds already; 0 where it replaces what it is sent again.
        key: The run's identity at the tracker, kept in the run folder.
    """

    package: str

    def begin(self, run: ObservedRun) -> None:
        """See `Observer.begin`."""
        rows = run.folder.metrics()
        self.resumed, self.logged = rows[-1]["step"] if rows else 0, 0
        self.folder = run.folder.path
        known = _known(self.folder)
        self.key = known.get(self.package) or uuid.uuid4().hex[:12]
        self.title = f"{self.folder.resolve().name}-{self.key[:6]}"
        self.open(run)
        write_atomic(self.folder / FILE, json.dumps(_known(self.folder) | {self.package: self.key}) + "\n")

    def step(self, row: dict[str, Any]) -> None:
        """See `Observer.step`."""
        if row["step"] <= self.logged:
            return
        self.log(row["step"], scalars(row))
        if samples := row.get("samples"):
            self.log_samples(row["step"], samples)

    def end(self, run: ObservedRun, status: str) -> None:
        """See `Observer.end`."""
        self.close(status)

    @abstractmethod
    def open(self, run: ObservedRun) -> None:
        """Open the tracker's run, or go on with it; sets `logged` where the tracker can be asked."""

    @abstractmethod
    def log(self, step: int, figures: dict[str, float]) -> None:
        """Log the figures of a step."""

    @abstractmethod
    def log_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """Log the answers (`prompt`, `answer`) generated at a step."""

    @abstractmethod
    def close(self, status: str) -> None:
        """Close the tracker's run."""


class TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run folder; a resumed training purges what came after its checkpoint."""

    package = "tensorboard"

    def open(self, run: ObservedRun) -> None:
        """See `Tracker.open`."""
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self.writer: Any = writer(
            str(self.folder / "tensorboard"), purge_step=self.resumed + 1 if self.resumed else None
        )
        if not self.resumed:
            self.writer.add_text("recipe", _indented(run.recipe.to_yaml()), 0)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """See `Tracker.log`."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def log_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """See `Tracker.log_samples`."""
        for index, sample in enumerate(samples, 1):
            self.writer.add_text(f"samples/{index}", _indented(_dialogue(sample)), step)

    def checkpoint(self, step: int) -> None:
        """See `Observer.checkpoint`."""
        self.writer.flush()

    def close(self, status: str) -> None:
        """See `Tracker.close`."""
        self.writer.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise."""

    package = "wandb"

    def open(self, run: ObservedRun) -> None:
        """See `Tracker.open`."""
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.wandb = import_module("wandb")
        # Its own capture of the terminal, and what it reads of the machine, the code and the git repository, stay off.
        quiet = self.wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
        )
        self.run: Any = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=self.key, name=self.title, resume="allow", mode=mode,
            dir=str(self.folder), config=run.recipe.model_dump(mode="json"), settings=quiet,
        )  # fmt: skip
        # An axis of its own: W&B's counter cannot go back to a checkpoint's step.
        self.run.define_metric("train/global_step")
        self.run.define_metric("*", step_metric="train/global_step", step_sync=True)
        # Known of a run at the server only; of an offline one, a step that comes again is drawn at the same place.
        self.logged = _whole(self.run.summary.get("train/global_step"))

    def log(self, step: int, figures: dict[str, float]) -> None:
        """See `Tracker.log`."""
        self.run.log({**figures, "train/global_step": step})

    def log_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """See `Tracker.log_samples`."""
        rows = [[sample["prompt"], sample["answer"]] for sample in samples]
        table = self.wandb.Table(columns=["prompt", "answer"], data=rows)
        self.run.log({"samples": table, "train/global_step": step})

    def close(self, status: str) -> None:
        """See `Tracker.close`."""
        self.run.finish(exit_code=int(status == "failed"))


class MLflow(Tracker):
    """A run of MLflow, in `mlruns/` of the run folder unless MLFLOW_TRACKING_URI names a store."""

    package = "mlflow"

    def open(self, run: ObservedRun) -> None:
        """See `Tracker.open`."""
        # Both are read when the package is imported; its file store asks to be chosen by name.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (self.folder / "mlruns").resolve().as_uri()
        self.metric = import_module("mlflow.entities").Metric
        self.client: Any = import_module("mlflow.tracking").MlflowClient(uri)
        self.held: dict[str, int] = {}  # last step by figure: a kill may leave a part of a step's
        if self.key in _known(self.folder).values():
            self.client.update_run(self.key, status="RUNNING")
            for figure in self.client.get_run(self.key).data.metrics:
                history = self.client.get_metric_history(self.key, figure)
                self.held[figure] = max((metric.step for metric in history), default=0)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.key = self.client.create_run(number, run_name=self.title).info.run_id
        for section, keys in run.recipe.model_dump(mode="json").items():
            for key, value in keys.items():
                self.client.log_param(self.key, f"{section}.{key}", str(value)[:500])

    def log(self, step: int, figures: dict[str, float]) -> None:
        """See `Tracker.log`."""
        now = int(1000 * time.time())
        new = {name: value for name, value in figures.items() if step > self.held.get(name, 0)}
        if new:
            metrics = [self.metric(name, value, now, step) for name, value in new.items()]
            self.client.log_batch(self.key, metrics=metrics)

    def log_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """See `Tracker.log_samples`."""
        self.client.log_text(self.key, "\n\n".join(map(_dialogue, samples)) + "\n", f"samples/step-{step}.txt")

    def close(self, status: str) -> None:
        """See `Tracker.close`."""
        ended = {"failed": "FAILED", "interrupted": "KILLED"}.get(status, "FINISHED")
        self.client.set_terminated(self.key, status=ended)


class Trackio(Tracker):
    """A run of trackio in its local database, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL name another place."""

    package = "trackio"

    def open(self, run: ObservedRun) -> None:
        """See `Tracker.open`."""
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        self.trackio = import_module("trackio")
        with _silent():
            self.run: Any = self.trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=self.title, resume="allow", embed=False,
                config=run.recipe.model_dump(mode="json"), auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip
        # What its own counter goes on from: it has asked its database, or the server.
        self.logged = _whole(getattr(self.run, "_next_step", 0)) - 1

    def log(self, step: int, figures: dict[str, float]) -> None:
        """See `Tracker.log`."""
        self.run.log(dict(figures), step=step)

    def log_samples(self, step: int, samples: list[dict[str, str]]) -> None:
        """See `Tracker.log_samples`."""
        text = "\n\n".join(_indented(_dialogue(sample)) for sample in samples)
        self.run.log({"samples": self.trackio.Markdown(text)}, step=step)

    def close(self, status: str) -> None:
        """See `Tracker.close`."""
        with _silent():
            self.trackio.finish()  # also takes it from the package's exit hook


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio,
}  # fmt: skip


def check_installed(names: Iterable[str]) -> None:
    """Refuse trackers whose package is missing.

    Raises:
        InputError: naming all of them, with the line that installs them.
    """
    missing = [name for name in names if find_spec(TRACKERS[name].package) is None]
    if missing:
        raise InputError(
            f"Trackers cannot be used: {', '.join(missing)}.",
            "The Python packages of these names are not installed.",
            f"Run: pip install 'stilnovo[{','.join(missing)}]'; or leave them out of train.trackers.",
        )


def trackers(names: Iterable[str]) -> list[Observer]:
    """Make the observers of `train.trackers`."""
    return [TRACKERS[name]() for name in dict.fromkeys(names)]


def _known(folder: Path) -> dict[str, str]:
    """The runs that this training already has at trackers; none where the file is damaged."""
    try:
        known = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _dialogue(sample: dict[str, str]) -> str:
    return f"> {sample['prompt']}\n{sample['answer']}"


def _indented(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """Keep what a package prints from the command's own output."""
    return contextlib.redirect_stdout(io.StringIO())
