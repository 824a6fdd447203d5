"""The loss, the optimizer's schedule and one step of the trainer, against torch and against the formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import TINY
from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.engine.loss import chunked_losses
from stilnovo.errors import InputError, StilnovoError
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train.loop import Trainer
from stilnovo.train.optimizer import learning_rate, warmup_note
from stilnovo.train.steps import planned_steps
from training import planned


@pytest.mark.parametrize("chunk", [1, 7, 23, 1000])
@pytest.mark.parametrize("scale", [1.0, 100.0])  # logits far beyond what exp can hold
def test_chunked_cross_entropy_is_torchs(chunk: int, scale: float) -> None:
    torch.manual_seed(4)
    hidden, head = (scale * torch.randn(23, 16)).requires_grad_(), torch.randn(50, 16)
    targets = torch.randint(0, 50, (23,))
    exact = hidden.detach().double().requires_grad_()
    logits = exact @ head.double().T
    largest = logits.detach().abs().max().item()
    ours = chunked_losses(hidden, head, targets, chunk).sum()
    theirs = F.cross_entropy(logits, targets, reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    (got,) = torch.autograd.grad(3 * ours, hidden)
    (expected,) = torch.autograd.grad(3 * theirs, exact)
    # A probability is as exact as its logit, and a logit as single precision holds the largest of them.
    assert (got - expected).abs().max() <= 3 * (1e-5 + 2**-23 * largest)


def test_chunked_cross_entropy_in_half_precision_sums_in_single() -> None:
    torch.manual_seed(4)
    hidden, head = torch.randn(64, 16).bfloat16().requires_grad_(), torch.randn(50, 16).bfloat16()
    targets = torch.randint(0, 50, (64,))
    ours = chunked_losses(hidden, head, targets, 10).sum()
    theirs = F.cross_entropy((hidden @ head.T).float(), targets, reduction="sum")
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (got,) = torch.autograd.grad(ours, hidden)
    assert got.dtype == torch.bfloat16


def test_without_gradients_the_loss_keeps_nothing() -> None:
    hidden, head, targets = torch.randn(9, 16), torch.randn(50, 16), torch.randint(0, 50, (9,))
    with torch.no_grad():
        loss = chunked_losses(hidden.requires_grad_(), head, targets, 4).sum()
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(F.cross_entropy(hidden @ head.T, targets, reduction="sum").item(), rel=1e-6)


def test_no_more_rows_of_logits_than_a_chunk() -> None:
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            if isinstance(found, Tensor) and found.ndim == 2 and found.shape[1] == 50:
                largest = max(largest, found.shape[0])
            return found

    hidden, head, targets = torch.randn(23, 16, requires_grad=True), torch.randn(50, 16), torch.randint(0, 50, (23,))
    with Watch():
        chunked_losses(hidden, head, targets, 5).sum().backward()
    assert largest == 5


def section(**changes: object) -> TrainSection:
    return TrainSection.model_validate({"steps": 4, "batch_packs": 1, "optimizer": "adamw", **changes})


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_schedule_rises_then_falls_to_its_end(schedule: str, steps: int, warmup: float) -> None:
    recipe = section(schedule=schedule, warmup_ratio=warmup, final_ratio=0.1, learning_rate=1e-3)
    rates = [learning_rate(step, steps, recipe) for step in range(steps)]
    rising = math.ceil(warmup * steps)
    assert all(0 < rate <= 1e-3 for rate in rates)
    assert rates[max(0, rising - 1)] == pytest.approx(1e-3)
    assert rates == sorted(rates[:rising]) + sorted(rates[rising:], reverse=True)
    end = 1e-3 if schedule == "constant" else 1e-4
    if steps > rising:
        assert learning_rate(steps, steps, recipe) == pytest.approx(end)  # where the last step leads
    if steps == 100:
        assert rates[-1] == pytest.approx(end, rel=0.15)
        middle = learning_rate((100 + rising) // 2, 100, recipe)
        assert middle == pytest.approx(1e-3 if schedule == "constant" else 5.5e-4, rel=0.01)


def trainer(folder: Path, corpus: PackedCorpus, **changes: object) -> Trainer:
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, adapter := lora.LoraConfig(r=4))
    settings = section(**changes)
    return Trainer(model, corpus, settings, RunFolder(folder), plan=planned(model, adapter, settings))


def corpus() -> PackedCorpus:
    generator = torch.Generator().manual_seed(6)
    lengths = torch.randint(5, 60, (16,), generator=generator).tolist()
    return pack([torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths], 64)


def test_eight_little_batches_are_one_big_one(tmp_path: Path) -> None:
    packed = corpus()
    assert len(packed.packs) >= 8
    # SGD's step is the gradient: AdamW's division would blow rounding up where the gradient is almost zero.
    found = []
    for name, batch_packs, accumulation in (("little", 1, 8), ("big", 8, 1)):
        one = trainer(tmp_path / name, packed, batch_packs=batch_packs, accumulation=accumulation, clip_norm=1e9)
        for module in lora.adapters(one.model).values():
            torch.nn.init.normal_(module.lora_B, std=0.05, generator=torch.Generator().manual_seed(8))
        one.optimizer = torch.optim.SGD(one.parameters, lr=0.0)
        stream = iter(one.stream)
        row = one.train_step([next(stream) for _ in range(accumulation)])
        found.append((row, [p.detach().clone() for p in one.parameters]))
    (little, small), (big, large) = found
    assert little["tokens"] == big["tokens"]
    assert little["loss"] == pytest.approx(big["loss"], rel=1e-6)
    assert little["gradient_norm"] == pytest.approx(big["gradient_norm"], rel=1e-4)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(small, large, strict=True))


def test_checkpointing_does_not_change_the_losses(tmp_path: Path) -> None:
    losses = []
    for switch in (False, True):
        one = trainer(tmp_path / str(switch), corpus(), gradient_checkpointing=switch)
        one.run_all()
        losses.append([row["loss"] for row in one.run.metrics()])
    assert losses[0] == losses[1]


def test_only_the_adapter_changes(tmp_path: Path) -> None:
    one = trainer(tmp_path, corpus())
    before = {name: tensor.clone() for name, tensor in one.model.named_buffers()}
    adapter = [p.detach().clone() for p in one.parameters]
    one.run_all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.model.named_buffers())
    assert not any(torch.equal(p, old) for p, old in zip(one.parameters, adapter, strict=True))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    one = trainer(tmp_path, corpus(), checkpoint_every=1)
    stream = iter(one.stream)
    one.train_step([next(stream)])
    before = [p.detach().clone() for p in one.parameters]
    one.model.norm.fill_(float("nan"))
    with pytest.raises(StilnovoError, match=r"(?s)loss is nan at step 2.*learning_rate"):
        one.train_step([next(stream)])
    assert all(torch.equal(p, old) for p, old in zip(one.parameters, before, strict=True))


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({"steps": 7}, 7), ({"epochs": 1}, 10), ({"epochs": 2.5}, 25), ({"epochs": 0.01}, 1),
     ({"batch_packs": 3}, 4), ({"batch_packs": 3, "accumulation": 3}, 2)],
)  # fmt: skip
def test_steps_follow_from_the_data(changes: dict[str, object], steps: int) -> None:
    packed = pack([list(range(33))] * 10, 32)
    assert planned_steps(packed, section(**{"steps": None, **changes})) == steps


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        trainer(tmp_path, pack([[5]], 32))


@pytest.mark.parametrize(
    ("warmup", "steps", "says"),
    [
        (100, 20, "only reaches 20 %"),
        (12, 20, "12 steps and the run has 20."),
        (10, 20, ""),
        (1, 1, ""),
        (None, 20, ""),
    ],
)
def test_a_warm_up_longer_than_half_the_run_is_said(warmup: int | None, steps: int, says: str) -> None:
    note = warmup_note(steps, TrainSection(warmup_steps=warmup, warmup_ratio=0.9))
    assert says in note and bool(note) == bool(says)
