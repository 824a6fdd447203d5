"""The whole of what a card does, on shapes alone: every lever, quantisation and generation, all tensors where and of what type they belong.

Nothing here has values: what the numbers are, other tests say. A product of two devices or two types fails here as on a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from fake_cuda import CARD, GENERATIONS, fake_card, place_of
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.generate.kv_cache import KVCache
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import compute_dtype
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.train.passes import Passes

SHAPE = LlamaConfig(
    vocab_size=259, hidden_size=64, intermediate_size=128, layers=2, heads=8, kv_heads=4, head_dim=16, max_positions=64
)
SCHEMES: tuple[Scheme, ...] = ("none", "int8", "int4", "nf4", "fp4")
LENGTHS = (6, 1)
PLAIN = Levers(layers=all_layers("keep", 2), loss_chunk=8)
#: Settings in which every value of every lever occurs.
SETTINGS: dict[str, dict[str, Any]] = {
    "all kept": {},
    "leanest": {
        "layers": all_layers("recompute", 2), "inputs": "host", "prefetch": False, "streamed_layers": 2, "embedding": "host",
        "head": "streamed", "head_tile": 130, "tile": 4, "attention_groups": 4, "optimizer_place": "host", "optimizer": "adamw",
    },
    "offloaded": {"layers": all_layers("offload", 2), "attention_groups": 2, "head": "int8"},
    "attention kept": {
        "layers": ("attention", "recompute"), "inputs": "host", "streamed_layers": 1, "slots": 1, "head": "nf4",
    },
    "recomputed": {"layers": ("recompute", "keep"), "tile": 5, "embedding": "host", "keep_dense": True},
}  # fmt: skip


def fake_model(scheme: Scheme, *, adapter: bool = True) -> Llama:
    """A model on the card, in the type in which this card computes."""
    dtype = compute_dtype(CARD)
    made = Llama(SHAPE, lambda _, s: torch.zeros(s, dtype=dtype, device=CARD), lambda w: quantized_linear(w, scheme))
    made.rotary.to(CARD)
    made.requires_grad_(False)
    if adapter:
        lora.attach(made, LoraConfig(r=8))
    return made


def step(scheme: Scheme, levers: Levers, passes: int = 1) -> TrainingEngine:
    """Steps of a training under these levers; checks the types and places of everything that comes of them."""
    model = fake_model(scheme)
    sink = HostAdapter(model) if levers.optimizer_place == "host" else None
    engine = TrainingEngine(model, levers, sink)
    work = Passes(model, engine, levers.loss_chunk)
    for _ in range(passes):
        tokens = torch.zeros(sum(LENGTHS), dtype=torch.int64)
        hidden = work.hidden(tokens, LENGTHS)
        assert (place_of(hidden), hidden.dtype) == ("cuda", model.dtype)
        losses = work.losses(hidden, tokens)
        assert (place_of(losses), losses.dtype) == ("cuda", torch.float32)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        with work.base():
            base = work.hidden(tokens, LENGTHS)
        assert place_of(work.divergence(base, base)) == "cuda"
    if sink is not None:
        sink.collect()
    wanted = "cpu" if sink else "cuda"
    for parameter in lora.parameters(model) if sink is None else sink.masters:
        assert parameter.grad is not None
        assert (place_of(parameter), place_of(parameter.grad)) == (wanted, wanted)
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    if sink is not None:
        sink.publish()
        assert all(place_of(p) == "cuda" and p.dtype == model.dtype for p in lora.parameters(model))
        sink.restore()
        assert all(place_of(p) == "cuda" and p.dtype == torch.float32 for p in lora.parameters(model))
    assert not engine.store._kept, "every saved tensor was fetched"
    return engine


def check(generation: tuple[int, int], scheme: Scheme, name: str) -> None:
    with fake_card(generation):
        assert compute_dtype(CARD) == (torch.float16 if generation == (7, 5) else torch.bfloat16)
        step(scheme, replace(PLAIN, **SETTINGS[name]))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_step(scheme: Scheme, name: str) -> None:
    """Every setting under every scheme, the generations taking turns; all of them with all are a slow test."""
    turn = SCHEMES.index(scheme) + list(SETTINGS).index(name)
    check(GENERATIONS[turn % len(GENERATIONS)], scheme, name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_step_on_turing(name: str) -> None:
    check((7, 5), "nf4", name)


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_step_everywhere(generation: tuple[int, int], scheme: Scheme, name: str) -> None:
    check(generation, scheme, name)


def test_every_value_of_every_lever_occurs() -> None:
    found = [replace(PLAIN, **change) for change in SETTINGS.values()]
    layers = {choice for levers in found for choice in levers.layers}
    assert layers == {"keep", "offload", "attention", "recompute"}
    for name, values in {
        "inputs": {"card", "host"}, "embedding": {"card", "host"}, "head": {"dense", "int8", "nf4", "streamed"},
        "prefetch": {True, False}, "keep_dense": {True, False}, "optimizer_place": {"card", "host"}, "slots": {1, 2},
    }.items():  # fmt: skip
        assert {getattr(levers, name) for levers in found} == values, name
    assert len({levers.streamed_layers for levers in found}) == len({levers.attention_groups for levers in found}) == 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_plain_path(scheme: Scheme) -> None:
    """Torch's autograd: what the engine does not know, such as dropout, is trained by it."""
    with fake_card(GENERATIONS[SCHEMES.index(scheme)]):
        model = fake_model(scheme, adapter=False)
        lora.attach(model, LoraConfig(r=8, dropout=0.1))
        model.train()
        work, tokens = Passes(model, None, 8), torch.zeros(sum(LENGTHS), dtype=torch.int64)
        losses = work.losses(work.hidden(tokens, LENGTHS), tokens)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for parameter in lora.parameters(model):
            assert parameter.grad is not None and place_of(parameter.grad) == "cuda"
            assert parameter.grad.dtype == torch.float32


@contextmanager
def beside(levers: Levers | None, scheme: Scheme) -> Iterator[Llama]:
    """A model as an evaluation or a conversation finds it: as opened, or while it is trained under a plan."""
    model = fake_model(scheme)
    engine = None if levers is None else TrainingEngine(model, levers)
    yield model
    del engine


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("setting", [None, "leanest", "offloaded", "attention kept"])
def test_evaluation_and_cached_decoding(scheme: Scheme, setting: str | None) -> None:
    generation = GENERATIONS[(SCHEMES.index(scheme) + len(setting or "")) % len(GENERATIONS)]
    levers = None if setting is None else replace(PLAIN, **{**SETTINGS[setting], "optimizer_place": "card"})
    with fake_card(generation), beside(levers, scheme) as model, torch.inference_mode():
        tokens = torch.zeros(sum(LENGTHS), dtype=torch.int64, device=CARD)
        hidden = model.hidden(tokens, positions_of(LENGTHS, CARD), Blocks(LENGTHS))
        logits = model.logits(hidden)
        assert (place_of(hidden), hidden.dtype, place_of(logits), logits.dtype) == (
            "cuda",
            model.dtype,
            "cuda",
            torch.float32,
        )
        cache = KVCache(SHAPE, 2, 24, CARD, model.dtype)
        for counts in ((5, 3), (1, 1)):
            tokens = torch.zeros(sum(counts), dtype=torch.int64, device=CARD)
            hidden = model.hidden(tokens, cache.expect(counts), cache)
            cache.advance()
            assert (place_of(hidden), hidden.dtype) == ("cuda", model.dtype)
        cache.keep([1])
        hidden = model.hidden(torch.zeros(1, dtype=torch.int64, device=CARD), cache.expect([1]), cache)
        assert place_of(model.logits(hidden)) == "cuda"
