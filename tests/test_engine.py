"""The explicit step against the plain one: every lever leaves loss and gradients as they were."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stilnovo.engine import blocks, product
from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.stack import TrainingEngine, supports
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig

SHAPE = LlamaConfig(
    vocab_size=97, hidden_size=64, intermediate_size=96, layers=4, heads=8, kv_heads=4, head_dim=16, max_positions=512
)
LENGTHS = (13, 1, 150, 7)
PLAIN = Levers(layers=all_layers("keep", 4), loss_chunk=16)


def model(scheme: str = "nf4", dtype: torch.dtype = torch.float64, projections: tuple[str, ...] = PROJECTIONS) -> Llama:
    source = random_source(3, std=0.1)
    made = Llama(SHAPE, lambda n, s: source(n, s), lambda w: quantized_linear(w, scheme))  # type: ignore[arg-type]
    made = made.to(dtype)
    made.requires_grad_(False)
    lora.attach(made, LoraConfig(r=4, projections=projections))
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(made).values():
        module.lora_A.data = module.lora_A.data.to(dtype)
        module.lora_B.data = torch.randn(module.lora_B.shape, generator=generator).to(dtype) * 0.1
    return made


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randint(0, SHAPE.vocab_size, (sum(LENGTHS) + 1,), generator=generator)
    return tokens[:-1], tokens[1:]


def plain(one: Llama) -> tuple[Tensor, list[Tensor | None]]:
    tokens, targets = batch()
    hidden = one.hidden(tokens, positions_of(LENGTHS), Blocks(LENGTHS))
    loss = torch.nn.functional.cross_entropy(hidden @ one.head.T, targets, reduction="sum")
    loss.backward()
    return loss.detach(), [p.grad for p in lora.parameters(one)]


def engine(one: Llama, levers: Levers) -> tuple[Tensor, list[Tensor | None]]:
    tokens, targets = batch()
    step = TrainingEngine(one, levers)
    loss = tiled_losses(step.hidden(tokens, LENGTHS), step.head, targets, levers.loss_chunk).sum()
    loss.backward()
    return loss.detach(), [p.grad for p in lora.parameters(one)]


def same(found: tuple[Tensor, list[Tensor | None]], expected: tuple[Tensor, list[Tensor | None]]) -> None:
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours is not None and theirs is not None
        assert (ours - theirs).abs().max() <= 1e-11 * max(1.0, theirs.abs().max().item())


CHANGES: dict[str, dict[str, Any]] = {
    "keep": {},
    "recompute": {"layers": all_layers("recompute", 4)},
    "offload": {"layers": all_layers("offload", 4)},
    "attention": {"layers": all_layers("attention", 4)},
    "attention, groups": {"layers": all_layers("attention", 4), "attention_groups": 4, "tile": 9, "inputs": "host"},
    "mixed": {"layers": ("offload", "keep", "recompute", "attention"), "inputs": "host"},
    "inputs on the host": {"layers": all_layers("recompute", 4), "inputs": "host"},
    "no prefetch": {"layers": all_layers("recompute", 4), "inputs": "host", "prefetch": False},
    "tiles": {"layers": all_layers("recompute", 4), "tile": 8},
    "tiles, kept": {"tile": 8},
    "groups": {"layers": all_layers("recompute", 4), "attention_groups": 4},
    "groups, kept": {"attention_groups": 2},
    "groups and tiles, offloaded": {"layers": all_layers("offload", 4), "attention_groups": 4, "tile": 9},
    "streamed": {"layers": all_layers("recompute", 4), "streamed_layers": 3},
    "streamed, one slot": {"streamed_layers": 4, "slots": 1},
    "streamed, three slots": {"streamed_layers": 4, "slots": 3},
    "embedding on the host": {"embedding": "host"},
    "streamed head": {"head": "streamed", "head_tile": 20},
    "tiled head": {"head_tile": 30, "loss_chunk": 7},
    "dense copies": {"keep_dense": True},
    "everything": {
        "layers": all_layers("recompute", 4), "inputs": "host", "streamed_layers": 4, "attention_groups": 4, "tile": 16,
        "embedding": "host", "head": "streamed", "head_tile": 32, "prefetch": False, "loss_chunk": 10,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_lever_changes_nothing(name: str) -> None:
    same(engine(model(), replace(PLAIN, **CHANGES[name])), plain(model()))


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_cards_order_of_products_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, product):
        monkeypatch.setattr(module, "on_card", lambda _: True)
    same(engine(model(), replace(PLAIN, **CHANGES[name])), plain(model()))


@pytest.mark.parametrize("projections", [("gate_proj", "down_proj"), ("q_proj",), ("k_proj", "o_proj")])
def test_a_cards_order_of_products_with_some_projections_alone(
    projections: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (blocks, product):
        monkeypatch.setattr(module, "on_card", lambda _: True)
    levers = replace(PLAIN, layers=("attention", "keep", "recompute", "keep"))
    same(engine(model(projections=projections), levers), plain(model(projections=projections)))


@pytest.mark.parametrize("scheme", ["none", "fp4", "int8", "int4"])
def test_under_every_quantisation(scheme: str) -> None:
    levers = replace(PLAIN, layers=all_layers("recompute", 4), streamed_layers=4, tile=16)
    same(engine(model(scheme), levers), plain(model(scheme)))


@pytest.mark.parametrize("projections", [("gate_proj", "up_proj", "down_proj"), ("q_proj", "v_proj"), ("o_proj",)])
@pytest.mark.parametrize("groups", [1, 4])
def test_some_projections_only(projections: tuple[str, ...], groups: int) -> None:
    levers = replace(PLAIN, layers=all_layers("recompute", 4), attention_groups=groups)
    same(engine(model(projections=projections), levers), plain(model(projections=projections)))


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_head_is_another_matrix_and_nothing_else_changes(kind: str) -> None:
    one = model()
    levers = replace(PLAIN, head=kind, head_tile=32)
    found = engine(one, levers)
    tokens, _ = batch()
    other = model()
    tiles = [quantized_linear(other.lm_head[s : s + 32], kind).dense(torch.float64) for s in range(0, 97, 32)]  # type: ignore[index, arg-type]
    other.lm_head = torch.cat(tiles)
    same(found, plain(other))
    with torch.no_grad():  # everybody else sees the same head
        got = one(tokens, positions_of(LENGTHS), Blocks(LENGTHS))
        assert torch.allclose(got, other(tokens, positions_of(LENGTHS), Blocks(LENGTHS)))


def test_two_batches_add_up_and_buffers_are_used_again() -> None:
    levers = replace(PLAIN, layers=all_layers("offload", 4))
    one, two = model(), model()
    tokens, targets = batch()
    step = TrainingEngine(one, levers)
    sizes = []
    for _ in range(3):
        tiled_losses(step.hidden(tokens, LENGTHS), step.head, targets, 16).sum().backward()
        sizes.append(step.store.nbytes)
        plain(two)
    assert sizes[0] == sizes[1] == sizes[2] > 0
    for ours, theirs in zip(lora.parameters(one), lora.parameters(two), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10)  # type: ignore[arg-type]


def test_a_pass_without_its_backward_leaves_nothing_behind() -> None:
    levers = replace(PLAIN, layers=all_layers("offload", 4))
    step = TrainingEngine(model(), levers)
    tokens, _ = batch()
    sizes = []
    for _ in range(3):
        step.hidden(tokens, LENGTHS)  # its result is thrown away
        sizes.append(step.store.nbytes)
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_the_adapter_switched_off_is_the_base_and_leaves_no_gradient() -> None:
    one = model()
    step = TrainingEngine(one, PLAIN)
    tokens, _ = batch()
    lora.set_enabled(one, False)
    with torch.no_grad():
        found = step.hidden(tokens, LENGTHS)
        base = one.hidden(tokens, positions_of(LENGTHS), Blocks(LENGTHS))
    assert torch.allclose(found, base)
    lora.set_enabled(one, True)


def test_streamed_layers_serve_everybody_else_too() -> None:
    one, two = model(), model()
    TrainingEngine(one, replace(PLAIN, streamed_layers=4, slots=2))
    tokens, _ = batch()
    with torch.no_grad():
        for _ in range(2):
            found = one.hidden(tokens, positions_of(LENGTHS), Blocks(LENGTHS))
            assert torch.equal(found, two.hidden(tokens, positions_of(LENGTHS), Blocks(LENGTHS)))


def test_layers_below_the_lowest_adapter_are_not_differentiated() -> None:
    one, two = model(), model()
    for each in (one, two):
        for part in ("self_attn", "mlp"):
            block = getattr(each.layers[0], part)
            for name, module in list(block.named_children()):
                setattr(block, name, module.base)
    assert TrainingEngine(copy.deepcopy(one), PLAIN).lowest == 1
    same(engine(one, replace(PLAIN, layers=all_layers("recompute", 4))), plain(two))


def test_single_precision_agrees_closely() -> None:
    levers = replace(PLAIN, layers=all_layers("recompute", 4), attention_groups=2, tile=16)
    found, expected = engine(model(dtype=torch.float32), levers), plain(model(dtype=torch.float32))
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)  # type: ignore[arg-type]


def test_dropout_is_left_to_the_plain_path() -> None:
    one = model()
    assert supports(one)
    next(iter(lora.adapters(one).values())).dropout = 0.1
    assert not supports(one)
