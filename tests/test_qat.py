"""Merging and quantisation-aware training, against autograd's own straight-through estimator and PEFT's merge."""

from __future__ import annotations

import copy
import math
import sys

import pytest
import torch
from torch import Tensor

from conftest import ROOT, TINY
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.lora_linear import LoraLinear, merged_weight
from stilnovo.model.qat import QuantizationAwareLinear, make_aware
from stilnovo.model.quantize import AffineLinear, DenseLinear, FourBitLinear, quantized_linear
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe_sections import Scheme

sys.path.append(str(ROOT / "bench"))
from merging import merge

TOKENS = torch.arange(40) % 97


def adapted(scheme: Scheme = "none", strength: float = 0.1) -> Llama:
    model = Llama(TINY, random_source(3, std=0.1), lambda weight: quantized_linear(weight, scheme))
    lora.attach(model, LoraConfig(r=4))
    generator = torch.Generator().manual_seed(4)
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=strength, generator=generator)
    return model


def logits(model: Llama) -> Tensor:
    found: Tensor = model(TOKENS, positions_of([40]), Blocks([40]))
    return found


def rounded(groups: Tensor, bits: int) -> Tensor:
    """Affine rounding of one group, by the report's equation 6, in doubles."""
    top = 2**bits - 1
    low, high = min(0.0, float(groups.min())), max(0.0, float(groups.max()))
    step = (high - low) / top
    half = torch.tensor(step, dtype=torch.float64).half()
    if float(half) < step:  # the scale is kept in 16 bits and may not shrink
        half = torch.nextafter(half, torch.tensor(math.inf, dtype=torch.float16))
    scale = float(half)
    zero = round(-low / scale)
    return ((groups.double() / scale).add(zero).round().clamp(0, top) - zero) * scale


@pytest.mark.parametrize("bits", [8, 4])
def test_fake_quantisation_is_the_affine_rounding(bits: int) -> None:
    weight = torch.randn(3, 128, generator=torch.Generator().manual_seed(1)) * 0.05
    found = AffineLinear(weight, bits).dense(torch.float32)  # type: ignore[arg-type]
    for row in range(3):
        for start in (0, 64):
            torch.testing.assert_close(
                found[row, start : start + 64].double(),
                rounded(weight[row, start : start + 64], bits),
                atol=1e-6,
                rtol=0,
            )


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scheme", ["none", "nf4"])
def test_gradients_are_those_of_the_straight_through_reference(bits: int, scheme: Scheme) -> None:
    plain = LoraLinear(quantized_linear(torch.randn(48, 96) * 0.1, scheme), LoraConfig(r=4))
    torch.nn.init.normal_(plain.lora_B, std=0.1)
    aware = QuantizationAwareLinear(plain, bits)  # type: ignore[arg-type]
    x, grad = torch.randn(7, 96, requires_grad=True), torch.randn(7, 48)
    y = aware(x)
    found = torch.autograd.grad(y, (x, plain.lora_A, plain.lora_B), grad)

    base = plain.base.dense(torch.float32)
    whole = base + plain.scale * plain.lora_B @ plain.lora_A
    # Autograd's straight-through: the value of the rounding, the derivative of the identity.
    straight = whole + (AffineLinear(whole.detach(), bits).dense(torch.float32) - whole).detach()  # type: ignore[arg-type]
    reference = torch.nn.functional.linear(x, straight)
    torch.testing.assert_close(y, reference)
    for ours, theirs in zip(found, torch.autograd.grad(reference, (x, plain.lora_A, plain.lora_B), grad), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_without_rounding_it_is_plain_lora() -> None:
    plain = adapted("nf4")
    aware = copy.deepcopy(plain)
    make_aware(aware, None)
    for model in (plain, aware):
        torch.logsumexp(logits(model), -1).sum().backward()
    torch.testing.assert_close(logits(aware), logits(plain), atol=1e-4, rtol=1e-4)
    pairs = list(zip(lora.parameters(aware), lora.parameters(plain), strict=True))
    assert len(pairs) == 28
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("int4", 4)])
def test_what_was_trained_is_what_is_shipped(scheme: Scheme, bits: int) -> None:
    model = adapted("nf4")
    make_aware(model, bits)  # type: ignore[arg-type]
    with torch.no_grad():
        before = logits(model)
        merge(model, scheme)
        assert torch.equal(logits(model), before)
    assert not lora.adapters(model)
    assert all(isinstance(layer.mlp.up_proj, AffineLinear) for layer in model.layers)


def test_a_dense_merge_computes_what_base_and_adapter_compute() -> None:
    model = adapted("nf4")
    with torch.no_grad():
        before = logits(model)
        merge(model, "none")
        torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    assert isinstance(model.layers[0].mlp.up_proj, DenseLinear)
    with pytest.raises(InputError, match="no adapter"):
        merge(model, "none")


def test_the_base_is_dequantised_not_read_again() -> None:
    weight = torch.randn(32, 64) * 0.1
    module = LoraLinear(FourBitLinear(weight, "nf4"), LoraConfig(r=2))
    torch.nn.init.normal_(module.lora_B)
    expected = FourBitLinear(weight, "nf4").dense(torch.float32) + module.scale * module.lora_B @ module.lora_A
    torch.testing.assert_close(merged_weight(module), expected.detach())
    torch.testing.assert_close(module.base.dense(torch.float32), FourBitLinear(weight, "nf4").dense(torch.float32))


def test_rounding_erases_a_light_adapter_and_the_report_says_so() -> None:
    strong = merge(adapted("int4", strength=1.0), "int4", measure=True)
    light = merge(adapted("int4", strength=0.01), "int4", measure=True)
    elsewhere = merge(adapted("nf4", strength=0.01), "int4", measure=True)
    assert len(strong) == len(light) == len(elsewhere) == 14
    assert all(0.95 < projection.survived < 1.05 and projection.noise < 0.2 for projection in strong)
    # A base that lies on the grid already: most updates round back to where they came from.
    assert all(projection.survived < 0.6 for projection in light)
    # A base beside the grid: rounding dithers, the update arrives on average, under noise of its own size or more.
    assert all(0.8 < projection.survived < 1.2 and projection.noise > 1 for projection in elsewhere)
    nothing = merge(adapted("int4", strength=0.0), "int4", measure=True)
    assert all(math.isnan(projection.survived) for projection in nothing)


def test_training_in_front_of_the_rounding_ships_a_better_model() -> None:
    """A projection is fitted to a target over correlated inputs: aware of int4, what is shipped errs far less."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(32, 64, generator=generator) * 0.05
    x = torch.randn(256, 8, generator=generator) @ torch.randn(8, 64, generator=generator)
    update = 0.01 * torch.randn(32, 4, generator=generator) @ torch.randn(4, 64, generator=generator)
    target, shipped = x @ (weight + update).T, {}
    for bits in (None, 4):
        module = LoraLinear(quantized_linear(weight, "nf4"), LoraConfig(r=8), torch.Generator().manual_seed(1))
        aware = QuantizationAwareLinear(module, bits)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam([aware.lora_A, aware.lora_B], lr=1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 300)
        for _ in range(300):
            optimizer.zero_grad()
            (aware(x) - target).square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        shipped[bits] = float((AffineLinear(merged_weight(module), 4)(x) - target).square().mean())
    assert shipped[4] < 0.6 * shipped[None]


def test_dropout_and_a_missing_adapter_are_refused() -> None:
    model = Llama(TINY, random_source(3, std=0.1))
    with pytest.raises(InputError, match="no adapter"):
        make_aware(model, 4)
    lora.attach(model, LoraConfig(r=4, dropout=0.1))
    with pytest.raises(InputError, match="dropout"):
        make_aware(model, 4)


def test_switched_off_it_shows_the_base() -> None:
    model = adapted("nf4")
    make_aware(model, 4)
    lora.set_enabled(model, False)
    bare = Llama(TINY, random_source(3, std=0.1), lambda weight: quantized_linear(weight, "nf4"))
    torch.testing.assert_close(logits(model), logits(bare))
