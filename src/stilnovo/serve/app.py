"""The ASGI application, its routes, and the server that runs it.

Made by `create_app` from settings and a responder, so that tests and other programs can run it with their own.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library import embedding
from stilnovo.library.embedders import Embedder, Reranker
from stilnovo.library.read import SUFFIXES
from stilnovo.library.store import Library
from stilnovo.serve import library_api, openai_api, quotes_api, study_api, talk_api
from stilnovo.serve.answering import Answering, LibraryResponder
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.history import Conversations
from stilnovo.serve.metrics import CONTENT_TYPE, Metrics
from stilnovo.serve.security import COOKIE, Door, same, session
from stilnovo.serve.settings import ServeSettings
from stilnovo.serve.uploads import Uploads
from stilnovo.serve.workers import Workers

STATIC = Path(__file__).parent / "static"
log = logging.getLogger("stilnovo.serve")
#: Connections beyond this are refused at once, so that a flood cannot use up the machine's memory.
CONNECTIONS_AT_MOST = 512
GRACE_SECONDS = 5


def create_app(
    settings: ServeSettings,
    responder: LibraryResponder,
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
) -> FastAPI:
    """Create the service as an ASGI application.

    Args:
        settings: Where, for whom, how much.
        responder: Who answers.
        embedder: Who makes vectors, if anybody: for the search beside the words, and for `/v1/embeddings`. What is
            missing of them is made while the service runs.
        reranker: Who reorders the passages found, if anybody.

    Raises:
        StilnovoError: the library file cannot be opened or written.
    """
    with Library.open(settings.library) as library:
        Conversations(library).prepare()
        library.catch_up()  # the first question must not wait for the index
    uploads = Uploads(settings.library, settings.upload_bytes)
    uploads.clear()
    metrics, workers = Metrics(), Workers(settings, embedder, reranker)
    answering = Answering(responder, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        workers.embed()
        yield
        workers.close()
        uploads.clear()

    # No interactive documentation: its page would load scripts from elsewhere.
    app = FastAPI(title="stilnovo", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(openai_api.router(workers, answering, embedder))
    app.include_router(talk_api.router(workers, answering))
    app.include_router(library_api.router(workers, uploads))
    app.include_router(quotes_api.router(workers, settings))
    app.include_router(study_api.router(workers))
    _own_routes(app, settings, responder, workers, metrics)
    for kind in (Fault, RequestValidationError, HTTPException, StilnovoError, OSError, MemoryError, Exception):
        app.add_exception_handler(kind, _shown)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Door, settings=settings, metrics=metrics)
    return app


def _own_routes(
    app: FastAPI, settings: ServeSettings, responder: LibraryResponder, workers: Workers, metrics: Metrics
) -> None:
    """Routes of the page, the login, and monitoring."""

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/health")
    @workers.endpoint
    def health(library: Library) -> dict[str, Any]:
        library.connection.execute("SELECT 1").fetchone()
        return {"status": "ok", "version": version("stilnovo")}

    @app.get("/metrics")
    def measured() -> PlainTextResponse:
        return PlainTextResponse(
            metrics.text(answers_running=workers.running, answers_waiting=workers.waiting), media_type=CONTENT_TYPE
        )

    @app.get("/api/state")
    @workers.endpoint
    def state(library: Library) -> dict[str, Any]:
        return {
            "version": version("stilnovo"),
            "modes": responder.modes,
            "writer": responder.writer_name,
            "works": len(library.works()),
            **_meaning(library),
            "kinds": sorted(SUFFIXES),
            "upload_megabytes": settings.upload_bytes >> 20,
            "locked": bool(settings.token),
        }

    @app.post("/api/session", status_code=204)
    async def log_in(
        request: Request, response: Response, token: Annotated[str, Body(embed=True, max_length=1000)]
    ) -> None:
        if not settings.token or not same(token.strip(), settings.token):
            raise Fault(401, "token", "That is not this service's token.")
        response.set_cookie(
            COOKIE, session(settings.token), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )

    @app.delete("/api/session", status_code=204)
    async def log_out(response: Response) -> None:
        response.delete_cookie(COOKIE)


def _meaning(library: Library) -> dict[str, Any]:
    """How many passages there are and can be found by meaning, and whether more are being made so."""
    model = library.searching()
    vectors, passages = library.embedded(model.name if model else "")
    return {"passages": passages, "embedded": vectors, "embedding_runs": embedding.is_running(library.path)}


async def _shown(_: Request, error: Exception) -> JSONResponse:
    """Show every error in OpenAI's shape, the web framework's own included."""
    fault = fault_of(error)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or None
        fault = Fault(400, "invalid_value", f"{field or 'The request'}: {first['msg']}.", field)
    elif isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        fault = Fault(error.status_code, code, str(error.detail))
    elif fault.code == "internal":
        log.error("A request failed.", exc_info=error)
    return JSONResponse({"error": fault.error}, fault.status, headers=fault.headers)


def _listen(settings: ServeSettings) -> socket.socket:
    ipv6 = ":" in settings.host
    try:
        return socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise InputError(
            f"Cannot listen on {settings.host}, port {settings.port}.",
            str(error.strerror),
            "Is another service running there? Choose another with --port, or --port 0 for a free one.",
        ) from error


def check_address(settings: ServeSettings) -> None:
    """Check that the service could listen where the settings say, before anything is loaded for it.

    Raises:
        InputError: another service does, or the address is not this machine's.
    """
    _listen(settings).close()


def serve(
    settings: ServeSettings,
    responder: LibraryResponder,
    embedder: Embedder | None,
    started: Callable[[str], None],
    reranker: Reranker | None = None,
) -> None:
    """Serve until interrupted; `started` is told the page's address once the port is open."""
    app = create_app(settings, responder, embedder, reranker)
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
