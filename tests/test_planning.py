"""The plan at work: chosen before loading, refused when it cannot fit, made leaner when memory runs out all the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY
from stilnovo.data.batches import Batch
from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError, StilnovoError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.qat import QuantizationAwareLinear
from stilnovo.plan.cards import CPU
from stilnovo.plan.choice import Budget, plan_for
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train import planning
from stilnovo.train.loop import Trainer
from stilnovo.train.run import TrainingRun
from stilnovo.train.steps import batches_of_step
from training import planned

GIB = 2**30


def corpus() -> PackedCorpus:
    generator = torch.Generator().manual_seed(6)
    lengths = torch.randint(5, 60, (16,), generator=generator).tolist()
    return pack([torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths], 64)


def trainer(folder: Path, engine: str = "auto", **levers: Any) -> Trainer:
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, LoraConfig(r=4))
    recipe = TrainSection.model_validate({"steps": 5, "batch_packs": 2, "accumulation": 2, "optimizer": "adamw"})
    setting = replace(Levers(layers=all_layers("keep", TINY.layers), optimizer="adamw"), **levers)
    plan = plan_for(shape(128), setting, CPU) if engine == "auto" else None
    return Trainer(model, corpus(), recipe, RunFolder(folder), plan=plan)


def shape(tokens: int) -> Run:
    return Run(config=TINY, lora=LoraConfig(r=4), scheme="none", tokens=tokens, value_bytes=4, flash=False)


def losses(one: Trainer) -> list[float]:
    one.run_all()
    return [row["loss"] for row in one.run.metrics()]


@pytest.mark.parametrize(
    "levers",
    [
        {"optimizer_place": "host"},
        {"optimizer_place": "host", "attention_groups": 2, "tile": 30, "layers": all_layers("recompute", TINY.layers)},
        {"keep_dense": True},
        {"streamed_layers": TINY.layers, "inputs": "host", "layers": all_layers("attention", TINY.layers)},
    ],
)
def test_a_run_under_any_plan_is_the_plain_run(tmp_path: Path, levers: dict[str, Any]) -> None:
    plain, planned = trainer(tmp_path / "plain", "plain"), trainer(tmp_path / "planned", **levers)
    assert plain.engine is None
    assert planned.engine is not None
    assert losses(planned) == pytest.approx(losses(plain), rel=1e-5)
    for ours, theirs in zip(lora.parameters(planned.model), lora.parameters(plain.model), strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, atol=2e-4)  # AdamW divides by what is almost zero in places


def test_the_adapters_masters_are_resumed(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", optimizer_place="host")
    expected = losses(whole)
    cut = trainer(tmp_path / "cut", optimizer_place="host")
    stream = iter(cut.stream)
    for _ in range(3):
        count = batches_of_step(cut.stream.corpus, cut.settings, **cut.stream.state())
        cut.run.append_metrics(cut.train_step([next(stream) for _ in range(count)]))
    cut.save()
    again = trainer(tmp_path / "cut", optimizer_place="host")
    again.resume()
    assert losses(again) == expected


def test_a_cpu_keeps_what_fits_and_recomputes_the_rest(tmp_path: Path) -> None:
    run, recipe = shape(4096), TrainSection()
    rich = planning.choose_plan(run, recipe, torch.device("cpu"), Budget(GIB, GIB, 0, 0))
    assert set(rich.levers.layers) == {"keep"}
    recomputed = plan_for(run, Levers(layers=all_layers("recompute", TINY.layers), optimizer="adamw"), CPU)
    tight = Budget((rich.peak + recomputed.peak) // 2, GIB, 0, 0)
    assert set(planning.choose_plan(run, recipe, torch.device("cpu"), tight).levers.layers) == {"recompute"}
    with pytest.raises(InputError, match=r"(?s)4,096 tokens does not fit.*Free.*At most|Use a smaller"):
        planning.choose_plan(run, recipe, torch.device("cpu"), Budget(recomputed.peak // 2, GIB, 0, 0))


@pytest.fixture
def described(tiny_folder: Path, tmp_path: Path) -> Recipe:
    rows = [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Recipe.model_validate(
        {
            "model": {"name": str(tiny_folder), "device": "cpu"},
            "lora": {"r": 4},
            "data": {"paths": [str(tmp_path / "data.jsonl")], "pack_tokens": 64},
            "train": {"steps": 6, "checkpoint_every": 2},
        }
    )


def test_what_cannot_fit_is_refused_before_anything_is_loaded(
    described: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stilnovo.train.preparation.budget_of", lambda _device: Budget(10_000, 10_000, 0, 0))
    monkeypatch.setattr("stilnovo.train.run.open_llama", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match="does not fit"):
        TrainingRun(described, tmp_path / "run")


def running_out(monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
    """Let memory run out in the training passes `at`, `at` + 1 …"""
    hidden, passes = TrainingEngine.hidden, [0]

    def hungry(self: TrainingEngine, *arguments: Any) -> Any:
        if not torch.is_grad_enabled():  # an evaluation
            return hidden(self, *arguments)
        passes[0] += 1
        if at <= passes[0] < at + times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return hidden(self, *arguments)

    monkeypatch.setattr(TrainingEngine, "hidden", hungry)


def test_out_of_memory_goes_on_once_with_a_leaner_plan(
    described: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    expected = TrainingRun(described, tmp_path / "whole")
    expected.train()
    before = expected.plan
    assert before is not None
    running_out(monkeypatch, at=4, times=1)
    run = TrainingRun(described, tmp_path / "hungry")
    result, _ = run.train()
    assert result.steps == 6
    assert run.plan is not None
    assert run.plan.peak < before.peak
    assert "Out of memory at step 4: going on with a leaner plan" in caplog.text
    found = [row["loss"] for row in RunFolder(tmp_path / "hungry").metrics()]
    assert found == pytest.approx([row["loss"] for row in RunFolder(tmp_path / "whole").metrics()], rel=1e-5)


def test_out_of_memory_twice_ends_with_what_helps(
    described: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_out(monkeypatch, at=4, times=2)
    with pytest.raises((torch.OutOfMemoryError, StilnovoError)):
        TrainingRun(described, tmp_path / "run").train()
    assert (tmp_path / "run" / "checkpoints" / "step-2").is_dir()


def test_another_error_is_not_taken_for_it(described: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingEngine, "hidden", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        TrainingRun(described, tmp_path / "run").train()


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_only_what_is_learnt_counts(tmp_path: Path, engine: str) -> None:
    """Tokens stored as −1 − id are read and not learnt: loss and gradients are those of the other targets alone."""
    one = trainer(tmp_path, engine)
    tokens = torch.randint(0, 97, (31,), generator=torch.Generator().manual_seed(1))
    learnt = torch.arange(30) % 3 == 0
    batch = Batch(tokens[:-1], tokens[1:], (30,), learnt)
    row = one.train_step([batch])
    assert row["tokens"] == batch.predictions == 10
    other = trainer(tmp_path / "other", "plain")
    with torch.no_grad():
        logits = other.model(batch.tokens, torch.arange(30), Blocks((30,)))
    expected = torch.nn.functional.cross_entropy(logits[learnt], batch.targets[learnt])
    assert row["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_run_may_be_quantisation_aware(described: Recipe, tmp_path: Path) -> None:
    run = TrainingRun(described.changed({"lora.quantization_aware": "int4", "train.steps": 2}), tmp_path / "run")
    assert run.plan is None
    assert all(isinstance(module, QuantizationAwareLinear) for module in lora.adapters(run.model).values())
    result, lines = run.train()
    assert result.steps == 2
    assert {line.name for line in lines} >= {"frozen projections", "adapter"}
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_half_precision_learns_what_single_does(tmp_path: Path) -> None:
    """Cards without bf16 compute in fp16: the gradients of a mean over many tokens would vanish there."""
    rows = []
    for name, dtype in (("single", torch.float32), ("half", torch.float16)):
        model = Llama(TINY, random_source(3, std=0.1)).to(dtype)
        lora.attach(model, LoraConfig(r=4))
        recipe = TrainSection(steps=1, batch_packs=8, optimizer="adamw")
        plan = planned(model, LoraConfig(r=4), recipe)
        one = Trainer(model, corpus(), recipe, RunFolder(tmp_path / name), plan=plan)
        rows.append(one.train_step([next(iter(one.stream))]))
        assert all(p.dtype == torch.float32 for p in one.parameters)
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=5e-3)
    assert rows[1]["gradient_norm"] == pytest.approx(rows[0]["gradient_norm"], rel=2e-2)
