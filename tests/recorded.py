"""A CUDA graph played on the CPU: a step's operations are recorded with their tensors, and repeated on what these then hold.

As a real graph it knows tensors by their place and numbers by the value that they had. What a real one forbids or silently freezes is
refused: a value or a size that the host would have to wait for, and tensors made of numbers on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operations whose result is on the host, or as long as the values say.
WAITS = {
    "aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.masked_select", "aten._unique2", "aten.unique_dim",
    "aten.equal", "aten.item", "aten.multinomial", "aten.bincount", "aten.lift_fresh", "aten.lift_fresh_copy",
}  # fmt: skip


class HostAsked(AssertionError):
    """A recorded step wanted something of the host."""


def check(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Refuse an operation that a CUDA graph could not repeat."""
    if name in WAITS or (name == "aten.index" and any(x.dtype == torch.bool for x in inputs[1:])):
        raise HostAsked(name)
    if name == "aten.repeat_interleave" and len(inputs) > 1:
        raise HostAsked(f"{name} of lengths that are values")
    kinds = {x.device.type for x in inputs if x.dim()} | {x.device.type for x in outputs}  # a number may lie anywhere
    if len(kinds) > 1:
        raise HostAsked(f"{name} from {kinds}")


class Recording(TorchDispatchMode):
    """Records operations with their tensors, by identity, and keeps what they overwrite."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, schema = str(function).rpartition(".")[0], function._schema
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        written = [
            given[argument.name]
            for argument in schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write and argument.name in given
        ]
        for tensor in written:
            place = tensor.untyped_storage().data_ptr()
            if place not in self.before:
                whole = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
                self.before[place] = (whole, whole.clone())
        result = function(*args, **kwargs)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        check(name, inputs, outputs)
        given_places = {x.untyped_storage().data_ptr() for x in inputs}  # a view needs no repeating
        fresh = [x for x in outputs if x.untyped_storage().data_ptr() not in given_places]
        if written or (fresh and "empty" not in name):
            self.calls.append((function, args, kwargs, [] if written else outputs))
        return result


def played(step: Callable[[], None], _device: torch.device) -> Callable[[], None]:
    """Record a step without its effects; what is returned repeats it."""
    with Recording() as recording:
        step()
    for whole, before in recording.before.values():
        whole.copy_(before)

    def replay() -> None:
        for function, args, kwargs, fresh in recording.calls:
            result = function(*args, **kwargs)
            for old, new in zip(fresh, (x for x in tree_leaves(result) if isinstance(x, Tensor)), strict=False):
                old.copy_(new)

    return replay
