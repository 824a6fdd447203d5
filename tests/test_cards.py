"""Cards: found by the names that drivers give, none for another; what the table lacks is derived."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stilnovo.errors import InputError
from stilnovo.plan import cards
from stilnovo.plan.cards import CARDS, GIB, Card, derived, find, named
from stilnovo.plan.choice import Budget
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe_sections import TrainSection
from stilnovo.train import planning

#: Names as drivers give them, GiB, and the table's.
NAMES = [
    ("NVIDIA L40S", 45, "l40s"), ("NVIDIA L4", 22, "l4"), ("NVIDIA L40", 45, "l40"), ("Tesla T4", 15, "t4"),
    ("NVIDIA GeForce RTX 4060", 8, "rtx-4060"), ("NVIDIA GeForce RTX 4060 Laptop GPU", 8, "rtx-4060-laptop"),
    ("NVIDIA GeForce RTX 4060 Ti", 8, "rtx-4060-ti"), ("NVIDIA GeForce RTX 4060 Ti", 16, "rtx-4060-ti-16gb"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", 16, "rtx-4070-ti-super"), ("NVIDIA GeForce RTX 4090 D", 24, "rtx-4090-d"),
    ("NVIDIA GeForce RTX 3060", 12, "rtx-3060"), ("NVIDIA GeForce RTX 3060 Laptop GPU", 6, "rtx-3060-laptop"),
    ("NVIDIA GeForce RTX 3080 Ti", 12, "rtx-3080-ti"), ("GeForce RTX 2080 Ti", 11, "rtx-2080-ti"),
    ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", 12, "rtx-5070-ti-laptop"), ("NVIDIA GeForce RTX 5090", 32, "rtx-5090"),
    ("NVIDIA GeForce RTX 5060 Ti", 16, "rtx-5060-ti-16gb"), ("NVIDIA TITAN RTX", 24, "titan-rtx"),
    ("Quadro RTX 6000", 24, "quadro-rtx-6000"), ("NVIDIA RTX A6000", 48, "rtx-a6000"),
    ("NVIDIA RTX 6000 Ada Generation", 48, "rtx-6000-ada"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, "rtx-pro-6000-blackwell"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96, "rtx-pro-6000-blackwell-maxq"),
    ("NVIDIA A10", 23, "a10"), ("NVIDIA A10G", 23, "a10g"), ("NVIDIA A100-SXM4-40GB", 40, "a100-40gb"),
    ("NVIDIA A100-SXM4-80GB", 80, "a100-80gb"), ("NVIDIA A100 80GB PCIe", 80, "a100-80gb-pcie"),
    ("NVIDIA A100-PCIE-40GB", 40, "a100-40gb"), ("NVIDIA H100 80GB HBM3", 80, "h100"), ("NVIDIA H100 PCIe", 80, "h100-pcie"),
    ("NVIDIA H100 NVL", 94, "h100-nvl"), ("NVIDIA H200", 140, "h200"), ("NVIDIA B200", 180, "b200"),
    ("Tesla V100-SXM2-16GB", 16, "v100-sxm2-16gb"), ("Tesla V100-SXM2-32GB", 32, "v100-sxm2-32gb"),
]  # fmt: skip
#: Names that contain a known one, and are another card: capability, multiprocessors, GiB, clock in GHz, GB/s.
OTHERS = [
    ("NVIDIA T400 4GB", (7, 5), 6, 4, 1.4, 80), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0), 14, 5, 1.41, 194),
    ("NVIDIA RTX 4000 SFF Ada Generation", (8, 9), 48, 20, 1.56, 280), ("NVIDIA GeForce GTX 1660", (7, 5), 22, 6, 1.8, 192),
    ("GeForce RTX 2070 with Max-Q Design", (7, 5), 36, 8, 1.2, 384), ("GRID T4-8Q", (7, 5), 40, 8, 1.6, 320),
    ("NVIDIA RTX A4000 Laptop GPU", (8, 6), 40, 8, 1.7, 384), ("NVIDIA GeForce RTX 6090", (13, 0), 200, 48, 2.6, 2400),
]  # fmt: skip


def device_named(name: str, gib: float, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, total_memory=round(gib * GIB), **more)


@pytest.mark.parametrize(("name", "gib", "key"), NAMES)
def test_a_card_is_found_by_its_drivers_name(name: str, gib: float, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(name, round(gib * GIB)) == CARDS[key]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device_named(name, gib))
    found = planning.card_of(torch.device("cuda", 0))
    assert (found.name, found.memory) == (key, round(gib * GIB))


@pytest.mark.parametrize(("name", "capability", "count", "gib", "clock", "speed"), OTHERS)
def test_a_card_that_is_not_known_is_derived(
    name: str, capability: tuple[int, int], count: int, gib: float, clock: float, speed: float,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert find(name, round(gib * GIB)) is None
    major, minor = capability
    bus = 256
    properties = device_named(
        name, gib, major=major, minor=minor, multi_processor_count=count, clock_rate=clock * 1e6,
        memory_clock_rate=speed * 1e9 * 8 / bus / 2e3, memory_bus_width=bus,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    card = planning.card_of(torch.device("cuda", 0))
    assert card.derived and card.name == name and card.memory == properties.total_memory
    assert card.memory_speed == pytest.approx(0.9 * speed * 1e9)
    assert card.bf16 == (capability >= (8, 0))
    caplog.set_level(logging.INFO)
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=8), tokens=64)
    planning.choose_plan(run, TrainSection(), torch.device("cuda", 0), Budget(80 * GIB, 64 * GIB))
    assert "speeds are derived" in caplog.text


@pytest.mark.parametrize(
    ("name", "capability", "count", "clock"),
    [
        ("rtx-4090", (8, 9), 128, 2.52), ("rtx-3090", (8, 6), 82, 1.695), ("rtx-2080", (7, 5), 46, 1.71),
        ("rtx-5090", (12, 0), 170, 2.407), ("l40s", (8, 9), 142, 2.49), ("t4", (7, 5), 40, 1.59),
        ("a100-80gb", (8, 0), 108, 1.41), ("h100", (9, 0), 132, 1.83), ("rtx-a6000", (8, 6), 84, 1.8),
        ("b200", (10, 0), 148, 1.85),
    ],
)  # fmt: skip
def test_what_is_derived_is_near_the_sheet(name: str, capability: tuple[int, int], count: int, clock: float) -> None:
    sheet = CARDS[name]
    driver = f"NVIDIA {'GeForce ' if name.startswith('rtx-') and 'a6000' not in name else ''}{name}"
    found = derived(driver, capability, count, sheet.memory, clock * 1e9, sheet.memory_speed / cards.READ)
    assert found.flops == pytest.approx(sheet.flops, rel=0.04)
    assert found.attention_flops == pytest.approx(sheet.attention_flops, rel=0.04)
    assert found.memory_speed == pytest.approx(sheet.memory_speed)


def test_every_card_is_found_by_its_own_name_however_it_is_written() -> None:
    generator = random.Random(3)
    for card in CARDS.values():
        for _ in range(4):
            words = card.name.split("-")
            generator.shuffle(words)
            name = generator.choice(["NVIDIA ", "NVIDIA GeForce ", "Tesla ", ""]) + " ".join(words).upper()
            assert find(name, card.memory) == card == named(card.name), name
            for extra in ("Xi", "Laptop", "D", "MIG 1g"):
                other = find(f"{name} {extra}", card.memory)
                assert other is None or set(extra.lower().split()) <= set(other.name.split("-"))


def test_no_card_is_a_part_of_another_and_their_figures_are_plausible() -> None:
    keys = [cards.words_of(card.name) for card in CARDS.values()]
    assert len(set(keys)) == len(keys)
    for card in CARDS.values():
        assert 4 * GIB <= card.memory <= 192 * GIB
        assert 150e9 < card.memory_speed < 8e12 and 5e9 < card.link_speed < 60e9
        assert card.attention_flops <= card.flops
        assert card.bf16 == (card.capability >= 8)


def test_an_unknown_name_is_refused_with_what_is_like_it() -> None:
    with pytest.raises(InputError) as refused:
        named("rtx-4061")
    assert "rtx-4060" in str(refused.value)
    assert named("NVIDIA GeForce RTX 4060 Laptop GPU") is CARDS["rtx-4060-laptop"]


def test_a_card_whose_driver_says_little_has_a_forecast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = device_named("NVIDIA Whatever 9000", 8, major=8, minor=6, multi_processor_count=28)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    card: Card = planning.card_of(torch.device("cuda", 0))
    assert card.derived and card.flops > 1e13 and card.memory_speed > 1e11
