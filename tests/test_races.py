"""Copies and compute on a card: no memory is read before its copy is done, written while it is read, or freed under either.

A race detector follows every operation of the real step on a fake card (`fake_modes.Races`); that it finds what it should is
shown by leaving one of the step's waits out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import test_fake_card
from fake_cuda import CARD, Event, Stream, fake_card
from fake_modes import Races
from stilnovo.engine.link import ActivationStore, LayerStream, Link, Ticket
from stilnovo.engine.loss import Head
from stilnovo.engine.product import HostAdapter
from stilnovo.model import kernels
from stilnovo.plan.levers import all_layers
from tracking import LiveStorages

FOUR = all_layers("recompute", 2)
MORE: dict[str, dict[str, Any]] = {
    "one slot": {"layers": FOUR, "streamed_layers": 2, "slots": 1},
    "two slots, inputs on the host": {"layers": FOUR, "streamed_layers": 2, "inputs": "host"},
    "no prefetch": {"layers": all_layers("offload", 2), "prefetch": False},
    "mixed": {"layers": ("offload", "attention"), "inputs": "host", "optimizer_place": "host", "optimizer": "adamw"},
    "streamed head": {"head": "streamed", "head_tile": 70, "optimizer_place": "host", "optimizer": "adamw"},
}


def races(setting: dict[str, Any], generation: tuple[int, int] = (8, 9)) -> list[str]:
    """What the detector finds in two passes of a training under these levers."""
    with fake_card(generation) as card, Races(card) as seen:
        test_fake_card.step("none", replace(test_fake_card.PLAIN, **setting), passes=2)
    assert seen.operations > 500
    return seen.found


@pytest.mark.parametrize("name", [*test_fake_card.SETTINGS, *MORE])
def test_no_lever_races(name: str) -> None:
    assert races({**test_fake_card.SETTINGS, **MORE}[name]) == []


def test_no_lever_races_on_turing() -> None:
    assert races(MORE["mixed"], (7, 5)) == []


class _Operators(TorchDispatchMode):
    """Which of the project's own operators are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = set[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "stilnovo":
            self.called.add(function._schema.name.partition("::")[2])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("generation", "scheme"), [((7, 5), "nf4"), ((8, 9), "int8"), ((9, 0), "nf4")])
def test_with_kernels(generation: tuple[int, int], scheme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step with the Triton kernels, which fake tensors know as operators."""
    monkeypatch.setattr(kernels, "installed", lambda: True)
    monkeypatch.setenv(kernels.SWITCH, "1")
    kernels._decided.cache_clear()
    name = "attention kept" if generation == (9, 0) else "offloaded"
    with fake_card(generation) as card, _Operators() as operators, Races(card) as seen:
        assert kernels.wanted(CARD)
        test_fake_card.step(scheme, replace(test_fake_card.PLAIN, **test_fake_card.SETTINGS[name]))
    kernels._decided.cache_clear()
    assert seen.found == []
    dense = "dequantize_4bit" if scheme == "nf4" else "dequantize_affine"
    assert {"rms_norm", "swiglu", "rotate", dense} <= operators.called


def no_wait(_self: Link, ticket: Ticket) -> Tensor:
    ticket.done = None
    return ticket.target


def copy_without_waiting(self: Link, source: Tensor, target: Tensor) -> Ticket:
    """A copy that does not wait for what computes its source, or still reads its target."""
    stream: Any = self._down if target.device.type == "cpu" else self._up
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)
        event = Event()
        event.record(stream)
    return Ticket(source, target, event)  # type: ignore[call-arg]


def settle_at_once(self: ActivationStore) -> None:
    self._leaving.clear()


def prefetch_anywhere(self: LayerStream, index: int) -> None:
    if 0 <= index < self.count and index not in self._holds:
        self._bring(index, self._order[-1])


def one_half(self: Head, *_: Any) -> Any:
    """Both tiles of a streamed head in one half of the memory, the second brought before the first is used."""
    for index, (start, stop) in enumerate(self.spans):
        now = self.link.copy(self._host[start:stop], self._slots[0, : stop - start])
        if index + 1 < len(self.spans):
            first, last = self.spans[index + 1]
            self.link.copy(self._host[first:last], self._slots[0, : last - first])
        yield start, stop, self.link.wait(now)


def flush_at_once(self: HostAdapter) -> None:
    """Gradients are added up on the host before they have arrived."""
    for index, gradient in self._layer.items():
        ticket = self.link.copy(gradient, torch.empty(gradient.shape, dtype=gradient.dtype))
        grad = self.masters[index].grad
        self.masters[index].grad = ticket.target if grad is None else grad + ticket.target
        self._waiting = [*getattr(self, "_waiting", []), ticket]  # type: ignore[attr-defined]
    self._layer.clear()


FAULTS: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "a fetch is not waited for": (Link, "wait", no_wait, "mixed"),
    "a copy starts at once": (Link, "copy", copy_without_waiting, "mixed"),
    "a layer comes without waiting": (Link, "copy", copy_without_waiting, "one slot"),
    "sources go before they have left": (ActivationStore, "settle", settle_at_once, "mixed"),
    "a layer comes over the current one": (LayerStream, "prefetch", prefetch_anywhere, "two slots, inputs on the host"),
    "one half for two tiles": (Head, "_streamed", one_half, "streamed head"),
    "gradients are read too early": (HostAdapter, "flush", flush_at_once, "mixed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wait_left_out_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken, setting = FAULTS[fault]
    monkeypatch.setattr(where, name, broken)
    assert races(MORE[setting])


def test_the_detector_itself() -> None:
    with fake_card() as card, Races(card) as seen:
        other, done = Stream(), Event()
        memory = torch.zeros(8, device=CARD)
        with torch.cuda.stream(other):  # type: ignore[arg-type]
            memory[:4].add_(1)  # does not know of the zeros
        assert len(seen.found) == 1 and "writes" in seen.found.pop()
        memory[4:].add_(1)  # another part
        assert not seen.found
        memory[:1].sum()
        assert len(seen.found) == 1 and "reads" in seen.found.pop()
        done.record(other)
        card.current.wait_event(done)
        memory.sum()
        assert not seen.found
        host = torch.zeros(4)
        with torch.cuda.stream(other):  # type: ignore[arg-type]
            other.wait_stream(card.default)
            host.copy_(memory[:4], non_blocking=True)
        host.sum()
        assert len(seen.found) == 1 and "the processor reads host memory" in seen.found.pop()
        other.synchronize()
        host.sum()
        assert not seen.found
        with torch.cuda.stream(other):  # type: ignore[arg-type]
            memory.mul_(2)
        del memory
        assert len(seen.found) == 1 and "is freed" in seen.found.pop()


def test_live_bytes_are_those_that_are_held() -> None:
    with fake_card(), LiveStorages("cuda") as live:
        first = torch.zeros(1000, dtype=torch.uint8, device=CARD)
        view = first[10:]
        second, host = torch.empty(500, dtype=torch.uint8, device=CARD), torch.empty(900)
        assert (live.now, live.peak) == (1500, 1500) and host.numel() == 900
        del first, second
        assert live.now == 1000
        del view
        assert (live.now, live.peak) == (0, 1500)
