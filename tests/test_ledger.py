"""The ledger against the real step of an 8B layer, run on shapes alone: every line of it follows the code or fails here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from memory import row
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.plan.temporaries import moments_of

LAYERS = 2
SHAPE = replace(LLAMA_3_8B, layers=LAYERS, vocab_size=32_000)
PLAIN = Levers(layers=all_layers("recompute", LAYERS))
LEAN: dict[str, Any] = {
    "inputs": "host", "head": "streamed", "head_tile": 8000, "loss_chunk": 512, "embedding": "host", "tile": 1024,
    "streamed_layers": LAYERS, "attention_groups": 8, "prefetch": False, "optimizer_place": "host",
}  # fmt: skip
PLANS: dict[str, dict[str, Any]] = {
    "recompute": {},
    "keep": {"layers": all_layers("keep", LAYERS)},
    "offload": {"layers": all_layers("offload", LAYERS)},
    "attention": {"layers": all_layers("attention", LAYERS), "inputs": "host"},
    "lean": LEAN,
    "lean, mixed": {**LEAN, "layers": ("attention", "keep"), "prefetch": True, "head": "int8"},
}


@pytest.mark.parametrize("document", [None, 60])
@pytest.mark.parametrize("name", list(PLANS))
def test_predicted_is_tracked(name: str, document: int | None) -> None:
    """Of one long document and of many short ones, each of which attention's backward pads."""
    found = row(name, replace(PLAIN, **PLANS[name]), 2048, SHAPE, document=document)
    assert found["predicted_bytes"] == pytest.approx(found["tracked_bytes"], rel=0.02)
    if document is None:
        assert found["predicted_times_n"] == pytest.approx(found["times_n"], rel=0.03)


def test_what_has_left_is_not_held_by_the_layers_after_it() -> None:
    """An offloaded layer's activations are freed one layer later, though that one and all after it keep theirs."""
    layers = (*("offload",) * 2, *("keep",) * 3)
    found = row("mixed", replace(PLAIN, layers=layers), 2048, replace(SHAPE, layers=len(layers)))
    assert found["predicted_bytes"] == pytest.approx(found["tracked_bytes"], rel=0.02)


def test_short_documents_take_more() -> None:
    """8,192 tokens in documents of 60: 128 rows more for each of 137, in fp32, of 32 heads of 128 and a sum."""
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=8192)
    levers = Levers(layers=all_layers("attention", 32))
    peaks = [moments_of(replace(run, documents=count), levers)["backward, attention"] for count in (1, 137)]
    assert peaks[1] - peaks[0] == 136 * 128 * 32 * 129 * 4


@pytest.mark.parametrize(("capability", "size"), [(8.9, 2 * 8_519_680), (9.0, 2 * 2**25), (10.0, 2 * 2**25)])
def test_the_workspaces_of_products_are_an_item(capability: float, size: int) -> None:
    run = Run(config=SHAPE, lora=LoraConfig(r=8), capability=capability)
    items = {item.name: item.size for item in ledger(run, PLAIN).items}
    assert items["workspaces of products"] == size
    assert "workspaces of products" not in {item.name for item in ledger(replace(run, flash=False), PLAIN).items}
