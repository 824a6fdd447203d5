"""A model is loaded where the plan wants it: at no moment does a card hold more than the plan's figure for the load.

The real code under fake tensors (`fake_cuda`), at an 8B model's full width: from its weights, and from a base that is kept
quantised. Live storages on the card are followed one by one.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from fake_cuda import CARD, GIB, fake_card, place_of
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import kept_bases, load, lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import build
from stilnovo.model.quantize import FourBitLinear, FrozenLinear
from stilnovo.plan.cards import CARDS
from stilnovo.plan.choice import Budget, best, plan_for
from stilnovo.plan.ledger import load_bytes
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LlamaConfig, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe_sections import Scheme
from tracking import LiveStorages

WIDE = replace(LLAMA_3_8B, layers=2)
ADAPTER = LoraConfig(r=32)
#: Levers that move weights, alone and together.
PLACES: dict[str, dict[str, Any]] = {
    "all on the card": {},
    "one layer streamed": {"streamed_layers": 1},
    "all layers streamed": {"streamed_layers": 2},
    "embedding on the host": {"embedding": "host"},
    "head streamed": {"head": "streamed", "head_tile": 16_384},
    "head in 4 bits": {"head": "nf4", "head_tile": 16_384},
    "head in 8 bits": {"head": "int8", "head_tile": 16_384},
    "leanest": {
        "streamed_layers": 2, "embedding": "host", "head": "streamed", "head_tile": 8192, "optimizer_place": "host",
        "inputs": "host",
    },
}  # fmt: skip


class Shapes:
    """A checkpoint of the right shapes, in host memory."""

    def __init__(self, config: LlamaConfig, stored: torch.dtype) -> None:
        self.config, self.stored, self.files = config, stored, list[Any]()

    def tensor(self, _name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(shape, dtype=self.stored)


def kept_base(config: LlamaConfig) -> dict[str, FrozenLinear]:
    """A whole base as it is mapped: every projection in host memory."""
    cpu = torch.device("cpu")
    return {
        name: FourBitLinear.of_shape(*shape, "nf4", cpu)
        for name, shape in config.weight_shapes().items() if name.endswith("_proj.weight")
    }  # fmt: skip


def opened(config: LlamaConfig, scheme: Scheme, levers: Levers, stored: torch.dtype = torch.bfloat16) -> Llama:
    reader: Any = Shapes(config, stored)
    return build(reader, scheme, CARD, torch.bfloat16, on_host=levers.stays_on_host)


def made_ready(model: Llama, levers: Levers) -> TrainingEngine:
    """What a training does with a model before its first step."""
    lora.attach(model, ADAPTER)
    sink = HostAdapter(model) if levers.optimizer_place == "host" else None
    return TrainingEngine(model, levers, sink)


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_bases, "bases_folder", lambda: None)


CASES = [(scheme, name) for scheme in ("nf4", "none") for name in PLACES] + [
    ("int8", "all on the card"),
    ("int8", "leanest"),
]


@pytest.mark.parametrize(("scheme", "place"), CASES)
def test_the_load_is_what_the_plan_says(scheme: Scheme, place: str) -> None:
    levers = replace(Levers(layers=all_layers("recompute", 2)), **PLACES[place])
    run = Run(config=WIDE, lora=ADAPTER, scheme=scheme, tokens=2048)
    with fake_card(), LiveStorages("cuda") as live:
        model = opened(WIDE, scheme, levers)
        said = load_bytes(run, levers)
        assert live.peak <= 1.01 * said, f"{live.peak / GIB:.3f} of {said / GIB:.3f} GiB, in {live.at}"
        assert live.peak >= 0.9 * said, "the plan asks for more than the load takes"
        for name, buffer in model.named_buffers():
            weight = f"{name.rpartition('.')[0]}.weight" if "_proj." in name else name
            weight = weight if weight.startswith("lm_head") else f"model.{weight}"
            weight = weight if weight.endswith("weight") else f"{weight}.weight"
            wanted = "cpu" if levers.stays_on_host(weight) else "cuda"
            assert place_of(buffer) == wanted, name
        made_ready(model, levers)
        gc.collect()
        step = plan_for(run, levers, CARDS["rtx-4060"])
        assert live.peak <= max(step.load, step.peak), f"{live.peak / GIB:.3f} GiB, in {live.at}"


def test_weights_that_are_stored_wide_come_narrow() -> None:
    """A checkpoint in fp32: no matrix crosses the link, or lies on the card, in four bytes a weight."""
    levers = Levers(layers=all_layers("recompute", 2))
    with fake_card(), LiveStorages("cuda") as live:
        opened(WIDE, "nf4", levers, torch.float32)
        assert live.peak <= 1.01 * load_bytes(Run(config=WIDE, lora=ADAPTER, tokens=512), levers)


@pytest.mark.parametrize(
    ("size", "tokens", "scheme"),
    [(2, 512, "nf4"), (2, 8192, "nf4"), (3, 2048, "nf4"), (4, 512, "nf4"), (6, 4096, "nf4"), (8, 2048, "nf4"),
     (4, 512, "none"), (8, 2048, "none")],
)  # fmt: skip
def test_every_plan_s_model_can_be_opened_and_made_ready(
    size: int, tokens: int, scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole 8B model, from its kept base or its 16-bit weights, under the plans for small cards."""
    run = Run(config=LLAMA_3_8B, lora=ADAPTER, tokens=tokens, scheme=scheme)
    budget = Budget(size * GIB, 64 * GIB)
    plan = best(run, budget, CARDS["rtx-4060"])
    if plan is None:
        pytest.skip("nothing fits")
    with fake_card(memory=size * GIB):
        base = kept_base(LLAMA_3_8B) if scheme == "nf4" else {}
        monkeypatch.setattr(load._Weights, "kept", lambda *_: base)
        with LiveStorages("cuda") as live:
            model = opened(LLAMA_3_8B, scheme, plan.levers)
            assert live.peak <= plan.load, f"{live.peak / GIB:.3f} of {plan.load / GIB:.3f} GiB, in {live.at}"
            engine = made_ready(model, plan.levers)
            assert live.peak <= max(plan.load, plan.peak), f"{live.peak / GIB:.3f} GiB, in {live.at}"
            assert live.peak <= budget.allocator
            gc.collect()
            adapter = "adapter", "frozen projections", "slots of streamed layers", "embedding", "norms", "head"
            lasting = sum(
                i.size for i in plan.ledger.items if i.place == "card" and i.name in (*adapter, "tiles of the head")
            )
            assert live.now == pytest.approx(lasting, rel=0.01)
            assert engine.model is model


def test_a_base_that_cannot_be_kept_is_not_held_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The cache's disk is full: the model opens all the same, one matrix after another."""
    monkeypatch.setattr(kept_bases, "bases_folder", lambda: tmp_path)
    monkeypatch.setattr(kept_bases, "check_room", _no_room)
    levers = replace(Levers(layers=all_layers("recompute", 2)), **PLACES["leanest"])
    with fake_card(), LiveStorages("cuda") as live:
        model = opened(WIDE, "nf4", levers)
        assert live.peak <= 1.01 * load_bytes(Run(config=WIDE, lora=ADAPTER, tokens=512), levers)
        assert model.device == CARD
    assert "is not kept" in caplog.text


def _no_room(*_: Any) -> None:
    raise OSError(28, "No space left on device")
