"""fp16 steps have a loss scale that follows the gradients; one overflow never ends a run, and bf16 and fp32 stay strict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import TINY
from stilnovo.data.batches import Batch
from stilnovo.data.packing import pack
from stilnovo.engine.link import Link
from stilnovo.engine.loss import Head, tiled_losses
from stilnovo.errors import StilnovoError
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe_sections import TrainSection
from stilnovo.report.training import read_training, training_page
from stilnovo.runlog import RunFolder
from stilnovo.train import loss_scale
from stilnovo.train.loop import Trainer
from stilnovo.train.loss_scale import LossScale
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.passes import Parts, Passes
from stilnovo.train.trackers import scalars
from training import planned


class _Endless(torch.autograd.Function):
    """The value as it is, with a gradient that is infinite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.inf


class Overflowing:
    """Next-token loss that overflows at the training passes `at`: in backward, or in the loss itself."""

    def __init__(self, at: tuple[int, ...], forward: bool = False) -> None:
        self.at, self.forward, self.calls, self.loss = at, forward, 0, NextToken()
        self.count = self.loss.count

    def __call__(self, passes: Passes, batch: Batch) -> tuple[Tensor, Parts]:
        loss, parts = self.loss(passes, batch)
        self.calls += torch.is_grad_enabled()
        if not torch.is_grad_enabled() or self.calls not in self.at:
            return loss, parts
        if self.forward:
            return loss * math.inf, {"loss": (math.inf, 1)}
        return _Endless.apply(loss), parts  # type: ignore[no-untyped-call]


def trainer(folder: Path, dtype: torch.dtype = torch.float16, loss: Any = None, **settings: Any) -> Trainer:
    model = Llama(TINY, random_source(3, std=0.1)).to(dtype)
    lora.attach(model, LoraConfig(r=4))
    section = {
        "steps": 8,
        "batch_packs": 2,
        "optimizer": "adamw",
        "checkpoint_every": 3,
        "learning_rate": 1e-2,
        **settings,
    }
    recipe = TrainSection.model_validate(section)
    corpus = pack([[(7 * i + j) % 97 for j in range(40)] for i in range(30)], 64)
    plan = planned(model, LoraConfig(r=4), recipe)
    return Trainer(model, corpus, recipe, RunFolder(folder), loss=loss, plan=plan)


def grad_scaler_values(overflows: list[bool]) -> list[float]:
    """The scales that torch's own scaler has after steps that overflow or not."""
    scaler = torch.amp.GradScaler("cpu", growth_interval=loss_scale.INTERVAL)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    values = []
    for overflow in overflows:
        scaler.scale((parameter * (math.inf if overflow else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        values.append(scaler.get_scale())
    return values


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_follows_the_rule_of_torchs_scaler(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "INTERVAL", 7)
    overflows = (torch.rand(80, generator=torch.Generator().manual_seed(seed)) < 0.1).tolist()
    scale, found = LossScale(), []
    for overflow in overflows:
        scale.update(finite=not overflow)
        found.append(scale.value)
    assert found == grad_scaler_values(overflows)
    assert scale.skipped == sum(overflows)


@pytest.mark.parametrize("forward", [False, True], ids=["in backward", "in the loss"])
def test_an_overflow_is_skipped_and_counted(forward: bool, tmp_path: Path) -> None:
    one = trainer(tmp_path, loss=Overflowing((3, 4), forward))
    before = [parameter.clone() for parameter in one.parameters]
    stream = iter(one.stream)
    rows = [one.train_step([next(stream)]) for _ in range(2)]
    moved = [parameter.clone() for parameter in one.parameters]
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    rows += [one.train_step([next(stream)]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(moved, one.parameters, strict=True))
    rows += [one.train_step([next(stream)])]
    assert [row["skipped_steps"] for row in rows] == [0, 0, 1, 2, 2]
    assert [row["loss_scale"] for row in rows] == [2.0**16] * 3 + [2.0**15, 2.0**14]
    assert [row["gradient_norm"] is None for row in rows] == [False, False, True, True, False]
    assert [row["loss"] is None for row in rows] == [False, False, forward, forward, False]
    json.dumps(rows, allow_nan=False)
    assert all(torch.isfinite(parameter).all() for parameter in one.parameters)


def test_a_run_ends_as_planned_and_its_report_is_made(tmp_path: Path) -> None:
    one = trainer(tmp_path, loss=Overflowing((1, 4, 8), forward=True))
    result = one.run_all()
    assert (result.steps, result.skipped_steps) == (8, 3)
    assert math.isfinite(result.first_loss) and math.isfinite(result.last_loss)
    rows = RunFolder(tmp_path).metrics()
    assert len(rows) == 8
    assert all(math.isfinite(value) for row in rows for value in scalars(row).values())
    assert "<html" in training_page(read_training(RunFolder(tmp_path)))


def test_a_resumed_run_repeats_its_scales(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", loss=Overflowing((2, 3)))
    whole.run_all()
    cut = trainer(tmp_path / "cut", loss=Overflowing((2, 3)))
    stream = iter(cut.stream)
    for _ in range(5):
        cut.run.append_metrics(cut.train_step([next(stream)]))
    cut.save()
    again = trainer(tmp_path / "cut", loss=Overflowing(()))
    again.resume()
    again.run_all()
    timed = ("seconds", "tokens_per_second", "memory_bytes")
    found, expected = (
        [{k: v for k, v in row.items() if k not in timed} for row in RunFolder(tmp_path / name).metrics()]
        for name in ("cut", "whole")
    )
    assert found == expected


def test_when_nothing_but_overflows_comes_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "HOPELESS", 5)
    one = trainer(tmp_path, loss=Overflowing(tuple(range(2, 99)), forward=True), steps=20)
    with pytest.raises(
        StilnovoError, match=r"(?s)5 steps one after another overflowed.*Lower train.learning_rate.*--resume"
    ):
        one.run_all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_stay_strict(dtype: torch.dtype, tmp_path: Path) -> None:
    one = trainer(tmp_path, dtype, Overflowing((2,), forward=True))
    assert one.scale is None
    assert "loss_scale" not in one.train_step([next(iter(one.stream))])
    with pytest.raises(StilnovoError, match="The loss is inf at step 2"):
        one.train_step([next(iter(one.stream))])


def test_the_gradients_are_those_of_single_precision_whatever_the_scale(tmp_path: Path) -> None:
    norms = []
    for name, dtype, value in (
        ("single", torch.float32, 1.0),
        ("small", torch.float16, 2.0**8),
        ("large", torch.float16, 2.0**15),
    ):
        one = trainer(tmp_path / name, dtype)
        if one.scale is not None:
            one.scale.value = value
        norms.append(one.train_step([next(iter(one.stream))])["gradient_norm"])
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=2e-2)


def test_a_scale_beyond_fp16_is_no_overflow_where_the_product_is_none() -> None:
    """The weight of a row in backward may be above 65,504 while its gradient times it is not."""
    head = Head(
        torch.randn(50, 8, generator=torch.Generator().manual_seed(1)).half() * 1e-3,
        "dense",
        None,
        Link(torch.device("cpu")),
    )
    hidden = torch.randn(4, 8, generator=torch.Generator().manual_seed(2)).half().requires_grad_()
    (tiled_losses(hidden, head, torch.arange(4), 4).sum() * 2.0**18).backward()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all() and hidden.grad.abs().max() > 1
