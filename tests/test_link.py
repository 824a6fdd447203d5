"""The road between card and host: buffers used again, sizes kept exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stilnovo.engine.link import ActivationStore, Link, aligned

CPU = torch.device("cpu")


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
