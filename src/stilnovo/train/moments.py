"""AdamW's moments in a checkpoint, and their way from one optimizer into another.

torch's AdamW keeps the mean of the gradients and of their squares in fp32. bitsandbytes' keeps them in 8 bits, in blocks of 256
values with a maximum and a table of levels (Dettmers et al. 2022), small parameters in fp32; its paged kind keeps them in memory
that moves between card and host.

Unusual: the kind may change while a run goes on: a leaner plan after an out-of-memory error moves them to the host, where 8-bit
steps are slow; a run is resumed on another device. They are then converted, and the steps go on near where they would have gone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.plan.levers import OPTIMIZER_BLOCK

_WRAPPED = "__bnb_optimizer_quant_state__"  # under which bitsandbytes hides its tensors from FSDP
#: Of both moments: torch's name, and bitsandbytes' names of values, block maxima and levels.
_NAMES = (("exp_avg", "state1", "absmax1", "qmap1"), ("exp_avg_sq", "state2", "absmax2", "qmap2"))


def stored_moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state for a checkpoint, every tensor in host memory."""
    known: dict[int, Tensor] = {}  # tables of levels are shared by all parameters

    def home(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = tensor.cpu()
        return known[id(tensor)]

    state: dict[str, Any] = tree_map_only(Tensor, home, optimizer.state_dict())
    return state


def load_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> str:
    """Load what `stored_moments` or an earlier version stored, whatever kind of AdamW it was.

    Returns what was converted into what, for people; empty where every value is as it was.
    """
    entries = {index: entry | entry.get(_WRAPPED, {}) for index, entry in stored["state"].items()}
    if hasattr(optimizer, "init_state"):  # bitsandbytes'
        found = [_into_blocks(optimizer, index, entry) for index, entry in entries.items()]
        return "from fp32 into 8 bits" if any(found) else ""
    plain = {index: _plain(entry) for index, entry in entries.items()}
    # The groups are the optimizer's own: those of another kind have other entries, and the rate is set at every step.
    optimizer.load_state_dict({"state": plain, "param_groups": optimizer.state_dict()["param_groups"]})
    packed = (entry["state1"].dtype == torch.uint8 for entry in entries.values() if "state1" in entry)
    return "from 8 bits into fp32" if any(packed) else ""


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state as torch's AdamW has it."""
    step = entry["step"]
    step = step if isinstance(step, Tensor) else torch.tensor(float(step))
    return {"step": step, **{names[0]: _values(entry, *names) for names in _NAMES}}


def _values(entry: dict[str, Any], plain: str, packed: str, maxima: str, levels: str) -> Tensor:
    """One moment in fp32."""
    if plain in entry:
        return entry[plain]  # type: ignore[no-any-return]
    if entry[packed].dtype != torch.uint8:
        return entry[packed]  # type: ignore[no-any-return]
    functional = bitsandbytes_functional()
    values: Tensor = functional.dequantize_blockwise(
        entry[packed], absmax=entry[maxima], code=entry[levels], blocksize=OPTIMIZER_BLOCK
    )
    return values


def _into_blocks(optimizer: Any, index: int, entry: dict[str, Any]) -> bool:
    """Fill the state of bitsandbytes' AdamW for its parameter `index`; returns whether values had to be rounded to 8 bits."""
    (group,) = optimizer.param_groups
    parameter = group["params"][index]
    if optimizer.is_paged and any(getattr(value, "is_paged", False) for value in entry.values()):
        # The very memory of the optimizer before: paged memory is never given back, and is not taken twice.
        optimizer.state[parameter] = {
            name: value.to(parameter.device) if isinstance(value, Tensor) and not hasattr(value, "is_paged") else value
            for name, value in entry.items()
            if name != _WRAPPED
        }
        return False
    optimizer.init_state(group, parameter, 0, index)
    state, rounded = optimizer.state[parameter], False
    state["step"] = int(entry["step"])
    for names in _NAMES:
        _, packed, maxima, levels = names
        if state[packed].dtype != torch.uint8:
            state[packed].copy_(_values(entry, *names))
        elif packed in entry and entry[packed].dtype == torch.uint8:
            state[packed].copy_(entry[packed])
            state[maxima].copy_(entry[maxima])
        else:
            values, scales = bitsandbytes_functional().quantize_blockwise(
                _values(entry, *names).float().cpu(), code=state[levels].cpu(), blocksize=OPTIMIZER_BLOCK
            )
            state[packed].copy_(values)
            state[maxima].copy_(scales.absmax)
            rounded = True
    return rounded
