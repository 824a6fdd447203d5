"""Distributed runs under `torchrun`: rank, sharding and exchange of objects.

Everything is a plain answer for a single process: rank 0 of 1, the whole share, no exchange. Objects are exchanged
through host memory (gloo), which works with cards and without.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = timedelta(days=2)  # one process may still be scoring when another has finished


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Rank of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is rank 0, the process that prints and writes files."""
    return rank() == 0


def start() -> None:
    """Initialise the process group once; each process takes its own GPU where there is one."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=_PATIENCE)


def share(values: Sequence[T]) -> list[T]:
    """Shard `values` (same order in all processes): every n-th belongs to this process."""
    return list(values[rank() :: world_size()])


def gather(value: T) -> list[T]:
    """Gather a picklable value from all processes, ordered by rank, in all of them."""
    if world_size() == 1:
        return [value]
    import torch.distributed as distributed

    start()
    values: list[T | None] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def same(value: T) -> T:
    """Broadcast the value of rank 0."""
    return gather(value if is_first() else None)[0]  # type: ignore[return-value]


def stop() -> None:
    """Wait for all processes and destroy the process group."""
    if world_size() == 1:
        return
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
