"""Trackers get every step under its usual name, go on with a resumed run, stay offline, and never harm a training."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest

from stilnovo.errors import InputError
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import Tracker as TrackerName
from stilnovo.runlog import RunFolder
from stilnovo.train.run import TrainingRun
from stilnovo.train.trackers import TRACKERS, check_installed, scalars, trackers

ROW = {
    "step": 7, "loss": 2.5, "learning_rate": 1e-4, "gradient_norm": 0.5, "tokens": 70, "margin": 0.1, "held_out_loss": 3.0,
    "base_held_out_loss": 4.0, "samples": [{"prompt": "Chi è?", "answer": "*Dante*\n# <b>"}], "worst": math.nan, "seen": True,
}  # fmt: skip


class Calls:
    """Stands for any package: every attribute can be called, is a package itself, and is noted with its arguments."""

    def __init__(self, log: list[tuple[str, tuple[Any, ...], dict[str, Any]]], name: str = "") -> None:
        self._log, self._name = log, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Calls(self._log, name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        self._log.append((self._name, values, named))
        logged = [values for what, values, _ in self._log if what == "Metric"]
        answers: dict[str, Any] = {
            "get_experiment_by_name": None, "create_experiment": "1",
            "create_run": SimpleNamespace(info=SimpleNamespace(run_id="r1")),
            "get_run": SimpleNamespace(data=SimpleNamespace(metrics={name: value for name, value, *_ in logged})),
            "get_metric_history": [SimpleNamespace(step=one[3]) for one in logged if one[0] == values[-1:][0]] if values else [],
        }  # fmt: skip
        return answers.get(self._name, self)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """All four packages replaced; what was called on them."""
    log: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    for name in (
        "tensorboard",
        "torch.utils.tensorboard",
        "wandb",
        "mlflow",
        "mlflow.entities",
        "mlflow.tracking",
        "trackio",
    ):
        module: Any = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__getattr__ = Calls(log).__getattr__
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "WANDB_ERROR_REPORTING",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ALLOW_FILE_STORE",
        "GRADIO_ANALYTICS_ENABLED",
    ):
        monkeypatch.setenv(name, "set")
    return log


def observed(folder: Path) -> Any:
    return SimpleNamespace(recipe=Recipe(), folder=RunFolder(folder), corpus=None, plan=None)


def test_names_are_those_of_the_recipe() -> None:
    assert tuple(TRACKERS) == get_args(TrackerName)
    assert len(trackers(["wandb", "wandb", "mlflow"])) == 2


def test_figures_have_the_usual_names() -> None:
    assert scalars(ROW) == {
        "train/loss": 2.5, "train/learning_rate": 1e-4, "train/grad_norm": 0.5, "train/num_input_tokens_seen": 70,
        "train/margin": 0.1, "eval/loss": 3.0, "eval/base_loss": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_logs_and_goes_on_after_a_resume(name: str, tmp_path: Path, calls: list[Any]) -> None:
    run, figures = observed(tmp_path / "run"), scalars(ROW)
    for _ in range(2):
        (tracker,) = trackers([name])
        tracker.begin(run)
        tracker.step(ROW)
        tracker.checkpoint(7)
        tracker.end(run, "interrupted")
        run.folder.append_metrics({"step": 7})
    made = [(what, values, named) for what, values, named in calls if what in ("SummaryWriter", "init", "create_run")]
    by_name = {what: (values, named) for what, values, named in calls}
    key = json.loads((tmp_path / "run" / "trackers.json").read_text())[TRACKERS[name].package]
    if name == "tensorboard":
        assert [named for _, _, named in made] == [{"purge_step": None}, {"purge_step": 8}]
        written = [values for what, values, _ in calls if what == "add_scalar"]
        assert written == 2 * [(figure, value, 7) for figure, value in figures.items()]
        assert ("add_text", ("samples/1", "    > Chi è?\n    *Dante*\n    # <b>\n", 7), {}) in calls
    elif name == "wandb":
        assert [(named["id"], named["resume"], named["mode"]) for _, _, named in made] == 2 * [
            (key, "allow", "offline")
        ]
        assert made[0][2]["config"] == Recipe().model_dump(mode="json")
        assert ("log", ({**figures, "train/global_step": 7},), {}) in calls
        assert by_name["finish"] == ((), {"exit_code": 0})
    elif name == "mlflow":
        assert len(made) == 1 and key == "r1"
        assert by_name["MlflowClient"] == (((tmp_path / "run" / "mlruns").as_uri(),), {})
        logged = [values[:2] + values[3:] for what, values, _ in calls if what == "Metric"]
        assert logged == [(figure, value, 7) for figure, value in figures.items()]
        assert by_name["set_terminated"] == (("r1",), {"status": "KILLED"})
    else:
        assert [named["resume"] for _, _, named in made] == ["allow", "allow"]
        assert made[0][2]["name"] == made[1][2]["name"] == f"run-{key[:6]}"
        assert ("log", (figures,), {"step": 7}) in calls


def test_no_step_is_logged_twice_after_a_kill(
    tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 6, in the middle of what it sends to MLflow; resumed from the checkpoint of step 3."""
    monkeypatch.setattr(Calls, "_next_step", 0, raising=False)
    monkeypatch.setattr(Calls, "summary", {}, raising=False)
    names = ["wandb", "mlflow", "trackio"]
    run = observed(tmp_path / "run")
    for tracker in trackers(names):
        tracker.begin(run)
        for step in range(1, 7):
            tracker.step({**ROW, "step": step})
    cut = max(at for at, (what, _, _) in enumerate(calls) if what == "Metric")
    calls[cut] = ("lost", (), {})
    for step in range(1, 4):
        run.folder.append_metrics({"step": step})
    monkeypatch.setattr(Calls, "_next_step", 7)
    monkeypatch.setattr(Calls, "summary", {"train/global_step": 6})
    for tracker in trackers(names):
        tracker.begin(run)
        for step in range(4, 9):
            tracker.step({**ROW, "step": step})
    figures = scalars(ROW)
    held = [(values[0], values[3]) for what, values, _ in calls if what == "Metric"]
    assert sorted(held) == sorted((figure, step) for figure in figures for step in range(1, 9))
    sent = [(values[0], named) for what, values, named in calls if what == "log" and "train/loss" in values[0]]
    assert [row["train/global_step"] for row, _ in sent if "train/global_step" in row] == [*range(1, 9)]
    assert [named["step"] for _, named in sent if "step" in named] == [*range(1, 9)]


def test_the_users_environment_decides_where_they_go(
    tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    for tracker in trackers(["wandb", "mlflow"]):
        tracker.begin(observed(tmp_path))
    by_name = {what: (values, named) for what, values, named in calls}
    assert by_name["init"][1]["mode"] == "online"
    assert by_name["MlflowClient"][0] == ("http://tracking:5000",)


def test_missing_packages_are_all_named_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "stilnovo.train.trackers.find_spec", lambda name: None if name in ("wandb", "trackio") else name
    )
    with pytest.raises(InputError, match=re.escape("pip install 'stilnovo[wandb,trackio]'")):
        check_installed(TRACKERS)
    recipe = Recipe().changed({"model.name": "/no/model", "train.trackers": ["wandb"]})
    with pytest.raises(InputError, match="wandb"):
        TrainingRun(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def losses(folder: Path, tiny: Path, names: list[str]) -> list[float]:
    recipe = Recipe().changed(
        {"model.name": str(tiny), "model.device": "cpu", "lora.r": 4, "data.max_documents": 10, "data.pack_tokens": 64,
         "train.steps": 3, "train.trackers": names}
    )  # fmt: skip
    TrainingRun(recipe, folder).train()
    return [row["loss"] for row in RunFolder(folder).metrics()]


def test_the_losses_are_the_bare_runs_and_a_failing_tracker_is_dropped(
    tmp_path: Path,
    tiny_folder: Path,
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = losses(tmp_path / "bare", tiny_folder, [])
    assert losses(tmp_path / "all", tiny_folder, list(TRACKERS)) == bare
    assert sum(what == "log_batch" for what, _, _ in calls) == 3
    monkeypatch.setattr(TRACKERS["wandb"], "log", lambda self, step, figures: 1 / 0)
    assert losses(tmp_path / "failing", tiny_folder, ["wandb"]) == bare
    assert "WeightsAndBiases is left out from here on: division by zero" in caplog.text


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.filterwarnings("ignore")
def test_with_the_real_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(TRACKERS[name].package) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = observed(tmp_path / "run")
    for session in range(2):
        (tracker,) = trackers([name])
        tracker.begin(run)
        for step in range(3 * session + 1, 3 * session + 4):
            tracker.step({**ROW, "step": step})
            run.folder.append_metrics({"step": step})
        tracker.end(run, "finished")
