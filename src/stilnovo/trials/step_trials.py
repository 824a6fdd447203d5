"""Trials of a training step's parts: weights, attention, memory that copies use, optimizers, repeating."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from stilnovo.engine.link import Link
from stilnovo.engine.packed_attention import Kernel, PerDocument, kernel_for
from stilnovo.engine.pinned import pinned_memory
from stilnovo.model import card, kernels
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.levers import OptimizerKind
from stilnovo.recipe_sections import Scheme, TrainSection
from stilnovo.train.optimizer import make_optimizer
from stilnovo.trials.trial import Figures, NotHere, Wrong, half_type, near, random_tensor

LENGTHS = (70, 1, 33, 150)  # of documents: shorter and longer than a tile of the kernels, and a single token
MIB = 2**20


def weights(scheme: Scheme) -> Callable[[torch.device], Figures]:
    """A matrix quantised on the device: its dense form is the CPU's of the same codes, and near what it was made of."""

    def trial(device: torch.device) -> Figures:
        errors: Figures = {}
        for rows, columns in ((192, 320), (5, 37)):  # the second ends with part of a block
            weight = random_tensor(rows, columns, seed=1) * 0.05
            linear = quantized_linear(weight.to(device), scheme)
            there = linear.dense(half_type(device))
            here = linear.to("cpu").dense(there.dtype)
            near(0.2, weights=(there, weight))
            errors |= near(1e-3, **{f"{rows} × {columns}": (there, here)})
        return errors

    return trial


def attended(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Causal attention within documents by its formula: q (T, H, D), k and v (T, K, D) → (T, H, D), for autograd."""
    share, outs = q.shape[1] // k.shape[1], []
    for start, stop in pairwise(accumulate(lengths, initial=0)):
        rows = slice(start, stop)
        queries, keys, values = q[rows], *(x[rows].repeat_interleave(share, 1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * q.shape[2] ** -0.5
        hidden = torch.ones(stop - start, stop - start, dtype=torch.bool).triu(1)
        outs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(outs)


def _attention(
    device: torch.device, dtype: torch.dtype, kernel: Kernel, heads: int, groups: int, width: int
) -> Figures:
    """A kernel's output and its three gradients against autograd."""
    shapes = ((heads, width), (groups, width), (groups, width), (heads, width))
    inputs = [random_tensor(sum(LENGTHS), *shape, seed=seed).to(dtype) for seed, shape in enumerate(shapes)]
    *wide, slope = [x.double() for x in inputs]
    for x in wide:
        x.requires_grad_()
    expected = attended(wide[0], wide[1], wide[2], LENGTHS)
    gradients = torch.autograd.grad(expected, wide, slope)
    q, k, v, grad = (x.to(device) for x in inputs)
    out, saved = kernel.forward(q, k, v)
    found = kernel.backward(grad, q, k, v, out, saved)
    limit = 1e-5 if dtype.itemsize > 2 else 0.02
    names = ("d q", "d k", "d v")
    return near(limit, output=(out, expected), **dict(zip(names, zip(found, gradients, strict=True), strict=True)))


def packed_attention(device: torch.device) -> Figures:
    """The kernel that trains here, with four queries a key and with one."""
    dtype = half_type(device)
    errors: Figures = {}
    for heads, groups, width in ((8, 2, 64), (4, 4, 128)):
        found = _attention(device, dtype, kernel_for(LENGTHS, device, dtype, width), heads, groups, width)
        errors |= {f"{name}, {heads} on {groups}": error for name, error in found.items()}
    return errors


def attention_by_document(dtype: torch.dtype | None = None) -> Callable[[torch.device], Figures]:
    """The kernel of cards without flash attention, which later cards have too, in the type that trains or another; a CPU's own."""

    def trial(device: torch.device) -> Figures:
        which = dtype or half_type(device)
        kernel = PerDocument(LENGTHS) if device.type == "cuda" else kernel_for(LENGTHS, device, which, 64)
        return _attention(device, which, kernel, 8, 2, 64)

    return trial


def pinned(device: torch.device) -> Figures:
    """Host memory as the engine takes it: pinned as long as anything of it lives, by the driver's word, and how fast it copies."""
    if device.type != "cuda":
        raise NotHere("copies to a processor need no pinned memory")
    view = pinned_memory(64 * MIB, device).view(torch.float16).view(-1, 1024)[1:]
    gc.collect()  # the first tensor is gone, its memory is not
    if not view.is_pinned():
        raise Wrong("the memory was unpinned while it was in use; copies are slower")
    view.copy_(torch.arange(view.numel()).remainder(1000).view_as(view))
    there, link = torch.empty_like(view, device=device), Link(device)
    link.wait(link.copy(view, there))
    if not torch.equal(there.cpu(), view):
        raise Wrong("a copy from pinned memory brought other bytes")
    speeds: Figures = {}
    for name, source in (("pinned", view), ("pageable", torch.empty(view.shape, dtype=view.dtype))):
        called, copied = min((_copy_seconds(there, source) for _ in range(3)), key=lambda pair: pair[1])
        speeds |= {
            f"{name} bytes a second": view.nbytes / copied,
            f"{name} copy, share until its call returns": called / copied,
        }
    return speeds


def _copy_seconds(target: Tensor, source: Tensor) -> tuple[float, float]:
    """Seconds until a copy's call returns, and until it is done: from pinned memory it returns at once."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    target.copy_(source, non_blocking=True)
    called = time.perf_counter() - started
    torch.cuda.synchronize()
    return called, time.perf_counter() - started


def order(device: torch.device) -> Figures:
    """Copies beside arithmetic: what was fetched is whole when the compute stream has waited for it."""
    link = Link(device)
    home = link.host(4 * MIB).view(torch.float32)
    home.copy_(torch.arange(home.numel()))
    target, errors = torch.empty_like(home, device=device), 0
    for turn in range(4):
        busy = random_tensor(256, 256).to(device)
        for _ in range(8):
            busy = (busy @ busy).tanh()
        there = link.wait(link.copy(home, target)) + turn
        back = link.host(there.nbytes).view(torch.float32)
        ticket = link.copy(there, back)
        if ticket.done is not None:
            ticket.done.synchronize()
        errors += int((back != home + turn).sum())
    if errors:
        raise Wrong(f"{errors} numbers were read before their copy was done")
    return {}


def optimizer_steps(kind: OptimizerKind) -> Callable[[torch.device], Figures]:
    """Ten steps on a bowl: the loss must fall as with fp32 moments on the CPU."""

    def trial(device: torch.device) -> Figures:
        losses = []
        reference: OptimizerKind = "adamw"
        for place, which in ((device, kind), (torch.device("cpu"), reference)):
            x = nn.Parameter(random_tensor(64, 128, seed=4).to(place))
            optimizer = make_optimizer([x], TrainSection(learning_rate=0.05, weight_decay=0.0), which)
            for _ in range(10):
                loss = (x * x).sum()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
            losses.append((x * x).sum().detach())
        return near(0.05, loss=(losses[0], losses[1]))

    return trial


def repeated(device: torch.device) -> Figures:
    """Under `train.deterministic` attention's gradients are the same to the last bit each time."""
    dtype = half_type(device)
    q, k, v, grad = (
        random_tensor(sum(LENGTHS), heads, 64, seed=heads).to(device, dtype) for heads in (8, 2, 2, 8)
    )  # fmt: skip
    kernel = kernel_for(LENGTHS, device, dtype, 64)
    with card.repeating(True):
        out, saved = kernel.forward(q, k, v)
        turns = [kernel.backward(grad, q, k, v, out, saved) for _ in range(5)]
    others = sum(int((one != first).sum()) for turn in turns for one, first in zip(turn, turns[0], strict=True))
    if others:
        raise Wrong(f"{others} gradients of the same step differ")
    return {}


def triton(device: torch.device) -> Figures:
    """Each Triton kernel against its formula, in a process of its own; what comes of it decides whether they are used."""
    if device.type != "cuda" or not kernels.installed():
        raise NotHere("the kernels are for cards, and need Triton")
    found = kernels.tried_again(device)
    if not found.passed:
        raise (Wrong if "is off by" in found.reason else RuntimeError)(found.reason)
    return found.errors or {}
