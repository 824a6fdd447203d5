"""Trainings by torch's autograd: their account against the live bytes of the real step, and refused before a row is read."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ROOT
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.qat import make_aware
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.autograd import LEAST_TOKENS, AutogradStep
from stilnovo.plan.choice import Budget
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LlamaConfig, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe import Recipe
from stilnovo.train.passes import Passes
from stilnovo.train.preparation import Preparation

sys.path.append(str(ROOT / "bench"))
import tracking

SHAPE = LlamaConfig(
    vocab_size=300, hidden_size=128, intermediate_size=352, layers=3, heads=4, kv_heads=2, head_dim=32,
    tie_embeddings=True, max_positions=4096,
)  # fmt: skip
HOW: dict[str, dict[str, Any]] = {
    "plain": {}, "dropout": {"dropout": True}, "int8": {"aware": "int8"}, "int4": {"aware": "int4"},
    "recomputed": {"checkpointing": True}, "recomputed int8": {"checkpointing": True, "aware": "int8"},
}  # fmt: skip


class Fresh(tracking.LiveBytes):
    """Live bytes of what a step makes: storages that were there before do not count."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__("cpu")
        self.before = {tensor.untyped_storage().data_ptr() for tensor in before}

    def _see(self, tensor: Tensor) -> None:
        if tensor.untyped_storage().data_ptr() not in self.before:
            super()._see(tensor)


def tracked(step: AutogradStep, lengths: tuple[int, ...]) -> tuple[int, int]:
    """Bytes that last, and the most that one real step holds."""
    config, run = step.run.config, step.run
    model = Llama(config, random_source(1), lambda weight: quantized_linear(weight, run.scheme))  # type: ignore[arg-type]
    lora.attach(model, run.lora)
    if step.aware:
        make_aware(model, 8 if step.aware == "int8" else 4)
    model.checkpointing = step.checkpointing
    model.train()
    for parameter in lora.parameters(model):
        parameter.grad = torch.zeros_like(parameter)
    learnt = [tensor for p in lora.parameters(model) for tensor in (p, p.grad) if tensor is not None]
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in [*model.buffers(), *learnt]}
    moments = 2 * sum(parameter.nbytes for parameter in lora.parameters(model))
    passes, ids = Passes(model, None, step.levers.loss_chunk), torch.arange(sum(lengths)) % config.vocab_size
    with Fresh([*model.buffers(), *learnt]) as live:
        hidden = passes.hidden(ids, lengths)
        loss = passes.losses(hidden, ids).sum()
        del hidden
        loss.backward()  # type: ignore[no-untyped-call]
    lasting = sum(held.values()) + moments
    return lasting, lasting + live.peak


@pytest.fixture(autouse=True)
def no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "BLAS_BYTES", 0)  # of a card's products


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("seed", range(2))
def test_the_account_is_that_of_the_real_step(how: str, seed: int) -> None:
    drawn = random.Random(f"{how} {seed}")
    lengths = tuple(drawn.randrange(40, 400) for _ in range(drawn.randrange(1, 4)))
    learnt = ("q_proj", "v_proj", "down_proj") if seed and how != "dropout" else LoraConfig().projections
    run = Run(
        config=replace(SHAPE, intermediate_size=32 * drawn.randrange(8, 20), kv_heads=drawn.choice([1, 2, 4])),
        lora=LoraConfig(r=8, dropout=0.1 if how == "dropout" else 0.0, projections=learnt), scheme=drawn.choice(["none", "nf4"]),
        tokens=sum(lengths), value_bytes=4, flash=False, documents=len(lengths),
    )  # fmt: skip
    # few logits at a time: what their logarithms take inside torch is not seen here
    step = AutogradStep(
        run=run, levers=Levers(layers=all_layers("keep", 3), loss_chunk=8, optimizer="adamw"), **HOW[how]
    )
    lasting, most = tracked(step, lengths)
    items = {item.name: item.size for item in step.ledger.items}
    comes = items["peak inside the step"] + items["tokens, targets, rotary tables"]
    assert sum(items.values()) - comes == pytest.approx(lasting, rel=0.05)
    assert step.ledger.peak == pytest.approx(most, rel=0.07)


@pytest.mark.parametrize("how", HOW)
def test_it_fits_in_exactly_its_need_and_what_is_said_to_fit_fits(how: str) -> None:
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=16), scheme="none", tokens=2048, value_bytes=4, flash=False)
    step = AutogradStep(run=run, levers=Levers(layers=all_layers("keep", 32), optimizer="adamw"), **HOW[how])
    need = max(step.peak, step.load)
    enough, less = Budget(need, need, context=0, reserve=0), Budget(need - 1, need, context=0, reserve=0)
    assert step.fits(enough) and not step.fits(less)
    advice = step.what_would(less)
    if "at most" in advice:
        tokens = int(advice.split("t most ")[1].split(" tokens")[0].replace(",", ""))
        assert step.with_tokens(tokens).fits(less) and not step.with_tokens(tokens + 1).fits(less)
    assert ("gradient_checkpointing" in advice) == (not step.checkpointing)
    hopeless = step.what_would(Budget(2**30, 2**30, context=0, reserve=0))
    assert "more would do" in hopeless


@pytest.mark.parametrize("key", ["lora.quantization_aware=int8", "lora.dropout=0.1", "train.engine=plain"])
def test_a_training_by_autograd_is_refused_before_its_data_are_read(
    key: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = key.split("=")
    recipe = Recipe.model_validate({
        "model": {"name": str(tiny_folder), "device": "cpu"}, "data": {"paths": [str(tmp_path / "missing.jsonl")]},
        "train": {"steps": 1},
    }).changed({name: float(value) if "." in value else value})  # fmt: skip
    monkeypatch.setenv("STILNOVO_RAM", "2MB")
    with pytest.raises(InputError, match="does not fit, by torch's autograd") as refused:
        Preparation(recipe, tmp_path / "run")
    assert name in str(refused.value) and LEAST_TOKENS == 16
