"""Encoding in four bits on a CPU: the codes are bitsandbytes' own, also where a weight lies between two levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stilnovo.model.four_bit import PART, FourBits, bitsandbytes_functional, encode

SCHEMES: tuple[FourBits, ...] = ("nf4", "fp4")


def theirs(weights: Tensor, scheme: FourBits) -> tuple[Tensor, Tensor]:
    packed, state = bitsandbytes_functional().quantize_4bit(weights, blocksize=64, quant_type=scheme)
    return packed, state.absmax


def ties(scheme: FourBits) -> Tensor:
    """Blocks of maximum 1 (and of other powers of two) whose weights are the bounds between levels and their neighbours."""
    code = bitsandbytes_functional().get_4bit_type(scheme, device="cpu").sort().values
    bounds = (code[1:] + code[:-1]) / 2
    up, down = (torch.nextafter(bounds, torch.full_like(bounds, towards)) for towards in (2.0, -2.0))
    block = torch.cat([bounds, up, down, code, torch.tensor([1.0, -1.0, 0.0])])
    assert len(block) == 64
    return torch.cat([block * 2.0**power for power in (0, -3, 5, -60, 30)])


def made(kind: str, scheme: FourBits, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(64 * 40, generator=generator)
    if kind == "outliers":
        normal[::97] *= 1e4
    if kind == "zero blocks":
        normal.view(-1, 64)[::3] = 0
    if kind == "ties":
        return ties(scheme)
    if kind == "signs":  # negative zeros, and blocks of one sign
        normal.view(-1, 64)[::2] = normal.view(-1, 64)[::2].abs().neg()
        normal[::5] = -0.0
    scale = {"tiny": 1e-40, "below the least inverse": 3e-39, "huge": 1e36, "small": 1e-5}.get(kind, 0.02)
    return normal * scale


KINDS = ("normal", "outliers", "zero blocks", "ties", "signs", "tiny", "below the least inverse", "huge", "small")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_and_maxima_are_bitsandbytes_own(kind: str, scheme: FourBits, dtype: torch.dtype) -> None:
    for seed in range(3):
        weights = made(kind, scheme, seed).to(dtype)
        if not weights.isfinite().all():
            weights = weights.clamp(-6e4, 6e4)
        for size in (len(weights), len(weights) - 1, len(weights) - 30, 33, 1):  # short last blocks, odd counts
            found, wanted = encode(weights[:size], scheme), theirs(weights[:size], scheme)
            assert torch.equal(found[0], wanted[0])
            assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_place_between_two_levels(scheme: FourBits) -> None:
    """A fine comb over [−1, 1], and more finely around every bound, in blocks whose maximum is 1."""
    code = bitsandbytes_functional().get_4bit_type(scheme, device="cpu").sort().values
    bounds = (code[1:] + code[:-1]) / 2
    near = (bounds[:, None] + torch.linspace(-3e-4, 3e-4, 1001)).reshape(-1)
    comb = torch.cat([torch.linspace(-1, 1, 63 * 1000), near])
    blocks = torch.cat([comb[: len(comb) // 63 * 63].view(-1, 63), torch.ones(len(comb) // 63, 1)], 1)
    for scale in (1.0, 0.037):
        weights = (blocks * scale).reshape(-1)
        assert torch.equal(encode(weights, scheme)[0], theirs(weights, scheme)[0])


def test_several_parts_are_as_one() -> None:
    weights = torch.randn(2 * PART + 333, generator=torch.Generator().manual_seed(2))
    found, wanted = encode(weights, "nf4"), theirs(weights, "nf4")
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_as_with_bitsandbytes(value: float) -> None:
    weights = torch.randn(256, generator=torch.Generator().manual_seed(2))
    weights[70] = value
    assert torch.equal(encode(weights, "nf4")[0], theirs(weights, "nf4")[0])
