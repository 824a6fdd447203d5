"""Try the parts of a training step on a device, each against plain arithmetic in double precision on the CPU, in seconds.

`stilnovo doctor` asks them of the card that it finds, the card's benchmark begins with them, and the tests run the same ones
on a processor: nothing in here asks what kind of device it is but where one has no such thing.

Unusual: an answer is either the figures of what was compared, or the reason why it does not work; nothing raises. What can
end the whole process (a kernel that is broken) does so here, too: who must go on starts a process for it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stilnovo.engine.link import Link
from stilnovo.engine.packed_attention import FlashVarlen, Kernel, PerDocument, kernel_for
from stilnovo.engine.pinned import pinned_memory
from stilnovo.model import kernels
from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.model.quantize import FourBitLinear, quantized_linear
from stilnovo.plan.levers import BLOCK, NESTED_BLOCK
from stilnovo.recipe_sections import Scheme, TrainSection
from stilnovo.train.optimizer import make_optimizer

LENGTHS = (70, 1, 33, 150)  # of documents: shorter and longer than a tile of the kernels, and a single token
MIB = 2**20
Figures = dict[str, float]


class Wrong(Exception):
    """A part computes something else than it should."""


class NotHere(Exception):
    """This device has no such thing."""


@dataclass(frozen=True)
class Trial:
    """What came of trying one part.

    Attributes:
        name: The part's.
        outcome: `works`, `wrong` (other numbers), `fails` (an error) or `not here`.
        note: The reason, where it does not work.
        figures: What was measured, by name: relative errors, bytes a second.
        seconds: How long it took.
    """

    name: str
    outcome: str
    note: str = ""
    figures: Figures = field(default_factory=dict)
    seconds: float = 0.0


def half_type(device: torch.device) -> torch.dtype:
    """The 16-bit type in which this device trains: bf16, on a card that has none fp16."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return torch.bfloat16


def relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, in double precision; infinite where a number is none."""
    wide = found.detach().double().cpu(), expected.detach().double().cpu()
    error = float((wide[0] - wide[1]).norm() / wide[1].norm())
    return error if error == error else float("inf")


def near(limit: float, **pairs: tuple[Tensor, Tensor]) -> Figures:
    """Relative errors of found against expected values, by name.

    Raises:
        Wrong: where one is above the limit.
    """
    errors = {name: relative(*pair) for name, pair in pairs.items()}
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= limit:
        raise Wrong(f"{worst}: relative error {errors[worst]:.3g}, at most {limit:.3g} is right")
    return errors


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _weights(scheme: Scheme) -> Callable[[torch.device], Figures]:
    """A matrix quantised on the device: its dense form is the CPU's of the same codes, and near what it was made of."""

    def trial(device: torch.device) -> Figures:
        errors: Figures = {}
        for rows, columns in ((192, 320), (5, 37)):  # the second ends with part of a block
            weight = _random(rows, columns, seed=1) * 0.05
            linear = quantized_linear(weight.to(device), scheme)
            there = linear.dense(half_type(device))
            here = linear.to("cpu").dense(there.dtype)
            near(0.2, weights=(there, weight))
            errors |= near(1e-3, **{f"{rows} × {columns}": (there, here)})
        return errors

    return trial


def _four_bit_product(device: torch.device) -> Figures:
    """bitsandbytes' product with 4-bit weights that it never makes dense, with doubly quantised scales: 1, 8 and 40 tokens."""
    linear = FourBitLinear((_random(256, 512, seed=2) * 0.05).to(device), "nf4")
    bitsandbytes_functional()
    dtype = half_type(device)
    errors: Figures = {}
    for tokens in (1, 8, 40):
        x = _random(tokens, 512, seed=tokens).to(device, dtype)
        found = torch.ops.bitsandbytes.gemm_4bit(
            x, linear.packed, [256, 512], linear.nested_absmax, BLOCK, "nf4", None, linear.absmax, linear.nested_code,
            linear.offset,
        )  # fmt: skip
        expected = x.double().cpu() @ linear.dense(torch.float32).double().cpu().T
        errors |= near(0.01, **{f"{tokens} tokens": (found, expected)})
    assert NESTED_BLOCK == 256, "the operator takes no other"
    return errors


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
    inputs = [_random(sum(LENGTHS), *shape, seed=seed).to(dtype) for seed, shape in enumerate(shapes)]
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


def _packed_attention(device: torch.device) -> Figures:
    """The kernel that trains here, with four queries a key and with one."""
    dtype = half_type(device)
    errors: Figures = {}
    for heads, groups, width in ((8, 2, 64), (4, 4, 128)):
        found = _attention(device, dtype, kernel_for(LENGTHS, device, dtype, width), heads, groups, width)
        errors |= {f"{name}, {heads} on {groups}": error for name, error in found.items()}
    return errors


def _attention_by_document(dtype: torch.dtype | None = None) -> Callable[[torch.device], Figures]:
    """The kernel of cards without flash attention, which later cards have too, in the type that trains or another; a CPU's own."""

    def trial(device: torch.device) -> Figures:
        which = dtype or half_type(device)
        kernel = PerDocument(LENGTHS) if device.type == "cuda" else kernel_for(LENGTHS, device, which, 64)
        return _attention(device, which, kernel, 8, 2, 64)

    return trial


def _pinned(device: torch.device) -> Figures:
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


def _order(device: torch.device) -> Figures:
    """Copies beside arithmetic: what was fetched is whole when the compute stream has waited for it."""
    link = Link(device)
    home = link.host(4 * MIB).view(torch.float32)
    home.copy_(torch.arange(home.numel()))
    target, errors = torch.empty_like(home, device=device), 0
    for turn in range(4):
        busy = _random(256, 256).to(device)
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


def _optimizer(kind: str) -> Callable[[torch.device], Figures]:
    def trial(device: torch.device) -> Figures:
        """Ten steps on a bowl: the loss must fall as with fp32 moments on the CPU."""
        losses = []
        for place, which in ((device, kind), (torch.device("cpu"), "adamw")):
            x = nn.Parameter(_random(64, 128, seed=4).to(place))
            optimizer = make_optimizer([x], TrainSection(learning_rate=0.05, weight_decay=0.0), which)  # type: ignore[arg-type]
            for _ in range(10):
                loss = (x * x).sum()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
            losses.append((x * x).sum().detach())
        return near(0.05, loss=(losses[0], losses[1]))

    return trial


def _captured(device: torch.device) -> Figures:
    """A captured graph, replayed with another input, beside the same calls made one by one."""
    if device.type != "cuda":
        raise NotHere("a processor captures no graph")
    weight, x = (_random(64, 64, seed=seed).to(device) for seed in (5, 6))

    def step() -> Tensor:
        return F.silu(x @ weight).mul_(2).cumsum(-1)

    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    x.copy_(_random(64, 64, seed=7))
    graph.replay()
    return near(1e-6, replayed=(out, step()))


def trials(device: torch.device) -> dict[str, Callable[[torch.device], Figures]]:
    """The parts that can be tried on a device, by name, those first on which all others stand."""
    return {
        "NF4 weights": _weights("nf4"),
        "FP4 weights": _weights("fp4"),
        "int8 weights": _weights("int8"),
        "int4 weights": _weights("int4"),
        "4-bit product": _four_bit_product,
        "packed attention": _packed_attention,
        "attention by document": _attention_by_document(),
        "attention by document, fp16": _attention_by_document(torch.float16),
        "attention by document, fp32": _attention_by_document(torch.float32),
        "pinned memory": _pinned,
        "order of copies": _order,
        "fp32 optimizer": _optimizer("adamw"),
        "8-bit optimizer": _optimizer("adamw8bit"),
        "captured graph": _captured,
    }


def uses(device: torch.device) -> dict[str, str]:
    """What a training and a command that writes will use on a card, by topic."""
    half = half_type(device)
    flash = isinstance(kernel_for((1,), device, half, 128), FlashVarlen)
    return {
        "type": "bf16" if half == torch.bfloat16 else "fp16 with a dynamic loss scale",
        "attention": "flash attention, all documents at once"
        if flash
        else "memory-efficient attention, document by document",
        "elementwise": "Triton kernels" if kernels.wanted(device) else "torch's operators",
    }


def attempt(name: str, device: torch.device) -> Trial:
    """Try one part."""
    started = time.perf_counter()
    try:
        figures = trials(device)[name](device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # an error of a kernel shows itself here at the latest
        outcome, note = "works", ""
    except Wrong as error:
        outcome, note, figures = "wrong", str(error), {}
    except NotHere as error:
        outcome, note, figures = "not here", str(error), {}
    except Exception as error:
        outcome, figures = "fails", {}
        note = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    return Trial(name, outcome, note, figures, time.perf_counter() - started)


def attempts(device: torch.device) -> Iterator[Trial]:
    """Try all parts, one after another."""
    for name in trials(device):
        yield attempt(name, device)
