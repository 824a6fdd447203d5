"""A step without storage: live bytes followed tensor by tensor while the real code runs on shapes alone.

Everything on the device `meta` plays the card, everything on the CPU the host; under `FakeTensorMode` neither has storage.
A storage counts from the operation that made it until nobody holds it (a weak reference says when). Nothing here knows
the ledger. Two things are allocated where no mode can see them, and are added as their sources have it:
- while flash attention's backward runs (`mha_varlen_bwd` of torch 2.9 to 2.13), dq accumulated in fp32 and one softmax sum a row and
  head, both with 128 rows more a document, keys' and values' gradients a query head before they are summed, contiguous copies of
  strided arguments;
- from the first product of a thread on, the workspace of its handle of cuBLAS. Forward and loss are one thread, backward is
  another.

Needs: stilnovo.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm, _aten.addmm, _aten.addmm_, _aten.bmm)
#: torch's choice (`getChosenWorkspaceSize`), except on Hopper and the large Blackwell (32 MiB): 2 of 4 MiB, 8 of 16 KiB.
BLAS_BYTES = 4096 * 2048 + 16 * 8192


class LiveStorages(TorchDispatchMode):
    """Bytes of live storages on one device: `now`, and the `peak` with the operation it was reached in."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.now, self.peak, self.at = device, 0, 0, ""
        self._live: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # A fake tensor's own attribute: asking for `.device` would be one more operation each time.
            if isinstance(leaf, Tensor) and _device(leaf).type == self.device:
                self._see(leaf)
        self._note(self.now, str(function))
        return result

    def _note(self, held: int, at: str) -> None:
        if held > self.peak:
            self.peak, self.at = held, at

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return

        def gone(_: Any) -> None:
            if self._live.pop(key, None) is not None:
                self.now -= size

        self._live[key] = weakref.ref(storage, gone)
        self.now += size


class LiveBytes(LiveStorages):
    """The same of a whole step, with what is allocated where no mode can see it."""

    def __init__(self, device: str = "meta", blas: int | None = None) -> None:
        super().__init__(device)
        self.phase, self.blas = "", BLAS_BYTES if blas is None else blas
        self._threads: set[bool] = set()
        self._extra = 0

    def reset(self) -> None:
        """Start a new peak from what is alive now."""
        self.peak, self.at = self.now, ""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._overloadpacket in _PRODUCTS and _device(args[0]).type == self.device:
            thread = self.phase == "backward"
            self.now += self.blas if thread not in self._threads else 0
            self._threads.add(thread)
        self._extra = _workspace(args) if function is _aten._flash_attention_backward.default else 0
        return super().__torch_dispatch__(function, types, args, kwargs)

    def _note(self, held: int, at: str) -> None:
        super()._note(held + self._extra, f"{self.phase} {at}".strip())


def _workspace(args: Any) -> int:
    grad, q, k, out, bounds = args[0], args[1], args[2], args[4], args[6]
    tokens, heads, size = q.shape
    rows = tokens + 128 * (bounds.shape[0] - 1)
    total = rows * heads * 4 * (-(-size // 32) * 32 + 1)
    if k.shape[1] != heads:
        total += 2 * tokens * heads * size * k.element_size()
    return total + sum(t.nbytes for t in (grad, out) if not t.is_contiguous())


def _device(tensor: Tensor) -> torch.device:
    place: torch.device | None = getattr(tensor, "fake_device", None)
    return tensor.device if place is None else place
