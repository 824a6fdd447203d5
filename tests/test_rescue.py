"""Out of memory in a training: everything of the first model is let go of before the second is opened, and the run goes on."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import StilnovoError
from stilnovo.forgetting.guard import guard_callback
from stilnovo.generate.generator import sample_answers
from stilnovo.library.store import Library
from stilnovo.model import lora, memory
from stilnovo.model.llama import Llama
from stilnovo.plan.choice import Budget
from stilnovo.plan.shape import LoraConfig, config_from_json
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.serve.workers import Group
from stilnovo.train import held_out
from stilnovo.train import run as run_module
from stilnovo.train.observers import Observer
from stilnovo.train.run import TrainingRun

STEPS = 6
CASES: dict[str, dict[str, Any]] = {
    "texts": {},
    "a guard": {"guard.every": 2, "guard.tasks": ["sample_questions"], "guard.items": 8, "guard.documents": 8},
    "evaluations and samples": {"train.evaluate_every": 2, "train.samples": ["Chi sei?"], "train.sample_tokens": 2},
    "rehearsal held near the base": {"data.rehearsal": ["CHATS"], "data.pack_tokens": 160, "train.rehearse_by": "both"},
    "pairs": {"train.task": "dpo", "data.paths": ["PAIRS"], "data.pack_tokens": 256},
    "on an earlier adapter": {"model.adapter": "ADAPTER"},
    "8-bit moments": {"train.optimizer": "adamw8bit", "lora.r": 64},
}


class Watcher(Observer):
    """An observer that keeps the run, as pages and trackers may."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def begin(self, run: Any) -> None:
        self.run = run

    def step(self, row: dict[str, Any]) -> None:
        self.steps.append(row["step"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rows")
    rows = {
        "TEXTS": [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(30)],
        "CHATS": [{"instruction": f"Conta fino a {n}.", "output": "uno due " * (n % 3 + 1)} for n in range(30)],
        "PAIRS": [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(24)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    earlier = Llama(config_from_json(tiny_folder / "config.json"))
    lora.attach(earlier, config := LoraConfig(r=2))
    lora.save(earlier, config, folder / "earlier", "tiny")
    return {name: str(folder / f"{name}.jsonl") for name in rows} | {"ADAPTER": str(folder / "earlier")}


@pytest.fixture
def recipe_of(files: dict[str, str], tiny_folder: Path) -> Callable[[dict[str, Any]], Recipe]:
    def made(changes: dict[str, Any]) -> Recipe:
        base = {
            "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 4, "data.paths": ["TEXTS"], "data.pack_tokens": 64,
            "train.steps": STEPS, "train.checkpoint_every": 2,
        }  # fmt: skip
        named = {
            key: [files.get(item, item) for item in value] if isinstance(value, list) else files.get(value, value)
            for key, value in {**base, **changes}.items()
        }
        return Recipe().changed(named)

    return made


def opened(recipe: Recipe, folder: Path) -> TrainingRun:
    guard = None if recipe.guard.every is None else guard_callback(recipe, folder)
    watcher = Watcher()
    run = TrainingRun(recipe, folder, make_callback=guard, sampler=sample_answers, observers=[watcher])
    run.watcher = watcher  # type: ignore[attr-defined]
    return run


def running_out(monkeypatch: pytest.MonkeyPatch, where: str, at: int, times: int = 1) -> None:
    """Let memory run out in the training's calls `at`, `at` + 1 … of one of the engine's methods."""
    method, calls = getattr(TrainingEngine, where), [0]

    def hungry(self: TrainingEngine, *arguments: Any) -> Any:
        if where == "hidden" and not torch.is_grad_enabled():  # an evaluation
            return method(self, *arguments)
        calls[0] += 1
        if at <= calls[0] < at + times:
            held = torch.zeros(1000)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {held.nbytes} B.")
        return method(self, *arguments)

    monkeypatch.setattr(TrainingEngine, where, hungry)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many earlier models, and their tensors, were alive at each opening of a model."""
    models: list[weakref.ref[Any]] = []
    counts: list[int] = []
    really = run_module.open_llama

    def counting(*arguments: Any, **options: Any) -> Llama:
        counts.append(sum(reference() is not None for reference in models))
        model = really(*arguments, **options)
        models.extend([weakref.ref(model), *map(weakref.ref, model.buffers())])
        return model

    monkeypatch.setattr(run_module, "open_llama", counting)
    return counts


@pytest.mark.parametrize("where", ["hidden", "_backward"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_of_the_first_model_lives_when_the_second_is_opened(
    case: str, where: str, recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:  # fmt: skip
    recipe = recipe_of(CASES[case])
    running_out(monkeypatch, where, at=5)
    run = opened(recipe, tmp_path / "run")
    result, _ = run.train()
    assert alive == [0, 0]
    assert result.steps == STEPS
    assert [row["step"] for row in RunFolder(tmp_path / "run").metrics()] == list(range(1, STEPS + 1))


def test_the_trainings_losses_are_those_without_the_rescue(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of({})
    opened(recipe, tmp_path / "whole").train()
    running_out(monkeypatch, "_backward", at=4)
    opened(recipe, tmp_path / "hungry").train()
    found, expected = ([row["loss"] for row in RunFolder(tmp_path / name).metrics()] for name in ("hungry", "whole"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_memory_that_runs_out_inside_the_optimizers_step_goes_back_to_the_checkpoint(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:
    """Some parameters have moved and some not: that state is no state."""
    recipe = recipe_of({})
    opened(recipe, tmp_path / "whole").train()
    step, calls = torch.optim.AdamW.step, [0]

    def half(self: torch.optim.AdamW) -> None:
        calls[0] += 1
        if calls[0] == 4:
            self.param_groups[0]["params"][0].data.add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    opened(recipe, tmp_path / "hungry").train()
    assert alive[2] == 0
    found, expected = ([row["loss"] for row in RunFolder(tmp_path / name).metrics()] for name in ("hungry", "whole"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_hosts_memory_may_run_out_too(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `MemoryError` is no `RuntimeError`: the batch that it failed in is read again all the same."""
    recipe = recipe_of({})
    opened(recipe, tmp_path / "whole").train()
    hidden, passes = TrainingEngine.hidden, [0]

    def hungry(self: TrainingEngine, *arguments: Any) -> Any:
        passes[0] += torch.is_grad_enabled()
        if passes[0] == 3 and torch.is_grad_enabled():
            raise MemoryError
        return hidden(self, *arguments)

    monkeypatch.setattr(TrainingEngine, "hidden", hungry)
    opened(recipe, tmp_path / "hungry").train()
    found, expected = ([row["loss"] for row in RunFolder(tmp_path / name).metrics()] for name in ("hungry", "whole"))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("where", ["an evaluation", "samples"])
def test_memory_that_runs_out_in_an_evaluation_makes_no_step_twice(
    where: str, recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:
    recipe = recipe_of(CASES["evaluations and samples"])
    opened(recipe, tmp_path / "whole").train()
    name = "figures_of" if where == "an evaluation" else "_line"
    method, calls = getattr(held_out, name), [0]

    def hungry(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return method(*arguments)

    monkeypatch.setattr(held_out, name, hungry)
    run = opened(recipe, tmp_path / "hungry")
    run.train()
    assert alive[2] == 0
    found, expected = (RunFolder(tmp_path / name).metrics() for name in ("hungry", "whole"))
    assert run.watcher.steps == [row["step"] for row in found]  # type: ignore[attr-defined]
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-5)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "Memory ran out"),
        (torch.AcceleratorError("CUDA error: unknown error"), "The card failed"),
    ],
)
def test_the_last_evaluation_says_that_the_training_is_finished(
    error: Exception, said: str, recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(recipe_of({"train.task": "dpo", "data.paths": ["PAIRS"], "data.pack_tokens": 256}), tmp_path / "run")

    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(type(run.objective), "evaluate", failing)
    with pytest.raises(StilnovoError, match=f"(?s){said} while the held-out rows were evaluated.*training is finished"):
        run.train()
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("CUDA error: out of memory")]
)
def test_a_second_time_it_says_what_helps(
    error: Exception, recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    hidden, passes = TrainingEngine.hidden, [0]

    def hungry(self: TrainingEngine, *arguments: Any) -> Any:
        passes[0] += torch.is_grad_enabled()
        if passes[0] >= 4 and torch.is_grad_enabled():
            raise error
        return hidden(self, *arguments)

    monkeypatch.setattr(TrainingEngine, "hidden", hungry)
    with pytest.raises(StilnovoError, match=r"(?s)ran out of memory.*STILNOVO_RAM=.*from step 3 with --resume"):
        opened(recipe_of({}), tmp_path / "run").train()


def test_memory_that_is_short_when_the_second_is_opened_says_so_too(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_out(monkeypatch, "hidden", at=4)
    run = opened(recipe_of({}), tmp_path / "run")

    def short(*_: Any, **__: Any) -> Llama:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(run_module, "open_llama", short)
    with pytest.raises(StilnovoError, match=r"(?s)ran out of memory.*from step 3 with --resume"):
        run.train()


def test_the_leaner_plan_fits_what_is_free_by_then(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:
    """Another program may have taken the memory: an eighth less than before would run out again."""
    run = opened(recipe_of({}), tmp_path / "run")
    running_out(monkeypatch, "hidden", at=4)
    first = run.plan
    assert first is not None
    asked: list[int] = []

    def free(_: torch.device) -> Budget:
        asked.append(len(alive))
        return replace(run.prepared.budget, card=first.peak * 2 // 3)

    monkeypatch.setattr("stilnovo.train.planning.budget_of", free)
    run.train()
    assert run.plan is not None and run.plan.peak <= first.peak * 2 // 3
    assert asked == [1]  # once the first model is closed, and before the second is opened


def test_where_no_leaner_plan_is_left_nothing_is_lost(
    recipe_of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of({})
    run = opened(recipe, tmp_path / "run")
    with monkeypatch.context() as patched:
        running_out(patched, "hidden", at=6)
        patched.setattr("stilnovo.train.planning.budget_of", lambda _: Budget(10, 10, 0, 0))
        with pytest.raises(StilnovoError, match=r"(?s)no leaner plan is left.*from step 5 with --resume"):
            run.train()
    result, _ = TrainingRun(recipe, tmp_path / "run", resume=True).train()
    assert result.steps == STEPS


def test_what_an_error_holds_is_let_go_of_with_all_the_errors_behind_it() -> None:
    held: list[weakref.ref[Any]] = []

    def deepest() -> None:
        model = Llama(TINY)
        held.append(weakref.ref(model))
        raise ValueError("first")

    def middle() -> None:
        other = Llama(TINY)
        held.append(weakref.ref(other))
        try:
            deepest()
        except ValueError as error:
            raise RuntimeError("second") from error

    try:
        try:
            middle()
        finally:
            memory.free_unused(torch.device("cpu"))
    except RuntimeError as error:
        assert all(reference() is not None for reference in held)
        memory.let_go(error, torch.device("cpu"))
        memory.free_unused(torch.device("cpu"))
        assert not any(reference() is not None for reference in held)


def test_copies_on_their_way_end_before_their_memory_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []
    alive_then: list[bool] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: alive_then.append(held[0]() is not None))

    def failing() -> None:
        buffer = Llama(TINY)
        held.append(weakref.ref(buffer))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    try:
        failing()
    except torch.OutOfMemoryError as error:
        memory.let_go(error, torch.device("cuda"))
    memory.free_unused(torch.device("cpu"))
    assert alive_then == [True]
    assert held[0]() is None


def test_a_thread_that_waits_holds_nothing_of_the_request_that_failed(tmp_path: Path) -> None:
    """Else a service's idle writer keeps the cache of an answer for which memory ran out while another one writes."""
    group = Group("writer", 1, lambda: Library.open(tmp_path / "library.sqlite"))
    held: list[weakref.ref[Any]] = []

    def failing(_: Any) -> None:
        cache = Llama(TINY)
        held.append(weakref.ref(cache))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    future = group.submit(failing)
    with pytest.raises(torch.OutOfMemoryError):
        future.result(60)
    del future
    for _ in range(200):  # the thread has still to come round
        memory.free_unused(torch.device("cpu"))
        if held[0]() is None:
            break
        time.sleep(0.01)
    assert held[0]() is None
    group.close()
