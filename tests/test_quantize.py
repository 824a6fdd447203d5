"""Quantisation against bitsandbytes' own layer, and against equation 6 written out in numpy."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.model import quantize
from stilnovo.model.quantize import (
    BLOCK,
    AffineLinear,
    FourBitLinear,
    quantized_linear,
)
from stilnovo.plan.sizes import linear_bytes
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import SCHEMES, ModelSpec

FOUR_BIT: tuple[Scheme, ...] = ("nf4", "fp4")
Floats = npt.NDArray[np.float32]


def random(rows: int, columns: int, seed: int = 5) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", FOUR_BIT)
# Whole blocks; a short, odd last one; rows that end inside a block, where AVX-512 kernels of bitsandbytes take wrong scales.
@pytest.mark.parametrize("shape", [(96, 160), (7, 33), (1, 64), (576, 1536), (32, 96), (64, 80), (96, 32), (2, 33)])
def test_four_bit_is_bitsandbytes_own_layer(scheme: Scheme, shape: tuple[int, int]) -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    from bitsandbytes.functional import dequantize_blockwise
    from bitsandbytes.nn import Linear4bit

    weight = random(*shape)
    theirs = Linear4bit(shape[1], shape[0], bias=False, compress_statistics=True, quant_type=scheme)
    theirs.load_state_dict({"weight": weight})
    theirs = theirs.to("cpu")  # quantises
    ours = quantized_linear(weight, scheme)
    assert isinstance(ours, FourBitLinear)
    state = theirs.weight.quant_state
    assert state is not None
    packed, scales = theirs.weight.data.flatten(), dequantize_blockwise(state.absmax, state.state2) + state.offset
    levels = state.code[torch.stack((packed >> 4, packed & 15), dim=1).flatten()[: weight.numel()].long()]
    expected = (levels * scales.repeat_interleave(BLOCK)[: weight.numel()]).view(shape)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(ours.dense(dtype), expected.to(dtype))
    assert torch.equal(ours.packed.flatten(), packed)


def equation_6(weight: Floats, bits: int) -> tuple[Floats, Floats]:
    """Group by group, in double precision: (what w becomes, the step s of each weight). s is kept in 16 bits, rounded up."""
    top = 2**bits - 1
    found, steps = np.empty_like(weight), np.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], BLOCK):
            group = weight[row, start : start + BLOCK].astype(np.float64)
            low, high = min(group.min(), 0.0), max(group.max(), 0.0)
            s = np.float16((high - low) / top)
            if s < np.float32((high - low) / top):
                s = np.nextafter(s, np.float16(np.inf))
            s = max(np.float64(s), 2.0**-24)
            z = np.round(-low / s)
            q = np.clip(np.round(group / s + z), 0, top)
            found[row, start : start + BLOCK], steps[row, start : start + BLOCK] = s * (q - z), s
    return found, steps


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("columns", [64, 160, 33, 1])
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-5])  # the last: steps below fp16's normal numbers
def test_affine_is_equation_6(bits: int, columns: int, scale: float) -> None:
    weight = scale * random(48, columns)
    weight[0] = weight[0].abs()  # groups on one side of zero
    weight[1] = -weight[1].abs()
    ours = AffineLinear(weight, 8 if bits == 8 else 4).dense(torch.float32).numpy()
    expected, steps = equation_6(weight.numpy(), bits)
    # A weight exactly between two steps may fall either way in single precision: at most one step, and rarely.
    differs = np.abs(ours - expected) > 1e-5 * scale
    assert differs.mean() <= 1e-3
    assert (np.abs(ours - expected) <= 1.001 * steps).all()
    assert (np.abs(ours - weight.numpy()) <= 0.5001 * steps).all()  # never further than half a step


def test_error_falls_with_bits() -> None:
    weight = random(96, 160)
    error = {s: float((quantized_linear(weight, s).dense(torch.float32) - weight).abs().mean()) for s in SCHEMES}
    assert error["none"] == 0
    assert error["int8"] < 0.01 < error["nf4"] < error["fp4"] < 0.2
    assert error["int8"] < error["int4"] < 0.2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_are_what_the_buffers_hold_and_what_is_predicted(scheme: Scheme) -> None:
    for shape in [(96, 160), (576, 1536), (192, 576), (7, 33)]:
        module = quantized_linear(random(*shape), scheme)
        held = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
        assert module.nbytes == held == linear_bytes(*shape, scheme, 4)
    bits = 8 * quantized_linear(random(576, 1536), scheme).nbytes / (576 * 1536)
    assert bits < {"nf4": 4.15, "fp4": 4.15, "int4": 4.4, "int8": 8.4, "none": 32.1}[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_type_leaves_the_kept_form(scheme: Scheme, dtype: torch.dtype) -> None:
    module = quantized_linear(random(64, 160), scheme)
    before = module.dense(torch.float32)
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.to(dtype)
    assert module.dense(dtype).dtype == dtype
    if scheme == "none":
        return
    assert {name: buffer.dtype for name, buffer in module.named_buffers()} == {n: b.dtype for n, b in kept.items()}
    assert all(torch.equal(buffer, kept[name]) for name, buffer in module.named_buffers())
    assert torch.equal(module.dense(torch.float32), before)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_and_constants_survive(scheme: Scheme) -> None:
    zeros = quantized_linear(torch.zeros(64, 64), scheme).dense(torch.float32)
    assert torch.equal(zeros, torch.zeros(64, 64))
    for constant in (0.75, -0.3):
        found = quantized_linear(torch.full((8, 100), constant), scheme).dense(torch.float32)
        assert torch.allclose(found, torch.full((8, 100), constant), rtol=5e-3)


def test_keep_dense_gives_the_same_and_lets_go() -> None:
    module = quantized_linear(random(96, 160), "nf4")
    fresh, size = module.dense(torch.float32), module.nbytes
    module.keep_dense(torch.float32)
    assert module.dense(torch.float32) is module.dense(torch.float32)
    assert torch.equal(module.dense(torch.float32), fresh)
    assert module.dense(torch.bfloat16).dtype == torch.bfloat16
    assert module.nbytes == size
    module.keep_dense(None)
    assert module.dense(torch.float32) is not module.dense(torch.float32)


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"(?s)int3.*nf4, fp4, int8, int4, none"):
        ModelSpec(quantization="int3")  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4"])
@pytest.mark.parametrize("shape", [(96, 160), (7, 33), (130, 64), (33, 66)])
def test_what_is_quantised_part_by_part_is_what_is_quantised_at_once(
    scheme: Scheme, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = random(*shape).bfloat16()
    found = []
    for size in (BLOCK * 2, BLOCK * 2**15):
        monkeypatch.setattr(quantize, "QUANTIZED_PART", size)
        if scheme in FOUR_BIT:  # as on a card
            found.append(quantize._encoded_on_card(weight, scheme))
        else:
            made = quantized_linear(weight, scheme)
            found.append(tuple(buffer for _, buffer in made.named_buffers()))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("part", ["packed", "absmax", "nested_absmax", "nested_code", "code"])
def test_parts_that_bitsandbytes_kernels_would_misread_are_refused(part: str) -> None:
    """They get the first byte of each part, and take the rest for granted."""
    whole = quantized_linear(random(128, 256), "nf4")
    parts = {name: buffer.clone() for name, buffer in whole.named_buffers()}
    names = ("packed", "absmax", "code", "offset", "nested_absmax", "nested_code")
    made = FourBitLinear.__new__(FourBitLinear)
    made._hold((128, 256), "nf4", *(parts[name] for name in names))
    assert torch.equal(made.dense(torch.float32), whole.dense(torch.float32))
    for wrong in (parts[part].half(), torch.stack([parts[part]] * 2, -1)[..., 0]):
        with pytest.raises(AssertionError):
            made._hold((128, 256), "nf4", *(wrong if name == part else parts[name] for name in names))
