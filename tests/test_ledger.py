"""The ledger against the real step of an 8B layer, run on shapes alone: every line of it follows the code or fails here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from memory import documents, row
from stilnovo.plan.candidates import WHOLE
from stilnovo.plan.cards import CARDS, GIB
from stilnovo.plan.choice import Budget, best
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.plan.temporaries import moments_of

LAYERS = 4
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
    "whole": {"layers": all_layers("keep", LAYERS), "loss_chunk": 8192, "elementwise_bytes": WHOLE},
    "dense copies, tiles": {"keep_dense": True, "loss_chunk": 2048, "head_tile": 8000, "layers": all_layers("offload", LAYERS)},
    "groups": {"attention_groups": 4, "layers": ("attention", "keep") * 2},
    "lean": LEAN,
    "lean, mixed": {**LEAN, "layers": ("attention", "keep") * 2, "prefetch": True, "head": "int8"},
}  # fmt: skip
SCHEMES = ("nf4", "int8", "none")


def track(name: str, run: Run, document: int | None) -> dict[str, Any]:
    """The step under a named plan, predicted and tracked; never less is predicted than a card would hold."""
    found = row(name, replace(PLAIN, **PLANS[name]), run, document)
    assert -0.01 <= found["predicted_bytes"] / found["tracked_bytes"] - 1 <= 0.03, found
    return found


@pytest.mark.parametrize(
    ("name", "kernels"), [*((name, True) for name in PLANS), ("whole", False), ("groups", False), ("lean", False)]
)
def test_predicted_is_tracked(name: str, kernels: bool) -> None:
    """Schemes and cards take turns; documents of 60 tokens, each of which attention pads."""
    turn = list(PLANS).index(name)
    scheme = SCHEMES[turn % 3] if kernels else "nf4"
    capability = (8.9, 9.0)[turn % 2]
    run = Run(config=SHAPE, lora=LoraConfig(r=32), tokens=2048, kernels=kernels, scheme=scheme, capability=capability)
    track(name, run, 60)


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("tile", [None, 8000])
def test_some_tokens_and_the_divergence_from_the_base(tile: int | None, anchored: bool) -> None:
    """Hidden states of the tokens that are learnt are copied; the base reads while all that is saved waits."""
    levers = Levers(layers=all_layers("keep", 2), loss_chunk=2048, head_tile=tile)
    run = Run(
        config=replace(SHAPE, layers=2), lora=LoraConfig(r=32), tokens=2048, gathered=True, anchored=anchored
    )  # fmt: skip
    found = row("parts", levers, run)
    assert -0.01 <= found["predicted_bytes"] / found["tracked_bytes"] - 1 <= 0.03, found


def test_arithmetic_is_counted() -> None:
    """Of one long document."""
    found = track("recompute", Run(config=SHAPE, lora=LoraConfig(r=32), tokens=2048), None)
    assert found["predicted_times_n"] == pytest.approx(found["times_n"], rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("document", [None, 60])
@pytest.mark.parametrize("tokens", [2048, 8192])
@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", list(PLANS))
def test_predicted_is_tracked_everywhere(
    name: str, scheme: str, kernels: bool, tokens: int, document: int | None
) -> None:  # fmt: skip
    config = replace(SHAPE, vocab_size=128_256)
    track(name, Run(config=config, lora=LoraConfig(r=32), tokens=tokens, kernels=kernels, scheme=scheme), document)


@pytest.mark.slow
@pytest.mark.parametrize("document", [None, 60])
@pytest.mark.parametrize("tokens", [2048, 8192])
@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize(("card", "host"), [("rtx-4060", 32), ("rtx-4090", 64), ("h200", 128)])
def test_what_is_chosen_for_a_card_is_tracked(
    card: str, host: int, kernels: bool, tokens: int, document: int | None
) -> None:  # fmt: skip
    """The real 32 layers under the plan of a training."""
    known = CARDS[card]
    run = Run(
        config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=tokens, kernels=kernels, capability=known.capability,
        documents=len(documents(tokens, document)),
    )  # fmt: skip
    plan = best(run, Budget(known.memory, host * GIB), known)
    assert plan is not None
    found = row(card, plan.levers, run, document)
    assert -0.01 <= found["predicted_bytes"] / found["tracked_bytes"] - 1 <= 0.03, found


def test_kernels_take_less() -> None:
    """No logits in fp32 beside those of the product; a joint matrix in which each part is written where it belongs."""
    run = Run(config=SHAPE, lora=LoraConfig(r=32), tokens=2048)
    whole, plain = replace(PLAIN, loss_chunk=2048), replace(run, kernels=False)
    logits = 2048 * 32_000
    assert moments_of(plain, whole)["loss"] - moments_of(run, whole)["loss"] == 4 * logits + 2 * 2048 * 4096
    for name, size in moments_of(run, whole).items():
        assert size <= moments_of(plain, whole)[name], name
    assert moments_of(replace(plain, flash=False), whole) == moments_of(replace(run, flash=False), whole)


def test_what_has_left_is_not_held_by_the_layers_after_it() -> None:
    """An offloaded layer's activations are freed one layer later, though that one and all after it keep theirs."""
    layers = (*("offload",) * 2, *("keep",) * 3)
    run = Run(config=replace(SHAPE, layers=len(layers)), lora=LoraConfig(r=32), tokens=2048)
    found = row("mixed", replace(PLAIN, layers=layers), run)
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
