"""Pinned host memory: what a card reads and writes without the processor, registered with the driver for as long as it exists.

Unusual:
- The memory is mapped in exact pages and then registered, because torch's own pinned allocator rounds every block up to a
  power of two.
- The registration belongs to the memory and not to a tensor: torch makes Python's tensors anew at will, and a view outlives
  the tensor that it was made of. The mapping is the owner; a tensor's storage holds it, and what ends it ends the registration.
- It is never necessary. Where the driver refuses (WSL often does) or the machine would be left with too little, memory is
  pageable: slower, never wrong.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stilnovo.model.memory import free_memory
from stilnovo.plan.levers import LEFT_PAGEABLE

_PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}  # Windows has no choice
)


class NotPinnedError(Exception):
    """Why memory stays pageable."""


class _Mapping(mmap.mmap):
    """Memory whose registration ends before it does.

    By `__del__`: a weak reference's callback comes when the pages are gone already.
    """

    unregister: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.unregister is not None and not sys.is_finalizing():  # the process's end does it too
            self.unregister()


def pinned_memory(size: int, device: torch.device) -> Tensor:
    """Allocate `size` bytes (uint8) of pinned host memory for copies from and to `device`.

    Raises:
        NotPinnedError: when the driver refuses, or less than `LEFT_PAGEABLE` of the machine's memory would stay free.
    """
    if free_memory() - size < LEFT_PAGEABLE:
        raise NotPinnedError(f"Less than {LEFT_PAGEABLE / 2**30:.0f} GiB of host memory would be left unpinned")
    try:
        pages = _Mapping(-1, size, **_PRIVATE)
    except (OSError, ValueError) as error:
        raise NotPinnedError(f"Host memory could not be mapped ({error})") from error
    memory = torch.frombuffer(pages, dtype=torch.uint8)
    address, runtime = memory.data_ptr(), torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(runtime.cudaHostRegister(address, size, 0)) != 0:
        _take_error(runtime, device)
        raise NotPinnedError("The driver refused to pin host memory")

    def unregister() -> None:
        if device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # a context that is lost has no copies under way
                torch.cuda.synchronize(device)
        if int(runtime.cudaHostUnregister(address) or 0) != 0:
            _take_error(runtime, device)

    pages.unregister = unregister
    return memory


def _take_error(runtime: Any, device: torch.device) -> None:
    """Take the error of a failed call away from CUDA, which would raise it at the next launch of whatever kernel.

    torch gives out no `cudaGetLastError` (2.9 to 2.13); its check after a launch takes what is there and raises it.
    """
    if hasattr(runtime, "cudaGetLastError"):
        runtime.cudaGetLastError()
        return
    with contextlib.suppress(RuntimeError):
        _launch(device)


def _launch(device: torch.device) -> None:
    torch.empty(1, device=device).fill_(1.0)
