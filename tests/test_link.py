"""The road between card and host: buffers used again, sizes kept exact, pinning refused without harm."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from stilnovo.engine.link import ActivationStore, Link, aligned

CPU = torch.device("cpu")


class Driver:
    """What torch hands out as the CUDA runtime."""

    def __init__(self, status: int) -> None:
        self.status, self.registered = status, dict[int, int]()

    def cudaHostRegister(self, address: int, size: int, _flags: int) -> int:
        if self.status == 0:
            self.registered[address] = size
        return self.status

    def cudaHostUnregister(self, address: int) -> None:
        del self.registered[address]


def pinning(monkeypatch: pytest.MonkeyPatch, status: int) -> tuple[Link, Driver]:
    driver, link = Driver(status), Link(CPU)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    link._pin = True
    return link, driver


def test_host_memory_is_pinned_in_its_exact_size_and_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link, driver = pinning(monkeypatch, 0)
    buffer = link.host(1000)
    assert driver.registered == {buffer.data_ptr(): 1000}
    del buffer
    gc.collect()
    assert driver.registered == {}
    assert caplog.messages == []


def test_a_driver_that_refuses_leaves_pageable_memory_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link, driver = pinning(monkeypatch, 304)  # as under WSL
    first, second = link.host(64), link.host(64)
    assert first.numel() == second.numel() == 64
    assert driver.registered == {}
    assert len(caplog.messages) == 1
    assert "refused to pin" in caplog.messages[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_what_is_put_comes_back_and_its_buffer_is_used_again(dtype: torch.dtype) -> None:
    store = ActivationStore(Link(CPU))
    for length in (100, 98, 100, 97):  # batches differ a little
        tensor = torch.arange(length * 16).view(length, 16).to(dtype)
        store.put("key", tensor)
        store.settle()
        store.prefetch("key")
        found = store.get("key")
        assert torch.equal(found, tensor)
        assert found.data_ptr() != tensor.data_ptr()
    assert store.nbytes <= 2 * 100 * 16 * torch.empty(0, dtype=dtype).element_size()


def test_what_is_dropped_gives_its_room_back() -> None:
    store = ActivationStore(Link(CPU))
    store.put((1, "a"), torch.ones(1000))
    held: Any = store.nbytes
    store.drop([(2, "a")])
    assert torch.equal(store.get((1, "a")), torch.ones(1000))
    store.put((1, "a"), torch.ones(1000))
    store.drop([(1, "a")])
    store.drop([(1, "a")])
    store.put((2, "b"), torch.ones(1000))
    assert store.nbytes == held
    with pytest.raises(KeyError):
        store.get((1, "a"))


def test_alignment() -> None:
    assert [aligned(n) for n in (0, 1, 256, 257)] == [0, 256, 256, 512]
