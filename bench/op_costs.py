"""Each operation of a training step as a card would see it: FLOPs, bytes, launches, copies over the link; from shapes alone.

The step is the engine's own under `FakeTensorMode`, the device `meta` playing the card, so what is counted is the code and no model of
it. An operation reads its inputs once and writes its outputs once: what fits in a cache meanwhile is counted as traffic all the same.
Our kernels are operators of the library `stilnovo` and are seen like torch's own.

Needs: stilnovo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memory import empty_model
from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LlamaConfig

_aten = torch.ops.aten
#: Matrix products, with the places of their two matrices among the arguments.
_PRODUCTS = {
    _aten.mm.default: (0, 1), _aten.mm.out: (0, 1), _aten.bmm.default: (0, 1), _aten.bmm.out: (0, 1),
    _aten.addmm.default: (1, 2), _aten.addmm.out: (1, 2), _aten.addmm_.default: (1, 2),
}  # fmt: skip
#: Make a tensor or a view without a launch.
_FREE = (
    "prim.",
    "aten.empty",
    "aten.new_empty",
    "aten.detach",
    "aten.lift_fresh",
    "aten._local_scalar_dense",
    "aten.device_",
)
_LOOKUPS = ("aten.embedding", "aten.gather", "aten.index_select", "aten.index.Tensor")


@dataclass(frozen=True)
class Op:
    """One operation: what it is, its FLOPs, the bytes that it reads and writes, and bytes that cross the link."""

    phase: str
    kind: str
    name: str
    flops: float
    moved: int
    link: int = 0


class OpCosts(TorchDispatchMode):
    """Records every launch on the device that plays the card; `lengths` are the documents over which attention runs."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.phase = ""
        self._squares = sum(length * length for length in lengths) / 2  # causal: half of each square

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = str(function)
        alias = [value.alias_info for value in function._schema.returns]
        if name.startswith(_FREE) or any(info is not None and not info.is_write for info in alias):
            return result
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not any(_on_card(tensor) for tensor in (*read, *made)):
            return result
        moved = _moved(function, args, kwargs, read, made)
        if any(not _on_card(tensor) and tensor.dim() for tensor in (*read, *made)):
            self.ops.append(Op(self.phase, "link", name, 0.0, 0, min(_bytes(t) for t in (*read, *made) if t.dim())))
            return result
        self.ops.append(Op(self.phase, *self._kind(function, name, args), moved))
        return result

    def _kind(self, function: Any, name: str, args: Any) -> tuple[str, str, float]:
        if function in _PRODUCTS:
            a, b = (args[place].shape for place in _PRODUCTS[function])
            batch = a[0] if len(a) == 3 else 1
            flops = 2.0 * batch * a[-2] * a[-1] * b[-1]
            return "adapter product" if min(*a[-2:], b[-1]) <= 256 else "product", name, flops
        if "flash_attention" in name:
            back = "backward" in name
            queries = args[1 if back else 0]
            return "attention", name, 4.0 * queries.shape[1] * queries.shape[2] * self._squares * (2.5 if back else 1)
        if "bitsandbytes" in name or "dequant" in name:
            return "dequantisation", name, 0.0
        return "elementwise", name, 0.0


def _moved(function: Any, args: Any, kwargs: Any, read: list[Tensor], made: list[Tensor]) -> int:
    """Bytes read and written: what is written over counts twice, unless it is only written (`out`, a copy's target)."""
    name = str(function)
    if name.startswith(_LOOKUPS):
        return 2 * sum(map(_bytes, made))
    written, only_written = [], []
    for position, argument in enumerate(function._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if isinstance(value, Tensor) and argument.alias_info is not None and argument.alias_info.is_write:
            (only_written if argument.name == "out" or "copy_" in name or "fill_" in name else written).append(value)
    places = {id(tensor) for tensor in (*written, *only_written)}
    written += [tensor for tensor in only_written if sum(tensor is other for other in read) > 1]  # in place after all
    if kwargs.get("beta") == 0:  # a sum that is begun anew
        only_written, written = only_written + written, []
    only_written = [tensor for tensor in only_written if all(tensor is not other for other in written)]
    inputs = {id(tensor): _bytes(tensor) for tensor in read if id(tensor) not in places}  # given twice, read once
    fresh = sum(_bytes(tensor) for tensor in made if id(tensor) not in places)
    total = sum(inputs.values()) + fresh + 2 * sum(map(_bytes, written)) + sum(map(_bytes, only_written))
    if name.startswith("stilnovo.softmax"):  # the second reading of the logits, not all of which a cache still has
        total += _bytes(args[0])
    if "_flash_attention_backward" in name:  # dq is added up in fp32 and converted, dk and dv of the queries are summed
        queries, keys = args[1], args[2]
        total += queries.numel() * 12 + (8 * queries.numel() if keys.shape[1] != queries.shape[1] else 0)
    return total


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; what is expanded counts once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or size == 1 else 1
    return count * tensor.element_size()


def _on_card(tensor: Tensor) -> bool:
    place = getattr(tensor, "fake_device", None) or tensor.device
    return bool(place.type == "meta")


def step_costs(config: LlamaConfig, levers: Levers, lengths: Sequence[int]) -> list[Op]:
    """The operations of one pass of these documents, forward and backward."""
    tokens = sum(lengths)
    with FakeTensorMode(allow_non_fake_inputs=True), OpCosts(lengths) as costs:
        model = empty_model(config)
        sink = HostAdapter(model) if levers.optimizer_place == "host" else None
        engine = TrainingEngine(model, levers, sink)
        for layer in engine.layers if levers.keep_dense else ():  # made in the first step, and there from then on
            for product in (layer.qkv, layer.o, *layer.gate_up, layer.down):
                product.dense(engine.dtype)
        costs.ops.clear()
        ids = torch.zeros(tokens, dtype=torch.int64, device="meta")
        costs.phase = "forward"
        hidden = engine.hidden(ids, tuple(lengths))
        costs.phase = "loss"
        loss = tiled_losses(hidden, engine.head, ids, levers.loss_chunk).sum()
        costs.phase = "backward"
        loss.backward()  # type: ignore[no-untyped-call]
    return costs.ops
