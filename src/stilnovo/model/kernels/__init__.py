"""Triton kernels of the training step, for CUDA only; each must equal its torch counterpart.

`operators.py` declares them to torch (`torch.ops.stilnovo.…`), the other files hold them. Triton comes with torch's CUDA
builds and with nothing else, so it is imported when a kernel is first called. Here alone is decided where kernels are used.
Unusual: shapes without storage can use them too (a plan's arithmetic), and so can a CPU under Triton's interpreter
(TRITON_INTERPRET=1), which tests every kernel without a card.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stilnovo.errors import InputError
from stilnovo.model.kernels import remembered
from stilnovo.model.kernels.remembered import Parity

SWITCH = "STILNOVO_KERNELS"


def wanted(device: torch.device) -> bool:
    """Whether kernels are used for tensors on `device`.

    STILNOVO_KERNELS=1 and 0 decide. Where it is not set they are used on a card on which they were tried and agreed with torch;
    the first process that asks tries them. Shapes without storage use them only where they are asked for.

    Raises:
        InputError: when the variable is set to anything else.
    """
    return _decided(os.environ.get(SWITCH, ""), device)


@functools.cache
def _decided(switch: str, device: torch.device) -> bool:
    if switch not in ("", "0", "1"):
        raise InputError(f"{SWITCH} is {switch!r}.", "1 switches the Triton kernels on, 0 off.")
    if switch:
        return switch == "1" and available(device)
    if device.type != "cuda" or not torch.cuda.is_available() or not installed():
        return False
    return remembered.agreed(device)


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """Context manager: kernels on or off in this process, whatever `STILNOVO_KERNELS` says: for comparisons."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def tried_again(device: torch.device) -> Parity:
    """Try the kernels on a card now, whatever was remembered of it; `wanted` goes by the new outcome."""
    _decided.cache_clear()
    return remembered.trial(device)


def available(device: torch.device) -> bool:
    """Whether kernels can be called for tensors on `device`, which need not be real."""
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and installed()
    if device.type == "cuda":  # without a card, tensors that say so are shapes alone
        return installed() or not torch.cuda.is_available()
    return device.type == "meta"


def installed() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None
