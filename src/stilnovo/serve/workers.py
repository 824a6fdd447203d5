"""Worker threads with one library connection each, and a bounded queue for answers.

An SQLite connection belongs to one thread, so every worker opens its own and keeps it. Three groups share the work: a few
quick ones (lists, chapters, uploads), as many writers as answers may be written at once, and one that makes vectors; a
long answer never keeps the page from listing conversations. Who finds all writers busy waits in a
bounded queue, first come first served; who finds that full too is told when to come back.

A client that goes away closes its stream: the worker sees it at the next piece, closes the generator and is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from stilnovo.library import embedding
from stilnovo.library.embedders import Embedder, Reranker
from stilnovo.library.store import Library
from stilnovo.serve.faults import Fault
from stilnovo.serve.settings import ServeSettings

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[Library], Any]]
QUICK_WORKERS = 4
#: A locked database is waited for this long.
BUSY_MILLISECONDS = 4000
#: What a client that was sent away is told to wait.
RETRY_SECONDS = 5
log = logging.getLogger("stilnovo.serve")


def _opened(path: Path, embedder: Embedder | None, reranker: Reranker | None) -> Library:
    """Open a worker's library connection; it sees changes made by other connections."""
    library = Library.open(path)
    library.connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    library.embedder, library.reranker = embedder, reranker
    return library


def _done(job: _Job, library: Library | None, opened: Callable[[], Library]) -> Library | None:
    """Do one piece of work; returns the thread's library, opened if it was not."""
    future, work = job
    if future.set_running_or_notify_cancel():
        try:
            library = library or opened()
            future.set_result(work(library))
        except BaseException as error:
            future.set_exception(error)
    return library


class Group:
    """A thread pool with one library connection per thread, and its queue."""

    def __init__(self, name: str, size: int, opened: Callable[[], Library]) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(opened,), name=f"{name}-{i}", daemon=True) for i in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, opened: Callable[[], Library]) -> None:
        library: Library | None = None
        # Ready before the first question; what is wrong is told to the first client.
        job: _Job | None = (Future(), Library.catch_up)
        while job is not None:
            library = _done(job, library, opened)
            job = None  # one that failed keeps what its work held, a model's cache say, as long as this thread knows it
            job = self._jobs.get()
        if library is not None:
            library.close()

    def submit(self, work: Callable[[Library], T]) -> Future[T]:
        """Queue a piece of work with a library."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future

    def close(self) -> None:
        """Finish the queued work and end the threads; give up on one that hangs."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10)


class _ClosingError(Exception):
    """The service ends."""


class Workers:
    """The thread pools of one service. Its coroutines belong to one event loop."""

    def __init__(
        self, settings: ServeSettings, embedder: Embedder | None = None, reranker: Reranker | None = None
    ) -> None:
        def opened() -> Library:
            return _opened(settings.library, embedder, reranker)

        self._quick = Group("quick", QUICK_WORKERS, opened)
        self._writing = Group("writer", settings.answers, opened)
        self._vectors = None if embedder is None else Group("vectors", 1, opened)
        self._closing = threading.Event()
        self._turns = asyncio.Semaphore(settings.answers)
        self._room = settings.waiting
        self.waiting = self.running = 0

    def close(self) -> None:
        """End all threads; vectors that are made are stored, the others made another time."""
        self._closing.set()
        for group in (self._quick, self._writing, self._vectors):
            if group is not None:
                group.close()

    async def run(self, work: Callable[[Library], T]) -> T:
        """Run a quick function with a library, in a thread."""
        return await asyncio.wrap_future(self._quick.submit(work))

    def endpoint(self, function: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
        """Wrap a quick function of a library and the request's parameters as a route's endpoint."""

        async def endpoint(**given: Any) -> T:
            return await self.run(lambda library: function(library, **given))

        signature = inspect.signature(function, eval_str=True)
        _, *parameters = signature.parameters.values()
        endpoint.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return endpoint

    def later(self, work: Callable[[Library], object]) -> None:
        """Fire-and-forget work; exceptions are suppressed."""
        self._quick.submit(work)

    def embed(self) -> None:
        """Make what vectors are missing, in a thread of their own, where there is an embedding model; exceptions are logged."""

        def work(library: Library) -> None:
            try:
                embedding.embed(library, self._go_on)
            except _ClosingError:
                log.info("The service ends: the vectors that are missing are made another time.")
            except Exception:
                log.exception("Vectors could not be made: passages are found by their words.")

        if self._vectors is not None:
            self._vectors.submit(work)

    def _go_on(self, _done: int, _total: int) -> None:
        if self._closing.is_set():
            raise _ClosingError

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn to write an answer.

        Raises:
            Fault: 503 when too many wait already.
        """
        if self._turns.locked() and self.waiting >= self._room:
            raise Fault(
                503, "busy", f"All writers are busy and {self.waiting} clients wait.", retry_after=RETRY_SECONDS
            )
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()

    async def stream(self, work: Callable[[Library], Generator[T, None, None]]) -> AsyncGenerator[T, None]:
        """Iterate a generator that runs in a writer's thread; use it inside `turn`. Closing this closes the generator."""
        loop, stopped = asyncio.get_running_loop(), threading.Event()
        pieces: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

        def put(piece: tuple[T] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no client is left
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def job(library: Library) -> None:
            with contextlib.closing(work(library)) as generator:
                for piece in generator:
                    if stopped.is_set():
                        break
                    put((piece,))

        future = self._writing.submit(job)
        future.add_done_callback(lambda _: put(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece[0]
            future.result()
        finally:
            stopped.set()
