"""A running service for the tests, and writers that behave badly on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from stilnovo.chat.writing import AnswerWriter
from stilnovo.errors import StilnovoError
from stilnovo.io.sample import library_texts
from stilnovo.library.read import read
from stilnovo.library.store import Library
from stilnovo.serve.answering import LibraryResponder
from stilnovo.serve.app import create_app
from stilnovo.serve.openai_api import Embedder
from stilnovo.serve.settings import ServeSettings
from stilnovo.text.template import Message

QUESTION = "Chi ha insegnato a leggere a Tecla?"


def sample_file(folder: Path) -> Path:
    """A library file with the sample in it."""
    path = folder / "library.sqlite"
    with Library.open(path) as library:
        for text in library_texts():
            library.add(read(text))
    return path


@contextmanager
def serving(
    library: Path, writer: AnswerWriter | None = None, embedder: Embedder | None = None, **settings: Any
) -> Iterator[httpx.Client]:
    """The service on a free port of loopback, in a thread; gives a client of it."""
    responder = LibraryResponder(writer, "prova" if writer else "")
    app = create_app(ServeSettings(library, port=0, **settings), responder, embedder)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", lifespan="on", timeout_graceful_shutdown=2, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        assert not thread.is_alive(), "the service did not end"


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """A stream's events as (name, data)."""
    name = "message"
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:] if line == "data: [DONE]" else json.loads(line[6:])
            name = "message"


def begin(client: httpx.Client) -> str:
    """A new conversation's id."""
    response = client.post("/api/conversations", json={})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def say(client: httpx.Client, number: str, text: str, **more: Any) -> list[tuple[str, Any]]:
    """Ask in a conversation; all events of the answer."""
    with client.stream("POST", f"/api/conversations/{number}/messages", json={"text": text, **more}) as response:
        if response.status_code != 200:
            response.read()
        response.raise_for_status()
        return list(events(response))


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


class Scripted:
    """A writer that says its pieces, each after a pause; `after` is raised at the end. Counts words."""

    context_tokens = 4000

    def __init__(self, pieces: Sequence[str], pause: float = 0.0, after: Exception | None = None) -> None:
        self.pieces, self.pause, self.after = pieces, pause, after
        self.said, self.closed, self.running, self.most = 0, 0, 0, 0
        self.seeds: list[int] = []
        self.read: list[list[Message]] = []
        self._lock = threading.Lock()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Any) -> Iterator[str]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.seeds.append(sampling.seed)
        self.read.append(list(messages))
        try:
            for piece in self.pieces:
                time.sleep(self.pause)
                self.said += 1
                yield piece
            if self.after:
                raise self.after
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            with self._lock:
                self.running -= 1


DIED = StilnovoError("Il server ha chiuso la connessione.")
