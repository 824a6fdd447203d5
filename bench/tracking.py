"""A step without storage: live bytes followed tensor by tensor while the real code runs on shapes alone.

Everything on the device `meta` plays the card, everything on the CPU the host; under `FakeTensorMode` neither has storage.
A storage counts from the operation that made it until nobody holds it (a weak reference says when). Nothing here knows
the ledger. Flash attention's backward allocates workspace inside its kernel, where no mode can see it: what its source
takes (dq accumulated in fp32, one softmax sum a row, keys' and values' gradients a query head before they are summed,
contiguous copies of strided arguments) is added while the operation runs.

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


class LiveBytes(TorchDispatchMode):
    """Bytes of live storages on one device; `peak` and the operation it was reached in."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.now, self.peak, self.at = device, 0, 0, ""
        self.phase = ""
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}

    def reset(self) -> None:
        """Start a new peak from what is alive now."""
        self.peak, self.at = self.now, ""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        extra = _workspace(args) if function is _aten._flash_attention_backward.default else 0
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # A fake tensor's own attribute: asking for `.device` would be one more operation each time.
            if isinstance(leaf, Tensor) and _device(leaf).type == self.device:
                self._see(leaf)
        if self.now + extra > self.peak:
            self.peak, self.at = self.now + extra, f"{self.phase} {function}".strip()
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return

        def gone(_: Any) -> None:
            if self._live.pop(key, None) is not None:
                self.now -= size

        self._live[key] = (weakref.ref(storage, gone), size)
        self.now += size


def _workspace(args: Any) -> int:
    grad, q, k, out = args[0], args[1], args[2], args[4]
    tokens, heads, size = q.shape
    total = tokens * heads * size * 4 + tokens * heads * 4
    if k.shape[1] != heads:
        total += 2 * tokens * heads * size * k.element_size()
    return total + sum(t.nbytes for t in (grad, out) if not t.is_contiguous())


def _device(tensor: Tensor) -> torch.device:
    place: torch.device | None = getattr(tensor, "fake_device", None)
    return tensor.device if place is None else place
