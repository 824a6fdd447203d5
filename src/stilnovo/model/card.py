"""A CUDA card before its first use, and steps on it that repeat to the last bit.

**Segments that grow.** torch's allocator takes memory in blocks and cuts them up; what a step frees in one size it asks for in
another, and on an 8 GB card the pieces that fit nothing any more are the difference between a plan that holds and one that does
not. Its expandable segments map more pages behind a block instead. They must be chosen before the first allocation. Windows has
none, and under WSL the driver may fail at the first allocation with them (pytorch issue 192330), so there it stays as it is; so
it does where the user has chosen the allocator's settings.

**Repeating.** Flash attention's backward adds the queries' gradients with atomics, whose order no two runs share. torch's
deterministic mode gives each block of keys its own sum, added up in order at the end, and refuses whatever else would differ.

Unusual: the settings go to torch, not into its environment variable: versions 2.9 and 2.10 read `expandable_segments` only from
a name of which they warn that it is deprecated.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from stilnovo.errors import InputError

SEGMENTS = "expandable_segments:True"
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_SETTERS = ("_accelerator_setAllocatorSettings", "_cuda_setAllocatorSettings")  # by age, the newest first
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_REPEATING = (":4096:8", ":16:8")  # with which cuBLAS repeats its sums


def segments_wanted() -> bool:
    """Whether expandable segments can be had here, and nobody has chosen the allocator's settings."""
    chosen = any(os.environ.get(name) for name in _ALLOCATOR)
    return not chosen and sys.platform == "linux" and "microsoft" not in platform.release().lower()


@cache
def prepare() -> None:
    """Set up torch's allocator for a card; to be called before its first use, once a process."""
    setter = next((getattr(torch._C, name) for name in _SETTERS if hasattr(torch._C, name)), None)
    if setter is None or torch.cuda.is_initialized() or not segments_wanted():  # type: ignore[no-untyped-call]
        return
    try:
        setter(SEGMENTS)
    except (RuntimeError, ValueError) as error:  # the plan's reserve for fragments is there all the same
        logging.getLogger(__name__).debug("No expandable segments: %s", error)


def prepare_repeating() -> None:
    """Set up cuBLAS for steps that repeat; to be called before the first product on a card.

    Raises:
        InputError: when the environment has chosen otherwise.
    """
    chosen = os.environ.setdefault(_CUBLAS, _REPEATING[0])
    if chosen not in _REPEATING:
        raise InputError(
            f"train.deterministic needs {_CUBLAS} to be {' or '.join(_REPEATING)}.", f"Found: {chosen!r}.", "Unset it."
        )


@contextmanager
def repeating(wanted: bool) -> Iterator[None]:
    """Context manager: what is computed in it on a card is the same to the last bit each time, where that is wanted."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        torch.use_deterministic_algorithms(True)
        # Memory that nobody has written yet is not read here: it need not be filled.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
