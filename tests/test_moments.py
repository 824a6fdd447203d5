"""AdamW's moments go on from any kind into any other: never an error, and near where the steps would have gone."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_leaves

from conftest import TINY
from stilnovo.data.packing import pack
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError
from stilnovo.model import lora, memory
from stilnovo.model.llama import Llama, random_source
from stilnovo.plan.cards import CPU
from stilnovo.plan.choice import plan_for
from stilnovo.plan.ledger import Run, ledger
from stilnovo.plan.levers import Levers, OptimizerKind, all_layers
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train import checkpoint
from stilnovo.train.loop import Trainer
from stilnovo.train.moments import load_moments, stored_moments
from stilnovo.train.optimizer import make_optimizer
from stilnovo.train.run import TrainingRun

KINDS: tuple[OptimizerKind, ...] = ("adamw", "adamw8bit", "paged_adamw8bit")
SHAPES = ((64, 128), (16, 16), (400, 300), (5000,))  # large enough for 8 bits and for paging, and smaller


@pytest.fixture(autouse=True)
def paged(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A double of unified memory: plain host memory with the mark that bitsandbytes puts on it; returns what was taken."""
    from bitsandbytes.optim.optimizer import Optimizer8bit

    taken: list[Tensor] = []

    def buffer(self: Any, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        made = torch.zeros_like(p, dtype=dtype, requires_grad=False)
        if self.is_paged and p.numel() >= 1e5:
            made.is_paged = True  # type: ignore[attr-defined]
            taken.append(made)
        return made

    monkeypatch.setattr(Optimizer8bit, "get_state_buffer", buffer)
    monkeypatch.setattr(Optimizer8bit, "prefetch_state", lambda self, p: None)
    return taken


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def optimizer_of(kind: OptimizerKind, ours: list[nn.Parameter]) -> torch.optim.Optimizer:
    return make_optimizer(ours, TrainSection(learning_rate=1e-2, weight_decay=0.1), kind)


def gradients(seed: int) -> Iterator[list[Tensor]]:
    """Gradients with a direction that lasts, some noise, and rows that are nearly zero."""
    generator = torch.Generator().manual_seed(seed)
    lasting = [torch.randn(shape, generator=generator) for shape in SHAPES]
    while True:
        yield [g + torch.randn(g.shape, generator=generator) for g in lasting]


def steps(
    optimizer: torch.optim.Optimizer, ours: list[nn.Parameter], source: Iterator[list[Tensor]], count: int
) -> None:
    for found in itertools.islice(source, count):
        for parameter, gradient in zip(ours, found, strict=True):
            parameter.grad = gradient * 1e-3
        optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("written", ["now", "by earlier versions"])
@pytest.mark.parametrize(("before", "after"), list(itertools.product(KINDS, KINDS)))
def test_steps_after_a_conversion_are_near_those_without(
    before: OptimizerKind, after: OptimizerKind, written: str
) -> None:
    ours = parameters()
    first, source = optimizer_of(before, ours), gradients(1)
    steps(first, ours, source, 20)
    state = through_a_file(stored_moments(first) if written == "now" else first.state_dict())
    twins = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    second = optimizer_of(after, twins)
    converted = load_moments(second, state)
    assert converted == (
        ""
        if ("8bit" in before) == ("8bit" in after)
        else "from 8 bits into fp32"
        if "8bit" in before
        else "from fp32 into 8 bits"
    )
    begun = [parameter.detach().clone() for parameter in ours]
    one, two = itertools.tee(source)
    steps(first, ours, one, 10)
    steps(second, twins, two, 10)
    for start, expected, found in zip(begun, ours, twins, strict=True):
        if converted:
            assert (found - expected).norm() <= 0.05 * (expected - start).norm()
        else:
            assert torch.equal(found, expected)


def test_paged_memory_is_taken_over_and_not_taken_twice(paged: list[Tensor]) -> None:
    """It is never given back: a second optimizer in the same process goes on in it."""
    ours = parameters()
    first, source = optimizer_of("paged_adamw8bit", ours), gradients(2)
    steps(first, ours, source, 3)
    before = len(paged)
    assert before
    twins = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    second = optimizer_of("paged_adamw8bit", twins)
    load_moments(second, stored_moments(first))
    assert len(paged) == before
    steps(second, twins, source, 2)
    assert len(paged) == before


def test_a_parameter_without_a_gradient_so_far_has_no_state() -> None:
    ours = parameters()
    first = optimizer_of("adamw8bit", ours)
    ours[0].grad = torch.ones_like(ours[0])
    first.step()
    second = optimizer_of("adamw", ours)
    load_moments(second, stored_moments(first))
    assert list(second.state) == [ours[0]]


def test_what_is_stored_lies_on_the_host_wherever_the_optimizer_is() -> None:
    """A second model is opened while it waits: nothing of it may stay on the card."""
    with FakeTensorMode():
        parameter = nn.Parameter(torch.empty(64, 128, device="cuda"))
        optimizer = torch.optim.AdamW([parameter])
        table = torch.empty(256, device="cuda")
        moments = {name: torch.empty(64, 128, device="cuda") for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.empty((), device="cuda"), **moments, "qmap1": table, "qmap2": table}
        found = tree_leaves(stored_moments(optimizer))
    tensors = [value for value in found if isinstance(value, Tensor)]
    assert len(tensors) == 5 and len({id(tensor) for tensor in tensors}) == 4
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def trainer(folder: Path, kind: OptimizerKind, place: str = "card") -> Trainer:
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, LoraConfig(r=64))
    recipe = TrainSection.model_validate(
        {"steps": 12, "batch_packs": 2, "checkpoint_every": 6, "learning_rate": 3e-3, "evaluate_every": 0}
    )
    levers = Levers(layers=all_layers("keep", TINY.layers), optimizer=kind, optimizer_place=place)  # type: ignore[arg-type]
    run = Run(config=TINY, lora=LoraConfig(r=64), scheme="none", tokens=128, value_bytes=4, flash=False)
    corpus = pack([[(7 * i + j) % 97 for j in range(40)] for i in range(30)], 64)
    return Trainer(model, corpus, recipe, RunFolder(folder), plan=plan_for(run, levers, CPU))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("adamw8bit", "card"), ("adamw", "host")),  # a leaner plan after an out-of-memory error
        (("paged_adamw8bit", "card"), ("adamw", "host")),
        (("adamw", "host"), ("adamw8bit", "card")),  # more memory is free at the resume
        (("adamw", "card"), ("paged_adamw8bit", "card")),
    ],
)
def test_a_run_goes_on_under_a_plan_that_keeps_its_moments_otherwise(
    before: Any, after: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer(tmp_path / "whole", *before)
    whole.run_all()
    first = trainer(tmp_path / "cut", *before)
    stream = iter(first.stream)
    for _ in range(6):
        first.run.append_metrics(first.train_step([next(stream)]))
    first.save()
    second = trainer(tmp_path / "cut", *after)
    second.resume()
    assert "moments were converted" in caplog.text
    second.run_all()
    found, expected = ([row["loss"] for row in RunFolder(tmp_path / name).metrics()] for name in ("cut", "whole"))
    assert found[:6] == expected[:6]
    assert found == pytest.approx(expected, rel=5e-3)


def test_a_cards_random_state_goes_on_on_a_processor() -> None:
    state = {**checkpoint.random_state(torch.device("cpu")), "cuda": torch.zeros(16, dtype=torch.uint8)}
    drawn = torch.rand(3)
    checkpoint.set_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize("r", [1, 4, 64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["card", "host"])
def test_the_ledger_counts_the_moments_that_are_made(kind: OptimizerKind, place: str, r: int, tmp_path: Path) -> None:
    config = replace(TINY, hidden_size=64, intermediate_size=192)
    adapter = LoraConfig(r=r)
    model = Llama(config, random_source(3, std=0.1))
    lora.attach(model, adapter)
    run = Run(config=config, lora=adapter, scheme="none", tokens=128, value_bytes=4, flash=False)
    levers = Levers(layers=all_layers("keep", config.layers), optimizer=kind, optimizer_place=place)  # type: ignore[arg-type]
    corpus = pack([[(7 * i + j) % 97 for j in range(40)] for i in range(30)], 64)
    one = Trainer(model, corpus, TrainSection(steps=2), RunFolder(tmp_path), plan=plan_for(run, levers, CPU))
    one.train_step([next(iter(one.stream))])
    (counted,) = (item for item in ledger(run, levers).items if item.name == "optimizer")
    tables = 2 * 4 * 256 if "8bit" in kind else 0
    assert counted.place == place
    assert memory.measure(model, one.optimizer)["optimizer"] == pytest.approx(counted.size, abs=tables + 1)


def test_a_run_is_resumed_with_another_optimizer_and_device(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"{i}: " + "parola " * 9}) for i in range(30)))
    recipe = Recipe().changed({
        "model.name": str(tiny_folder), "model.device": "cpu", "lora.r": 64, "data.paths": [str(tmp_path / "rows.jsonl")],
        "data.pack_tokens": 64, "train.steps": 6, "train.checkpoint_every": 2, "train.optimizer": "adamw8bit",
    })  # fmt: skip
    hidden, passes = TrainingEngine.hidden, [0]

    def failing(self: TrainingEngine, *arguments: Any) -> Any:
        passes[0] += torch.is_grad_enabled()
        if passes[0] == 4 and torch.is_grad_enabled():
            raise RuntimeError("killed")
        return hidden(self, *arguments)

    monkeypatch.setattr(TrainingEngine, "hidden", failing)
    with pytest.raises(RuntimeError, match="killed"):
        TrainingRun(recipe, tmp_path / "run").train()
    elsewhere = recipe.changed({"model.device": "auto", "train.optimizer": "auto"})
    result, _ = TrainingRun(elsewhere, tmp_path / "run", resume=True).train()
    assert result.steps == 6
    assert "from 8 bits into fp32" in caplog.text
    with pytest.raises(InputError, match=r"Changed: train\.learning_rate"):
        TrainingRun(elsewhere.changed({"train.learning_rate": 1.0}), tmp_path / "run", resume=True)
