"""From settings to a running server, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from stilnovo.errors import InputError
from stilnovo.library.embedders import Embedder
from stilnovo.serve.app import create_app
from stilnovo.serve.responder import LibraryResponder
from stilnovo.serve.settings import ServeSettings

#: Connections beyond this are refused at once, so that a flood cannot use up the machine's memory.
CONNECTIONS_AT_MOST = 512
GRACE_SECONDS = 5


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise InputError(
            f"Cannot listen on {settings.host}, port {settings.port}.",
            str(error.strerror),
            "Is another service running there? Choose another with --port, or --port 0 for a free one.",
        ) from error
    return listening


def serve(
    settings: ServeSettings, responder: LibraryResponder, embedder: Embedder | None, started: Callable[[str], None]
) -> None:
    """Serve until interrupted; `started` is told the page's address once the port is open."""
    app = create_app(settings, responder, embedder)
    with _listen(settings) as listening:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_AT_MOST,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="on",
        )
        started(f"http://{host}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])
