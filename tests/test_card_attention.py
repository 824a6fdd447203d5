"""Every attention path of the training step against exact attention: each kernel gets operands as it reads them.

The card's kernels are emulated with the strides that they take for granted (`card_kernels`); the processor's run themselves.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import test_engine
from card_kernels import CardKernels, as_read, pretend_card
from stilnovo.engine import packed_attention
from stilnovo.engine.packed_attention import FlashVarlen, PerDocument, kernel_for
from stilnovo.engine.query_blocks import QueryBlocks
from stilnovo.errors import InputError
from stilnovo.plan.levers import all_layers

CPU = torch.device("cpu")


def made(seed: int, dtype: torch.dtype) -> tuple[list[int], list[Tensor]]:
    """Documents, and q, k, v and the output's gradient as the engine hands them over: views of joint projections, strided."""
    some = random.Random(seed)
    lengths = [
        some.choice([1, 1, 2, some.randrange(1, 70), some.randrange(1, 300)]) for _ in range(some.randrange(1, 5))
    ]
    groups, shared, size = some.choice([1, 1, 2, 3]), some.randrange(1, 9), some.choice([32, 64, 80, 96, 128])
    rows = torch.Generator().manual_seed(seed)
    heads = groups * shared
    qkv = torch.randn(sum(lengths), (heads + 2 * groups) * size, generator=rows).to(dtype)
    q, k, v = (x.unflatten(1, (-1, size)) for x in qkv.split([heads * size, groups * size, groups * size], 1))
    # of a larger matrix, whose other columns belong to other groups of heads
    wide = torch.randn(sum(lengths), 2 * heads * size, generator=rows).to(dtype)
    slope = wide[:, heads * size * (seed % 2) :][:, : heads * size].unflatten(1, (-1, size))
    return lengths, [q, k, v, slope]


def exact_gradients(lengths: list[int], q: Tensor, k: Tensor, v: Tensor, slope: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients by torch's autograd in double precision."""
    parts = [x.double().detach().requires_grad_() for x in (q, k, v)]
    shared, outs, start = q.shape[1] // k.shape[1], [], 0
    for length in lengths:
        one, two, three = (x[start : start + length].transpose(0, 1) for x in parts)
        two, three = (x.repeat_interleave(shared, 0) for x in (two, three))
        scores = one @ two.transpose(1, 2) * q.shape[2] ** -0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        outs.append((scores.softmax(-1) @ three).transpose(0, 1))
        start += length
    out = torch.cat(outs)
    return out.detach(), list(torch.autograd.grad(out, parts, slope.double()))


def agree(kernel: Any, lengths: list[int], parts: list[Tensor], tolerance: float) -> None:
    q, k, v, slope = parts
    wanted, gradients = exact_gradients(lengths, q, k, v, slope)
    out, saved = kernel.forward(q, k, v)
    assert out.dtype == q.dtype and out.shape == q.shape
    # the engine keeps the output of several groups of heads in one matrix
    beside = torch.cat([out.flatten(1)] * 2, 1)[:, out.shape[1] * out.shape[2] :].unflatten(1, (-1, out.shape[2]))
    found = kernel.backward(slope, q, k, v, beside, saved)
    floor = slope.double().norm()  # a gradient of documents of one token is nothing
    for ours, theirs in zip((out, *found), (wanted, *gradients), strict=True):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm().clamp(min=floor)


CARD = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", CARD)
@pytest.mark.parametrize("seed", range(12))
def test_the_memory_efficient_kernel_gets_what_it_reads(
    seed: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = pretend_card(monkeypatch, flash=False)
    lengths, parts = made(seed, dtype)
    agree(PerDocument(lengths), lengths, parts, CARD[dtype])
    assert kernels.calls == ["efficient forward"] * len(lengths) + ["efficient backward"] * len(lengths)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(12))
def test_the_flash_kernel_gets_what_it_reads(seed: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pretend_card(monkeypatch, flash=True)
    lengths, parts = made(seed, dtype)
    agree(FlashVarlen(lengths, CPU), lengths, parts, CARD[dtype])
    assert kernels.calls == ["flash forward", "flash backward"]


@pytest.mark.parametrize("dtype", CARD)
@pytest.mark.parametrize("seed", range(12))
def test_the_processor_s_kernels_get_what_they_read(seed: int, dtype: torch.dtype) -> None:
    lengths, parts = made(seed, dtype)
    agree(QueryBlocks(lengths), lengths, parts, CARD[dtype])


def test_the_emulation_reads_wrong_numbers_where_the_kernel_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output handed over by the key/value heads, as it lies in the stream: rows further apart than the kernel believes."""
    kernels = CardKernels()
    q, k, v, slope = (torch.randn(2, 3, 20, 32, dtype=torch.float64) for _ in range(4))
    out, *saved = kernels._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True)
    good = kernels._scaled_dot_product_efficient_attention_backward(
        slope, q, k, v, None, out, *saved, 0.0, [True, True, True, False], True
    )
    strided = torch.empty(20, 2 * 3, 32, dtype=torch.float64).view(20, 2, 3, 32).permute(1, 2, 0, 3).copy_(out)
    bad = kernels._scaled_dot_product_efficient_attention_backward(
        slope, q, k, v, None, strided, *saved, 0.0, [True, True, True, False], True
    )
    off = [float((one - other).norm() / one.norm()) for one, other in zip(good[:2], bad[:2], strict=True)]  # type: ignore[operator, union-attr]
    assert min(off) > 0.2
    with pytest.raises(AssertionError, match="beyond"):
        as_read(torch.zeros(2, 4), 8, 1)


@pytest.mark.parametrize(
    "fault", ["not side by side", "unaligned start", "odd size", "another type", "too wide", "fp32"]
)
def test_another_layout_is_refused_and_not_misread(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_card(monkeypatch, flash=True)
    size = {"odd size": 20, "too wide": 264}.get(fault, 32)
    q, k, v = (torch.zeros(6, heads, size, dtype=torch.float16) for heads in (4, 2, 2))
    if fault == "not side by side":
        q = torch.zeros(size, 4, 6, dtype=torch.float16).permute(2, 1, 0)
    if fault == "unaligned start":
        q = torch.zeros(6 * 4 * size + 1, dtype=torch.float16)[1:].view(6, 4, size)
    if fault == "another type":
        v = v.bfloat16()
    if fault == "fp32":
        q, k, v = (x.float() for x in (q, k, v))
    with pytest.raises(AssertionError):
        FlashVarlen([6], CPU).forward(q, k, v)
    if fault not in ("too wide", "fp32"):  # which the memory-efficient kernel takes
        with pytest.raises(AssertionError):
            PerDocument([6]).forward(q, k, v)


@pytest.mark.parametrize(
    ("generation", "dtype", "size", "flash"),
    [
        ((7, 5), torch.float16, 128, False), ((7, 5), torch.float32, 128, False), ((8, 0), torch.bfloat16, 128, True),
        ((8, 6), torch.float16, 64, True), ((8, 9), torch.bfloat16, 128, True), ((8, 9), torch.float32, 128, False),
        ((8, 9), torch.bfloat16, 256, False), ((12, 0), torch.bfloat16, 256, False), ((9, 0), torch.bfloat16, 256, True),
        ((9, 0), torch.bfloat16, 128, True), ((12, 0), torch.bfloat16, 128, True), ((9, 0), torch.bfloat16, 512, False),
    ],
)  # fmt: skip
def test_each_generation_has_its_kernel(
    generation: tuple[int, int], dtype: torch.dtype, size: int, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: generation)
    monkeypatch.setattr(packed_attention, "FlashVarlen", lambda *_: "flash")
    kernel = kernel_for([3, 4], torch.device("cuda"), dtype, size)
    assert (kernel == "flash") == flash
    assert isinstance(kernel_for([3], CPU, dtype, size), QueryBlocks)


@pytest.mark.parametrize(("size", "dtype"), [(20, torch.bfloat16), (20, torch.float16), (6, torch.float32)])
def test_heads_that_no_kernel_reads_are_refused(size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    with pytest.raises(InputError, match=f"heads of {size} values"):
        kernel_for([3], torch.device("cuda"), dtype, size)
    assert isinstance(kernel_for([3], CPU, dtype, size), QueryBlocks)


STEPS = {
    "kept": {},
    "recomputed": {"layers": all_layers("recompute", 4)},
    "attention kept": {"layers": all_layers("attention", 4)},
    "groups": {"layers": all_layers("recompute", 4), "attention_groups": 4, "tile": 9},
    "groups, attention kept": {"layers": all_layers("attention", 4), "attention_groups": 2},
    "groups, kept": {"attention_groups": 4},
}


@pytest.mark.parametrize("name", STEPS)
def test_the_whole_step_through_the_memory_efficient_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = test_engine.plain(test_engine.model())
    kernels = pretend_card(monkeypatch, flash=False)
    levers = replace(test_engine.PLAIN, **STEPS[name])  # type: ignore[arg-type]
    test_engine.same(test_engine.engine(test_engine.model(), levers), expected)
    assert "efficient backward" in kernels.calls


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("flash", "dtype"), [(True, torch.bfloat16), (True, torch.float16), (False, torch.float16)])
def test_the_whole_step_in_sixteen_bits(
    name: str, flash: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = test_engine.plain(test_engine.model(dtype=torch.float32))
    kernels = pretend_card(monkeypatch, flash=flash)
    one = test_engine.model(dtype=torch.float32).to(dtype)
    loss, gradients = test_engine.engine(one, replace(test_engine.PLAIN, **STEPS[name]))  # type: ignore[arg-type]
    assert ("flash backward" in kernels.calls) == flash
    assert loss.item() == pytest.approx(expected[0].item(), rel=1e-2)
    for ours, theirs in zip(gradients, expected[1], strict=True):
        assert ours is not None and theirs is not None
        assert torch.nn.functional.cosine_similarity(ours.flatten().float(), theirs.flatten(), dim=0) > 0.99
