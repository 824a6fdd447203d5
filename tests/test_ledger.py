"""The ledger against the real step of an 8B layer, run on shapes alone: every line of it follows the code or fails here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from memory import row
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B

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


@pytest.mark.parametrize("name", list(PLANS))
def test_predicted_is_tracked(name: str) -> None:
    found = row(name, replace(PLAIN, **PLANS[name]), 2048, SHAPE)
    assert found["predicted_bytes"] == pytest.approx(found["tracked_bytes"], rel=0.02)
    assert found["predicted_times_n"] == pytest.approx(found["times_n"], rel=0.03)
