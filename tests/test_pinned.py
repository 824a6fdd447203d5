"""Pinned host memory: registered exactly as long as it exists, whoever holds it; refused without harm; never all of it."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from stilnovo.engine import pinned
from stilnovo.engine.link import ActivationStore, Link
from stilnovo.engine.loss import Head
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.plan.levers import LEFT_PAGEABLE, Levers, all_layers
from stilnovo.plan.shape import LoraConfig

CPU = torch.device("cpu")


class Driver:
    """What torch hands out as the CUDA runtime: it knows pages, and an error stays until somebody takes it.

    Args:
        status: What registering answers; 0 is success, 304 what WSL says.
        tells: Whether `cudaGetLastError` is among what torch hands out.
    """

    def __init__(self, status: int = 0, *, tells: bool = False) -> None:
        self.status, self.error, self.registered = status, 0, dict[int, int]()
        if tells:
            self.cudaGetLastError = self._take

    def _take(self) -> int:
        error, self.error = self.error, 0
        return error

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        assert flags == 0 and size > 0 and address % 4096 == 0, (
            "whole pages: a neighbour must not be registered with it"
        )
        if any(start < address + size and address < start + length for start, length in self.registered.items()):
            self.error = 712  # already registered
        elif self.status:
            self.error = self.status
        else:
            self.registered[address] = size
            return 0
        return self.error

    def cudaHostUnregister(self, address: int) -> int:
        if self.registered.pop(address, None) is None:
            self.error = 713  # not registered
            return self.error
        return 0

    def launch(self, _device: torch.device) -> None:
        """A kernel's launch, after which torch asks for the last error."""
        if error := self._take():
            raise RuntimeError(f"CUDA error: {error}")

    def covers(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory is registered."""
        first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        return any(start <= first and last <= start + size for start, size in self.registered.items())


def pinning(monkeypatch: pytest.MonkeyPatch, driver: Driver, free: int = 2**40) -> Link:
    """A link that pins, as on a card."""
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(pinned, "free_memory", lambda: free)
    monkeypatch.setattr(pinned, "_launch", driver.launch)
    link = Link(CPU)
    link._pin = True
    return link


def test_memory_is_pinned_in_its_exact_size_and_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver()
    buffer = pinning(monkeypatch, driver).host(1000)
    assert driver.registered == {buffer.data_ptr(): 1000}
    assert buffer.numel() == 1000 and buffer.dtype == torch.uint8
    del buffer
    gc.collect()
    assert driver.registered == {}
    assert caplog.messages == []


VIEWS: dict[str, Any] = {
    "itself": lambda t: t,
    "another type": lambda t: t.view(torch.bfloat16),
    "another shape": lambda t: t.view(torch.float32).view(16, -1),
    "a slice": lambda t: t[256:512],
    "a row": lambda t: t.view(torch.float32).view(16, -1)[3],
    "transposed": lambda t: t.view(64, -1).T,
    "detached": lambda t: t.view(torch.float32).detach(),
    "a parameter": lambda t: torch.nn.Parameter(t.view(torch.float32)),
    "a buffer of a module": lambda t: torch.nn.Buffer(t.view(torch.float32)),
    "a storage's tensor": lambda t: torch.tensor([], dtype=torch.uint8).set_(t.untyped_storage()),
    "in a list": lambda t: [t[:16], t[16:32]][1],
    "strided": lambda t: torch.as_strided(t, (8, 8), (16, 1), 64),
    "by chunks": lambda t: t.chunk(4)[2],
    "resized": lambda t: t.view(torch.float32).resize_(8),
}


@pytest.mark.parametrize("name", VIEWS)
def test_it_stays_pinned_as_long_as_any_view_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    link = pinning(monkeypatch, driver)
    view = VIEWS[name](link.host(4096))
    for _ in range(3):
        gc.collect()
    assert driver.covers(view), "the first tensor's Python object has gone, its memory has not"
    del view
    gc.collect()
    assert driver.registered == {}


@pytest.mark.parametrize("copied", [Tensor.clone, Tensor.float, lambda t: torch.empty(4096).copy_(t)])
def test_what_is_no_view_does_not_hold_it(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    buffer = pinning(monkeypatch, driver).host(4096)
    other = copied(buffer)
    assert not driver.covers(other)
    del buffer
    gc.collect()
    assert driver.registered == {} and other.numel() == 4096


@pytest.mark.parametrize("seed", range(5))
def test_registrations_are_those_of_the_memory_that_is_held(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any order of allocating, viewing and letting go."""
    some, driver = random.Random(seed), Driver()
    link, held = pinning(monkeypatch, driver), list[Tensor]()
    for _ in range(200):
        if held and some.random() < 0.45:
            held.pop(some.randrange(len(held)))
        elif held and some.random() < 0.5:
            held.append(some.choice(held)[-some.randrange(1, 20_000) :])
        else:
            held.append(link.host(some.randrange(1, 20_000)))
        alive = {tensor.untyped_storage().data_ptr() for tensor in held}
        assert set(driver.registered) == alive
    held.clear()
    assert driver.registered == {}


@pytest.mark.parametrize("tells", [True, False])
def test_a_driver_that_refuses_leaves_pageable_memory_one_warning_and_no_error(
    tells: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(304, tells=tells)
    link = pinning(monkeypatch, driver)
    first, second = link.host(64), link.host(64)
    assert first.numel() == second.numel() == 64
    assert driver.registered == {} and driver.error == 0
    driver.launch(CPU)  # nothing is raised at the next kernel
    assert len(caplog.messages) == 1
    assert "refused to pin" in caplog.messages[0]
    first.fill_(1)
    del first, second
    gc.collect()
    assert driver.error == 0, "what was never registered is not unregistered"


def test_a_driver_that_refuses_later_leaves_what_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    link = pinning(monkeypatch, driver)
    first = link.host(64)
    driver.status = 2
    second = link.host(64)
    assert driver.covers(first) and not driver.covers(second)
    driver.registered.clear()  # a context that was lost
    del first
    gc.collect()
    assert driver.error == 0


def test_pinning_leaves_the_machine_room(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    driver, free = Driver(), [LEFT_PAGEABLE + 10_000]
    link = pinning(monkeypatch, driver)
    monkeypatch.setattr(pinned, "free_memory", lambda: free[0])
    first = link.host(8000)
    free[0] -= 8000
    second = link.host(8000)
    assert driver.covers(first) and not driver.covers(second)
    assert ["2 GiB" in message for message in caplog.messages] == [True]


def test_the_streamed_head_and_the_embedding_stay_pinned(monkeypatch: pytest.MonkeyPatch, tiny: Llama) -> None:
    driver = Driver()
    link = pinning(monkeypatch, driver)
    head = Head(torch.randn(1000, 64), "streamed", 100, link)
    gc.collect()
    assert driver.covers(head._host)
    lora.attach(tiny, LoraConfig(r=2))
    levers = Levers(
        layers=all_layers("offload", 2), embedding="host", head="streamed", head_tile=10, streamed_layers=2,
        optimizer_place="host",
    )  # fmt: skip
    adapter = HostAdapter(tiny)
    adapter.link._pin = True
    engine = TrainingEngine(tiny, levers, adapter)
    for _ in range(2):
        tokens = torch.arange(40) % 97
        engine.hidden(tokens, (40,)).sum().backward()
        adapter.collect()
    gc.collect()
    assert engine.stream is not None and engine.link is adapter.link
    buffers = [b for pool in (*engine.store._free.values(), *adapter._free.values()) for b in pool]
    assert buffers
    for memory in (engine.head._host, tiny.embed_tokens, *engine.stream._homes, *buffers):
        assert driver.covers(memory)
    for parameter in adapter.masters:  # which the optimizer reads, and no card
        assert parameter.grad is not None and not driver.covers(parameter.grad)


def test_buffers_of_a_step_are_pinned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    store = ActivationStore(pinning(monkeypatch, driver))
    for step in range(3):
        for layer in range(4):
            store.put((step, layer), torch.full((100, 16), float(layer)))
        store.settle()
        for layer in reversed(range(4)):
            assert store.get((step, layer)).unique().tolist() == [layer]
    assert len(driver.registered) == 4


def test_nobody_else_pins() -> None:
    """One place decides what is pinned, how much, and what becomes of it where the driver refuses."""
    from conftest import ROOT

    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "pinned.py":
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in ("pin_memory=", ".pin_memory(", "cudaHostRegister")), path
