"""The guard of a training: it disturbs nothing, ends what destroys, goes back to the best step, and survives a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stilnovo.errors import InputError
from stilnovo.forgetting.guard import Guard, guard_callback
from stilnovo.forgetting.slice import measure
from stilnovo.model import lora
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import GuardSection
from stilnovo.runlog import RunFolder
from stilnovo.train import checkpoint
from stilnovo.train.run import TrainingRun

WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture
def guarded(tiny_folder: Path, tmp_path: Path) -> Recipe:
    """A gentle recipe whose guard protects a benchmark, texts and conversations, and looks five times.

    What is learnt has no letter of the protected text: the more of the one, the less of the other.
    """
    rows = [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    other = [{"text": f"{i}: " + "ЯЖФЩ" * (2 + i % 5)} for i in range(12)]
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps(row) for row in other))
    chat = [{"instruction": f"Say {i}.", "output": f"It is {i}, said as asked."} for i in range(12)]
    (tmp_path / "chat.jsonl").write_text("\n".join(json.dumps(row) for row in chat))
    return Recipe.model_validate(
        {
            "model": {"name": str(tiny_folder), "device": "cpu"},
            "lora": {"r": 4, "dropout": 0.1},
            "data": {"paths": [str(tmp_path / "data.jsonl")], "pack_tokens": 64, "held_out": 0.3},
            "train": {"steps": 10, "checkpoint_every": 3, "learning_rate": 1e-3, "keep_checkpoints": 1},
            "guard": {
                "every": 2, "tasks": ["sample_questions"], "items": 8, "documents": 12,
                "texts": [str(tmp_path / "other.jsonl"), str(tmp_path / "chat.jsonl")],
                "tolerance_points": 90, "tolerance_percent": 500,
            },
        }
    )  # fmt: skip


def opened(recipe: Recipe, folder: Path, *, resume: bool = False) -> TrainingRun:
    return TrainingRun(recipe, folder, resume=resume, make_callback=guard_callback(recipe, folder))


def test_the_gain_of_a_training_on_conversations_is_measured_on_those_held_out(guarded: Recipe, tmp_path: Path) -> None:
    talks = [{"instruction": f"Dimmi {i}.", "output": f"Ecco {i}, come chiesto."} for i in range(40)]
    (tmp_path / "talks.jsonl").write_text("\n".join(json.dumps(row) for row in talks))
    recipe = guarded.changed({"train.task": "sft", "data.paths": [str(tmp_path / "talks.jsonl")]})
    run = opened(recipe, tmp_path / "run")
    assert isinstance(run.callback, Guard)
    assert len(run.callback.what.gain) == 12
    assert set(run.callback.what.gain) <= set(run.corpus.held_out)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in RunFolder(folder).metrics()]


def history(folder: Path) -> list[dict[str, Any]]:
    """What the guard wrote, without the seconds it took."""
    rows = [json.loads(line) for line in (folder / "guard.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize("dropout", [0.1, 0.0])  # torch's autograd, and the engine
def test_a_guard_that_never_fires_changes_nothing(guarded: Recipe, tmp_path: Path, dropout: float) -> None:
    guarded = guarded.changed({"lora.dropout": dropout})
    opened(guarded, tmp_path / "with").train()
    TrainingRun(guarded.model_copy(update={"guard": GuardSection()}), tmp_path / "without").train()
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert (tmp_path / "with" / WEIGHTS).read_bytes() == (tmp_path / "without" / WEIGHTS).read_bytes()
    assert [row["step"] for row in history(tmp_path / "with")] == [2, 4, 6, 8, 10]
    summary = json.loads((tmp_path / "with" / "train.json").read_text())["guard"]
    assert (summary["ended"], summary["adapter_step"], summary["evaluations"]) == (False, 10, 5)
    assert not (tmp_path / "without" / "guard.jsonl").exists()


def test_what_is_written_is_what_the_evaluation_finds(guarded: Recipe, tmp_path: Path) -> None:
    run = opened(guarded, tmp_path / "run")
    run.train()
    guard, last = run.callback, history(tmp_path / "run")[-1]["figures"]
    assert isinstance(guard, Guard)
    assert guard.base is not None
    after = measure(run.model, run.tokenizer, guard.what)
    lora.set_enabled(run.model, False)
    before = measure(run.model, run.tokenizer, guard.what)
    assert before.nats["other"] == pytest.approx(guard.base.nats["other"], rel=1e-6)
    for one in last["protected"][1:]:
        nats = [math.fsum(answers.nats[one["name"]]) for answers in (before, after)]
        assert one["change"] == pytest.approx(100 * (1 - nats[1] / nats[0]), abs=1e-3)
    from stilnovo.scoring.perplexity import score_texts

    texts = [text for text in guard.what.texts["other"] if isinstance(text, str)]
    expected = score_texts(run.model, run.tokenizer, texts)
    assert before.nats["other"] == pytest.approx(expected.nats, rel=1e-5)
    assert tuple(before.sizes["other"]) == expected.sizes


def destructive(recipe: Recipe, on_loss: str) -> Recipe:
    """Learns other letters only, until the protected ones have become less probable."""
    return recipe.changed(
        {
            "train.learning_rate": 3e-3, "train.warmup_ratio": 0.5, "train.steps": 14, "train.schedule": "constant",
            "guard.on_loss": on_loss, "guard.tasks": [], "guard.items": 100,
            "guard.tolerance_points": 2, "guard.tolerance_percent": 2,
        }
    )  # fmt: skip


@pytest.mark.parametrize("on_loss", ["stop", "best"])
def test_a_training_that_destroys_is_ended(
    guarded: Recipe, tmp_path: Path, on_loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    recipe = destructive(guarded, on_loss)
    run = opened(recipe, tmp_path / "run")
    saved: dict[int, list[torch.Tensor]] = {}
    save = run.trainer.save

    def noting() -> None:
        save()
        saved[run.trainer.step] = [p.detach().clone() for p in run.trainer.parameters]

    run.trainer.save = noting  # type: ignore[method-assign]
    result, _ = run.train()
    rows, summary = history(tmp_path / "run"), json.loads((tmp_path / "run" / "train.json").read_text())["guard"]
    assert [row["lost"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert summary["ended"]
    assert summary["step"] == result.steps == rows[-1]["step"] < summary["planned_steps"] == 14
    assert summary["why"] == rows[-1]["text"]
    assert "lower 95 % bound of the regression" in summary["why"]
    assert f"Step {result.steps}: regressed" in caplog.text
    lost = [one for one in rows[-1]["figures"]["protected"] if one["lost"]]
    assert lost
    assert all(one["at_most"] < -one["allowed"] for one in lost)
    best = summary["best_step"]
    within = [row for row in rows if row["within"] and not row["lost"]]
    assert best == (max(within, key=lambda row: row["gain"])["step"] if within else 0)
    wanted = saved[result.steps if on_loss == "stop" else best]
    assert summary["adapter_step"] == (result.steps if on_loss == "stop" else best)
    kept = list(load_file(tmp_path / "run" / WEIGHTS).values())
    names = list(lora.adapters(run.model))
    in_order = load_file(tmp_path / "run" / WEIGHTS)
    for name, (a, b) in zip(names, zip(wanted[::2], wanted[1::2], strict=True), strict=True):
        assert torch.equal(in_order[f"base_model.model.{name}.lora_A.weight"], a)
        assert torch.equal(in_order[f"base_model.model.{name}.lora_B.weight"], b)
    assert len(kept) == len(wanted)
    # to resume what was ended changes nothing
    before = (tmp_path / "run" / WEIGHTS).read_bytes()
    again, _ = opened(recipe, tmp_path / "run", resume=True).train()
    assert again.steps == result.steps
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == before
    assert history(tmp_path / "run") == rows


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from stilnovo.recipe import load
from test_guard import opened
run = opened(load(Path({recipe!r})), Path({folder!r}), resume={resume})
step = run.trainer.train_step
def slowly(batches):
    time.sleep(0.05)
    return step(batches)
run.trainer.train_step = slowly
run.train()
"""


def child(recipe: Path, folder: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), recipe=str(recipe), folder=str(folder), resume=resume)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=environment)


def test_killed_and_resumed_it_sees_the_same(guarded: Recipe, tmp_path: Path) -> None:
    recipe = destructive(guarded, "best")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    opened(recipe, tmp_path / "whole").train()
    expected = history(tmp_path / "whole")
    assert len(expected) >= 2
    process = child(tmp_path / "recipe.yaml", tmp_path / "cut", resume=False)
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "cut")) < 2 * len(expected) - 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert checkpoint.steps(tmp_path / "cut" / "checkpoints")
    with child(tmp_path / "recipe.yaml", tmp_path / "cut", resume=True) as again:
        assert again.wait(120) == 0
    assert history(tmp_path / "cut") == expected
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_look_that_fails_is_made_again(guarded: Recipe, tmp_path: Path) -> None:
    # as when the machine has no memory for it: the step is made, the look is not
    whole = opened(guarded, tmp_path / "whole")
    whole.train()
    run = opened(guarded, tmp_path / "run")
    assert run.callback is not None
    look, failed = run.callback.evaluate, list[int]()

    def failing(step: int, model: Any) -> Any:
        if step == 4 and not failed:
            failed.append(step)
            raise RuntimeError("no")
        return look(step, model)

    run.callback.evaluate = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        run.trainer.run_all()
    run.train()
    assert failed
    assert history(tmp_path / "run") == history(tmp_path / "whole")


def test_the_best_checkpoint_outlives_newer_ones(tmp_path: Path) -> None:
    state = {"step": 0, "parameters": [torch.zeros(2)]}
    for step, best in ((0, 0), (2, 2), (4, 2), (6, 2), (8, 8), (9, 8), (10, 8)):
        checkpoint.save(tmp_path, step, {**state, "step": step}, keep=1, best={best})
        assert best in checkpoint.steps(tmp_path)
        assert len(checkpoint.steps(tmp_path)) <= 2
    assert checkpoint.at(tmp_path, 8)["step"] == 8
    (tmp_path / "step-8" / "state.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)step 8 is missing or damaged.*8, 10"):
        checkpoint.at(tmp_path, 8)


def test_the_base_is_asked_once(guarded: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(guarded, tmp_path / "run")
    first.train()
    path = tmp_path / "run" / "guard" / "base.json"
    before = path.read_bytes()
    import stilnovo.forgetting.guard as module

    monkeypatch.setattr(module, "measure", None)
    again = opened(guarded, tmp_path / "run", resume=True)
    assert isinstance(again.callback, Guard)
    again.callback.begin(again.model)
    assert again.callback.base == first.callback.base  # type: ignore[union-attr]
    monkeypatch.undo()
    path.write_text(before.decode()[:-30])  # damaged: asked anew, with the adapter that has learnt switched off
    again.callback.begin(again.model)
    assert path.read_bytes() == before
    again.callback.identity = "another base"
    again.callback.begin(again.model)
    assert path.read_bytes() != before


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("unknown task", {"guard.tasks": ["sample_question"]}, "no task 'sample_question'"),
    ("written answers", {"guard.tasks": ["squad_it"], "guard.data_dir": "DATA"}, "answers are generated"),
    ("nothing", {"guard.tasks": [], "guard.texts": []}, "nothing to protect"),
    ("too late", {"guard.every": 11}, r"(?s)after step 11.*ends after step 10"),
    ("no folder", {"guard.data_dir": "/nowhere/at/all"}, "no folder /nowhere/at/all"),
    ("no data", {"guard.tasks": ["arc_it"]}, "arc_it"),
    ("no file", {"guard.texts": ["/nowhere.jsonl"]}, "nowhere.jsonl"),
    ("learnt and protected", {"guard.texts": ["X"], "data.rehearsal": ["X"]}, "X is training data and protected"),
    ("few documents", {"guard.texts": ["SHORT"]}, r"(?s)has 1 document\..*at least 8"),
    ("no items", {"guard.items": 0}, r"guard\.items"),
    ("few documents asked", {"guard.documents": 3}, r"guard\.documents"),
]


@pytest.mark.parametrize(("changes", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_told_before_a_model_is_read(
    guarded: Recipe, tmp_path: Path, changes: dict[str, Any], message: str, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "short.txt").write_text("Una riga.\n")
    changes = dict(changes)
    if changes.get("guard.data_dir") == "DATA":
        changes["guard.data_dir"] = str(request.getfixturevalue("shared_data") / "benchmarks")
    if changes.get("guard.texts") == ["SHORT"]:
        changes["guard.texts"] = [str(tmp_path / "short.txt")]
    with pytest.raises(InputError, match=message):
        guard_callback(guarded.changed({**changes, "model.name": "/no/model"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_guard_is_never_left_out_silently(guarded: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs its callback"):
        TrainingRun(guarded, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_epochs_shorter_than_the_first_look(guarded: Recipe, tmp_path: Path) -> None:
    recipe = guarded.changed({"train.steps": None, "train.epochs": 0.1, "guard.every": 50})
    with pytest.raises(InputError, match="evaluation would come after step 50"):
        opened(recipe, tmp_path / "run")


def test_the_command_says_the_rule_and_the_end(
    guarded: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from stilnovo.cli.main import app

    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.yaml").write_text(destructive(guarded, "best").to_yaml())
    run: Callable[..., Any] = CliRunner().invoke
    found = run(app, ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), "--json"])
    assert found.exit_code == 0, found.output
    assert "False alarms: at most 5 %" in found.stderr
    assert "a loss of about" in found.stderr
    assert "The guard ended the training" in found.stdout
    guard = json.loads(found.stdout.splitlines()[-1])["guard"]
    assert guard["ended"]
    assert guard["evaluations"] == len(history(tmp_path / "run"))
