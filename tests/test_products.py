"""Products for writing against the scheme's own matrix: within the stated error, for each form, scheme and shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.model.lora_linear import FrozenLoraLinear, LoraLinear, LowRank
from stilnovo.model.processor import VARIABLE, CpuProducts, cpu_products, instruction_sets
from stilnovo.model.products import (
    FusedFourBit,
    HalfWeights,
    Int8Weights,
    ScreenedTable,
    kernel_order,
    product,
    table_product,
)
from stilnovo.model.quantize import FourBitLinear, FrozenLinear, quantized_linear
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe_sections import Scheme

ERROR = {"fp16": 1e-3, "bf16": 1.5e-2, "int8": 1.5e-2, "fp32": 1e-5}  # what the module states; bf16 falls back to int8
HAS_AVX2 = "avx2" in instruction_sets()


def matrix(rows: int, columns: int, seed: int = 0, outliers: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    places = torch.randint(0, rows * columns, (outliers,), generator=generator)
    weight.view(-1)[places] *= 40
    return weight


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def ways() -> list[CpuProducts]:
    return ["int8", "fp32", *(["fp16"] if HAS_AVX2 else []), *(["bf16"] if "avx512_bf16" in instruction_sets() else [])]  # type: ignore[list-item]


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4", "none"])
@pytest.mark.parametrize(
    ("shapes", "outliers"),
    [([(64, 128)], 0), ([(96, 192), (32, 192)], 0), ([(50, 100), (30, 100)], 0), ([(7, 64)], 0), ([(64, 256)], 60)],
)
def test_a_product_is_the_schemes_within_the_stated_error(
    way: CpuProducts, scheme: Scheme, shapes: list[tuple[int, int]], outliers: int
) -> None:
    bases = [quantized_linear(matrix(*shape, seed, outliers), scheme) for seed, shape in enumerate(shapes)]
    multiply = product(bases, way)
    for tokens in (1, 3, 200):
        x = torch.randn(tokens, shapes[0][1], generator=torch.Generator().manual_seed(tokens))
        expected = torch.cat([x @ base.dense(torch.float32).T for base in bases], -1)
        found = multiply(x)
        assert found.dtype == torch.float32
        assert error(found, expected) < ERROR[way]


@pytest.mark.parametrize("way", [way for way in ways() if way != "fp32"])
def test_a_token_among_others_has_the_product_that_it_has_alone(way: CpuProducts) -> None:
    multiply = product([quantized_linear(matrix(128, 256), "nf4")], way)
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(1))
    together = multiply(x)
    for row in range(8):
        assert torch.equal(multiply(x[row : row + 1])[0], together[row])


def test_the_form_follows_the_way_and_what_has_no_place_in_it_is_dequantised() -> None:
    fits, ragged = (quantized_linear(matrix(64, columns), "nf4") for columns in (128, 100))
    assert isinstance(product([fits], "int8"), Int8Weights)
    assert not isinstance(product([ragged], "int8"), Int8Weights)  # its blocks run over the ends of rows
    plain = quantized_linear(matrix(64, 128), "none")
    assert not isinstance(product([plain], "int8"), Int8Weights)  # nothing is gained
    huge = quantized_linear(matrix(64, 128) * 1e7, "none")
    x = torch.randn(2, 128)
    assert error(product([huge], "fp16")(x), x @ huge.dense(torch.float32).T) < 1e-5  # out of fp16's range
    if HAS_AVX2:
        assert isinstance(product([fits], "fp16"), HalfWeights)
        assert isinstance(table_product(plain.dense(torch.float32), "fp16"), HalfWeights)
    assert table_product(plain.dense(torch.float32), "fp32") is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [100, 3000])
def test_the_largest_logits_of_a_large_table_are_exact(rows: int, dtype: torch.dtype) -> None:
    table, x = matrix(rows, 64).to(dtype), torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    multiply = table_product(table, "int8")
    assert isinstance(multiply, ScreenedTable)
    found, expected = multiply(x), x @ table.float().T
    best = expected.topk(100).indices
    assert torch.allclose(found.gather(-1, best), expected.gather(-1, best), rtol=1e-5, atol=1e-6)
    assert error(found, expected) < ERROR["int8"]


@pytest.mark.parametrize("rows", [32, 96])
def test_the_kernels_order_is_bitsandbytes_own(rows: int) -> None:
    functional = bitsandbytes_functional()
    weight = matrix(rows, 128)
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    expected, _ = functional._convert_weight_packed_for_cpu(packed, state)
    assert torch.equal(kernel_order(packed, rows), expected)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_scales_are_those_of_dequantising(scheme: Scheme) -> None:
    base = quantized_linear(matrix(32, 128), scheme)
    assert isinstance(base, FourBitLinear)
    largest = base.dense(torch.float32).abs().view(-1, 64).amax(1)  # a block's absolute maximum is kept exactly
    assert torch.allclose(base.scales(), largest, rtol=1e-6)


def test_outliers_take_a_second_number_a_weight() -> None:
    even, peaked = (quantized_linear(matrix(64, 256, outliers=count), "int8") for count in (0, 60))
    assert [len(product([base], "int8")._parts) for base in (even, peaked)] == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.skipif("avx512_bf16" not in instruction_sets(), reason="needs avx512_bf16")
def test_four_bits_are_multiplied_as_they_are_where_the_kernel_has_a_place_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cpu_products() == "bf16"
    for rows, columns, fused in ((64, 128, True), (50, 128, False), (64, 100, False)):
        base = quantized_linear(matrix(rows, columns), "nf4")
        assert isinstance(product([base], "bf16"), FusedFourBit) == fused


def adapted(base: FrozenLinear, seed: int) -> LoraLinear:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(size, generator=generator) * 0.05 for size in ((4, base.in_features), (base.out_features, 4)))
    return LoraLinear(base, LoraConfig(r=4), update=LowRank(a, b, 2.0))


@pytest.mark.parametrize("way", ways())
def test_adapters_are_read_as_they_are_at_that_moment(way: CpuProducts) -> None:
    """Two of three projections adapted, one over a frozen adapter; then trained, then switched off."""
    bases = [quantized_linear(matrix(64, 128, seed), "nf4") for seed in range(3)]
    generator = torch.Generator().manual_seed(9)
    update = LowRank(torch.randn(4, 128, generator=generator), torch.randn(64, 4, generator=generator) * 0.05, 0.5)
    modules = [adapted(bases[0], 5), bases[1], adapted(FrozenLoraLinear(bases[2], update, torch.float32), 6)]
    multiply = product(modules, way)
    x = torch.randn(3, 128, generator=generator)
    with torch.no_grad():
        for change in (lambda: None, lambda: modules[0].lora_B.mul_(3), lambda: setattr(modules[2], "enabled", False)):
            change()
            assert error(multiply(x), torch.cat([module(x) for module in modules], -1)) < ERROR[way]
