"""Several processes of one command, as `torchrun` starts them: who am I, what is my share, what did the others find.

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
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return rank() == 0


def start() -> None:
    """Meet the other processes, once; each takes a card of its own where there are cards."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=_PATIENCE)


def share(values: Sequence[T]) -> list[T]:
    """This process's part of `values`, which all processes have in the same order: every n-th."""
    return list(values[rank() :: world_size()])


def gather(value: T) -> list[T]:
    """What every process has, in the order of their ranks, for all of them. The value is pickled."""
    if world_size() == 1:
        return [value]
    import torch.distributed as distributed

    start()
    found: list[T | None] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found  # type: ignore[return-value]


def same(value: T) -> T:
    """The first process's value, for all of them."""
    if world_size() == 1:
        return value
    import torch.distributed as distributed

    start()
    box: list[T] = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def stop() -> None:
    """Part from the others, so that no process ends while another waits for it."""
    if world_size() == 1:
        return
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
