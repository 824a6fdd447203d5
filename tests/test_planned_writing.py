"""What `stilnovo plan` says of writing on a processor is what a command then does, copies of weights included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stilnovo.cli.plan_tables import Planned
from stilnovo.model.budget import use_of, writing_room
from stilnovo.model.load import ModelCheckpoint
from stilnovo.model.processor import WAYS, planned_products
from stilnovo.plan.account import account, writing_copies
from stilnovo.plan.choice import Budget
from stilnovo.plan.shape import LLAMA_3_8B, config_from_json
from stilnovo.spec import ModelSpec


@pytest.mark.parametrize("way", ["fp32", "int8"])
@pytest.mark.parametrize("share", [0.9, 1.5])
def test_a_plan_of_a_conversation_is_what_it_gets(
    way: str, share: float, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, cpu = config_from_json(tiny_folder / "config.json"), torch.device("cpu")
    spec = ModelSpec(str(tiny_folder), quantization="nf4", device="cpu")
    dense = replace(use_of("chat", spec, config, cpu, 512, 512), copies=4.0)
    room = round(share * account(dense).host)
    budget = Budget(room, room, context=0, reserve=0)
    monkeypatch.setattr("stilnovo.model.budget.budget_of", lambda _device: budget)
    monkeypatch.setenv("STILNOVO_CPU", way)
    planned = Planned(
        model=str(tiny_folder), config=replace(config, max_positions=512), scheme="nf4", adapter=None, budget=budget,
        on_card=False,
    ).use("chat")  # fmt: skip
    admitted, form = writing_room(ModelCheckpoint(spec), "chat", 512)
    use = admitted.use
    assert replace(use, config=planned.config) == planned
    assert form == (way if use.copies else "fp32")
    assert way != "fp32" or bool(use.copies) == (share > 1)


def test_the_head_is_kept_a_second_time_in_one_byte_a_number_or_two() -> None:
    heads = {way: writing_copies(LLAMA_3_8B, "nf4", way, 4)[1] for way in ("fp16", "bf16", "int8", "fp32")}
    assert heads == {"fp16": 2, "bf16": 1, "int8": 1, "fp32": 0}
    assert writing_copies(LLAMA_3_8B, "none", "int8", 4) == (0.0, 1)


def test_a_plan_computes_as_the_processor_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in WAYS:
        monkeypatch.setenv("STILNOVO_CPU", way)
        assert planned_products() == planned_products(10) == way
    monkeypatch.setenv("STILNOVO_CPU", "auto")
    assert planned_products(10) == "fp16"
    assert planned_products(10**10) in ("bf16", "int8")
