"""Held-out evaluation while a training goes on: it changes no loss, costs what it may, and ends the training when told to."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stilnovo.errors import InputError
from stilnovo.forgetting.guard import guard_callback
from stilnovo.generate.generator import sample_answers
from stilnovo.model import load, lora
from stilnovo.model.llama import Llama
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train import checkpoint
from stilnovo.train.callback import StepEvaluation
from stilnovo.train.corpus import Corpus
from stilnovo.train.dry_run import dry_run
from stilnovo.train.held_out import FORWARDS, OVERHEAD, is_evaluation, schedule_of
from stilnovo.train.preparation import Preparation
from stilnovo.train.run import TrainingRun

WATCHED = {
    "train.evaluate_every": 2,
    "train.samples": ["Chi sei?", "E tu?"],
    "train.sample_tokens": 4,
    "train.patience": 9,
}
BARE = {"train.evaluate_every": 0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, words = tmp_path_factory.mktemp("rows"), random.Random(3)
    made = {
        "text": [{"text": f"{n}: " + "parola " * words.randrange(3, 12)} for n in range(40)],
        "sft": [{"instruction": f"Conta fino a {n}.", "output": "uno due " * words.randrange(1, 4)} for n in range(40)],
        "dpo": [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(24)],
    }
    for name, lines in made.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return {name: str(folder / f"{name}.jsonl") for name in made}


@pytest.fixture
def recipe(tiny_folder: Path, rows: dict[str, str]) -> Recipe:
    """A recipe of eight steps on the tiny model, with dropout, so that the random states count."""
    return Recipe().changed({
        "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4, "data.paths": [rows["text"]], "data.pack_tokens": 64,
        "train.steps": 8, "train.learning_rate": 3e-3, "train.checkpoint_every": 3, "lora.dropout": 0.1,
    })  # fmt: skip


def trained(recipe: Recipe, folder: Path, *, resume: bool = False, **others: Any) -> TrainingRun:
    run = TrainingRun(recipe, folder, resume=resume, sampler=sample_answers, **others)
    run.train()
    return run


def learnt(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    """What the steps say of themselves, evaluations and the clock left out, and the adapter."""
    timed = ("seconds", "tokens_per_second", "memory_bytes")
    steps = [
        {name: value for name, value in row.items() if name not in timed and not is_evaluation(name)}
        for row in RunFolder(folder).metrics()
    ]
    return steps, (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def evaluations(folder: Path) -> list[tuple[int, float, float, Any]]:
    return [
        (row["step"], row["held_out_loss"], row["base_held_out_loss"], row.get("samples"))
        for row in RunFolder(folder).metrics()
        if "held_out_loss" in row
    ]


@pytest.mark.parametrize("task", ["text", "sft", "dpo"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["engine", "plain"])
def test_losses_are_those_of_the_bare_run_to_the_last_bit(
    task: str, dropout: float, recipe: Recipe, rows: dict[str, str], tmp_path: Path
) -> None:
    room = {"text": 64, "sft": 160, "dpo": 512}[task]
    recipe = recipe.changed({
        "train.task": task, "data.paths": [rows[task]], "data.pack_tokens": room, "lora.dropout": dropout,
    })  # fmt: skip
    trained(recipe.changed(BARE), tmp_path / "bare")
    trained(recipe.changed({**WATCHED, "train.patience": None}), tmp_path / "watched")
    assert learnt(tmp_path / "watched") == learnt(tmp_path / "bare")
    assert not evaluations(tmp_path / "bare")
    steps, losses, base, samples = zip(*evaluations(tmp_path / "watched"), strict=True)
    assert steps == (2, 4, 6, 8) and len(set(base)) == 1 and len(set(losses)) > 1
    assert [sample["prompt"] for sample in samples[0]] == ["Chi sei?", "E tu?"]
    if task == "dpo":
        assert base[0] == pytest.approx(math.log(2), abs=1e-6)


def test_the_base_is_evaluated_without_the_adapter(recipe: Recipe, tmp_path: Path) -> None:
    """With a rate that moves nothing, the held-out loss is the base's; resumed from a trained step the base's is the same."""
    trained(recipe.changed({**WATCHED, "train.learning_rate": 1e-30}), tmp_path / "still")
    assert all(loss == base for _, loss, base, _ in evaluations(tmp_path / "still"))
    trained(recipe.changed(WATCHED), tmp_path / "moving")
    assert {base for _, _, base, _ in evaluations(tmp_path / "moving")} == {evaluations(tmp_path / "still")[0][1]}


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_held_out import slowed
slowed(Path({folder!r}), resume={resume})
"""


def slowed(folder: Path, *, resume: bool) -> None:
    """The run in a process of its own, slow enough to be killed."""
    from stilnovo.recipe import load

    run = TrainingRun(load(folder.parent / "recipe.yaml"), folder, resume=resume, sampler=sample_answers)
    step = run.trainer.train_step
    run.trainer.train_step = lambda batches: (time.sleep(0.05), step(batches))[1]  # type: ignore[method-assign]
    run.train()


@pytest.mark.parametrize("after", [3, 5])
def test_killed_and_resumed_it_repeats_its_evaluations(after: int, recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.changed({**WATCHED, "train.keep_checkpoints": 1, "train.evaluate_every": 1})
    trained(recipe, tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())

    def process(*, resume: bool) -> subprocess.Popen[bytes]:
        script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "cut"), resume=resume)
        return subprocess.Popen(
            [sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
        )

    begun, metrics = process(resume=False), tmp_path / "cut" / "metrics.jsonl"
    while begun.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= after):
        time.sleep(0.01)
    begun.kill()
    begun.wait()
    assert process(resume=True).wait(120) == 0
    assert evaluations(tmp_path / "cut") == evaluations(tmp_path / "whole")
    assert learnt(tmp_path / "cut") == learnt(tmp_path / "whole")


RISING = {
    "train.learning_rate": 0.5,
    "train.steps": 30,
    "train.evaluate_every": 1,
    "train.patience": 3,
    "train.checkpoint_every": 50,
}


def test_early_stopping_takes_the_adapter_of_the_lowest_loss(recipe: Recipe, tmp_path: Path) -> None:
    run = trained(recipe.changed({**RISING, "train.keep_checkpoints": 1}), tmp_path / "run")
    losses = {step: loss for step, loss, _, _ in evaluations(tmp_path / "run")}
    best = min(losses, key=lambda step: (losses[step], step))
    assert max(losses) == best + 3 < 30 and run.trainer.ended
    figures = json.loads((tmp_path / "run" / "train.json").read_text())
    assert figures["early_stopping"] == {"ended": True, "patience": 3, "best_step": best, "adapter_step": best}
    model = load.open_llama(load.ModelSpec(recipe.model.name, quantization=recipe.model.quantization, device="cpu"))
    lora.load(model, tmp_path / "run" / "adapter")
    kept = checkpoint.at(tmp_path / "run" / "checkpoints", best)["parameters"]
    assert all((mine == its).all() for mine, its in zip(lora.parameters(model), kept, strict=True))
    before = learnt(tmp_path / "run")
    assert trained(recipe.changed({**RISING, "train.keep_checkpoints": 1}), tmp_path / "run", resume=True).trainer.ended
    assert learnt(tmp_path / "run") == before


def test_without_patience_the_last_step_is_the_adapter(recipe: Recipe, tmp_path: Path) -> None:
    run = trained(recipe.changed({**RISING, "train.patience": None, "train.steps": 6}), tmp_path / "run")
    assert run.trainer.adapter_step == 6 and not run.trainer.ended
    assert json.loads((tmp_path / "run" / "train.json").read_text())["early_stopping"] is None


class EndsAt:
    """A guard that finds a loss at one step; step 2 is its best."""

    every, on_loss = 2, "best"

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, model: Llama) -> None:
        """Nothing to do."""

    def evaluate(self, step: int, model: Llama) -> StepEvaluation:
        return StepEvaluation(step, step == self.step, step == 2, None, "made")

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(("ends", "taken"), [(4, 2), (99, None)])
def test_the_guard_comes_before_the_held_out_loss(ends: int, taken: int | None, recipe: Recipe, tmp_path: Path) -> None:
    def made(model: Llama, tokenizer: Tokenizer, corpus: Corpus) -> EndsAt:
        return EndsAt(ends)

    calm = {
        "train.evaluate_every": 1,
        "train.patience": 20,
        "train.keep_checkpoints": 1,
        "train.steps": 8,
        "guard.every": 2,
    }
    run = trained(recipe.changed(calm), tmp_path / "run", make_callback=made)  # type: ignore[arg-type]
    losses = [loss for _, loss, _, _ in evaluations(tmp_path / "run")]
    assert run.trainer.adapter_step == (taken or losses.index(min(losses)) + 1)
    assert run.trainer.guard_summary()["adapter_step"] == run.trainer.adapter_step  # type: ignore[index]


def test_patience_without_held_out_rows_is_refused_before_the_model(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.txt").write_text("Una sola riga. " * 30)
    monkeypatch.setattr("stilnovo.train.run.open_llama", None)
    with pytest.raises(InputError, match=r"(?s)train\.patience.*held out"):
        TrainingRun(recipe.changed({"data.paths": [str(tmp_path / "one.txt")], "train.patience": 2}), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_samples_are_made_where_nothing_is_held_out(recipe: Recipe, tmp_path: Path) -> None:
    trained(
        recipe.changed({"data.held_out": 0, "train.samples": ["Chi?"], "train.evaluate_every": 4}), tmp_path / "run"
    )
    rows = [row for row in RunFolder(tmp_path / "run").metrics() if "samples" in row]
    assert [row["step"] for row in rows] == [4, 8] and all("held_out_loss" not in row for row in rows)


@pytest.mark.parametrize("seed", range(40))
def test_evaluations_cost_what_they_may(seed: int) -> None:
    """Of runs of any length: 5 to 50 evaluations, at 2 % of the time but for the pack that each reads at least."""
    draw = random.Random(seed)
    steps, pack = draw.randrange(1, 20_000), 2 ** draw.randrange(5, 13)
    step_tokens = pack * draw.randrange(1, 65)
    schedule = schedule_of(steps, step_tokens, pack, TrainSection())
    due = schedule.due
    assert due[-1] == steps and len(due) <= 50
    assert len(due) >= min(steps, 3) and (steps < 25 or len(due) >= 5)
    work = (len(due) + 1) * schedule.tokens
    assert work <= OVERHEAD * FORWARDS * steps * step_tokens
    stated = schedule_of(steps, step_tokens, pack, TrainSection(evaluate_every=7, evaluation_tokens=123))
    assert (stated.every, stated.tokens) == (7, 123) and stated.due[-1] == steps
    assert schedule_of(steps, step_tokens, pack, TrainSection(evaluate_every=0)).due == []


def test_the_slice_is_whole_packs_of_held_out_rows_and_fixed(recipe: Recipe, tmp_path: Path) -> None:
    first, second = (Preparation(recipe, tmp_path / name) for name in ("a", "b"))
    assert first.held_out is not None and second.held_out is not None
    assert first.held_out.tokens == second.held_out.tokens
    known = {
        bytes(first.tokenizer.decode([int(i) for i in document]), "utf-8") for document in first.held_out.documents
    }
    assert known <= {bytes(text, "utf-8") for text in first.corpus.held_out_texts}
    wide = Preparation(recipe.changed({"train.evaluation_tokens": 10**6}), tmp_path / "c").held_out
    assert wide is not None and wide.tokens == sum(len(document) - 1 for document in wide.documents)
    assert len(wide.documents) == len(first.corpus.held_out)


def test_the_dry_run_tells_the_evaluations(recipe: Recipe, tmp_path: Path) -> None:
    schedule = dry_run(recipe.changed(WATCHED), tmp_path / "run").schedule
    assert schedule is not None and schedule.due == [2, 4, 6, 8]
    assert dry_run(recipe.changed(BARE), tmp_path / "run").schedule is None
    assert dry_run(recipe.changed({"data.held_out": 0}), tmp_path / "run").schedule is None


def test_a_real_guard_and_evaluations_stand_together(recipe: Recipe, rows: dict[str, str], tmp_path: Path) -> None:
    guarded = recipe.changed({**WATCHED, "guard.every": 4, "guard.texts": [rows["sft"]], "guard.documents": 8})
    run = TrainingRun(
        guarded, tmp_path / "run", make_callback=guard_callback(guarded, tmp_path / "run"), sampler=sample_answers
    )
    run.train()
    assert [step for step, *_ in evaluations(tmp_path / "run")] == [2, 4, 6, 8]
    assert [row["step"] for row in map(json.loads, (tmp_path / "run" / "guard.jsonl").read_text().splitlines())] == [
        4,
        8,
    ]
