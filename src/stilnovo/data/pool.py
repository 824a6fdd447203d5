"""A pool of worker processes that get one block at a time and end with their parent.

Each worker has a pipe of its own: when the parent is gone, even by kill -9, the pipe ends and so does the worker. The
parent holds one block a worker and the next one, whatever the corpus.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from stilnovo.data.work import Record
from stilnovo.errors import StilnovoError
from stilnovo.io.rows import RowBlock

Make = Callable[..., Any]


def run_blocks(blocks: Iterator[RowBlock], processes: int, make: Make, arguments: tuple[Any, ...]) -> Iterator[Record]:
    """Each block's record, in the order in which they are done; `make(*arguments)` is a worker with a method `run`.

    Raises:
        StilnovoError: whatever a worker raised, or when one died.
    """
    if processes == 1:
        yield from map(make(*arguments).run, blocks)
        return
    context = get_context("spawn")  # a forked tokeniser or torch may hang
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            workers[ours] = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            workers[ours].start()
            theirs.close()
        yield from _feed(blocks, list(workers))
    finally:
        for pipe in workers:
            pipe.close()
        for worker in workers.values():
            worker.join(5)
            worker.terminate()  # one that has ended is left alone


def _feed(blocks: Iterator[RowBlock], pipes: list[Connection]) -> Iterator[Record]:
    following = next(blocks, None)  # read while the workers are busy
    busy: list[Any] = []
    idle: list[Any] = list(pipes)
    while busy or following is not None:
        while idle and following is not None:
            busy.append(idle.pop())
            busy[-1].send(following)
            following = next(blocks, None)
        for pipe in cast("list[Any]", wait(busy)):
            busy.remove(pipe)
            idle.append(pipe)
            try:
                answer = pipe.recv()
            except EOFError as error:
                raise StilnovoError(
                    "A worker process died.", "Perhaps the machine ran out of memory.",
                    "Run the same command again, with fewer --processes: it goes on where it stopped.",
                ) from error  # fmt: skip
            if not isinstance(answer, Record):
                raise answer
            yield answer


def _serve(pipe: Connection, make: Make, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    worker = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            block = pipe.recv()
            try:
                worker = worker or make(*arguments)
                pipe.send(worker.run(block))
            except StilnovoError as error:
                pipe.send(error)
            except Exception as error:  # others may not survive the way between processes
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
