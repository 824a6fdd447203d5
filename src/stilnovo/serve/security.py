"""Security middleware: authentication, host and origin checks, body limits, security headers.

* On loopback the Host header must name loopback, so that a foreign page cannot reach the service by rebinding its own
  name to 127.0.0.1. Requests that change something must not come from another origin.
* With a token, everything but the page's own files, its login and `/health` asks for it: as `Authorization: Bearer`,
  or as the cookie that the page gets for it (a keyed digest, not the token). Comparisons take constant time.
* A body is counted as it comes, whatever its Content-Length says.

Plain ASGI, because a wrapper around streaming answers must neither buffer them nor hide that the client has gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stilnovo.serve.faults import Fault
from stilnovo.serve.metrics import Metrics
from stilnovo.serve.settings import MEBIBYTE, ServeSettings, is_loopback

COOKIE = "stilnovo_session"
#: Paths that take files.
UPLOAD_PATHS = ("/api/uploads", "/api/quotes")
#: A body that is not an upload must have arrived within this time.
BODY_SECONDS = 30
_OPEN = ("/", "/health", "/api/session")
_SAFE = ("GET", "HEAD", "OPTIONS")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def session(token: str) -> str:
    """Compute the page's session cookie: a keyed digest of the token."""
    return hmac.new(token.encode(), b"stilnovo page", hashlib.sha256).hexdigest()


def same(given: str, wanted: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


class Door:
    """The outermost ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def carrying(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                cache = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                for name, value in {**HEADERS, "cache-control": cache}.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(Request(scope))
            await self._app(scope, await self._bounded(scope, receive), carrying)
        except Fault as fault:
            # What is left of a body that is too large or too slow is not read: the connection ends here.
            ending = {"Connection": "close"} if fault.status in (408, 413) else {}
            refusal = JSONResponse({"error": fault.error}, fault.status, headers={**fault.headers, **ending})
            await refusal(scope, receive, carrying)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count("stilnovo_requests_total", route=route, method=scope["method"], status=str(status))

    def _check(self, request: Request) -> None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin", "")
        names, name = self._settings.hosts, ""
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
        wrong = not is_loopback(name) if is_loopback(self._settings.host) else bool(names)
        if wrong and "*" not in names and name not in names:
            raise Fault(421, "wrong_host", f"The host {host[:80]!r} is not allowed; allow it with --allow-host.")
        foreign = (origin and urlsplit(origin).netloc != host) or request.headers.get("sec-fetch-site") == "cross-site"
        if request.method not in _SAFE and foreign and origin not in self._settings.origins:
            raise Fault(
                403, "foreign_origin", "Cross-origin requests are refused; allow the origin with --allow-origin."
            )
        path, token = request.scope["path"], self._settings.token
        if not token or request.method == "OPTIONS" or path in _OPEN or path.startswith("/static/"):
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer" and same(given.strip(), token)
        if not bearer and not same(request.cookies.get(COOKIE, ""), session(token)):
            raise Fault(401, "token", "This service requires its token.")

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Wrap a body reader with limits: an upload is counted while it is read, any other body is read here at once."""
        upload = scope["path"] in UPLOAD_PATHS
        # Around an upload's file stands a little of multipart's own.
        limit = self._settings.upload_bytes + MEBIBYTE if upload else self._settings.body_bytes
        too_large = Fault(413, "too_large", f"The request is larger than {limit // MEBIBYTE} MB.")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > limit:
                    raise too_large
            return message

        if upload or scope["method"] in _SAFE:
            return counted
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await Request(scope, counted).body()
        except TimeoutError:
            raise Fault(408, "slow", f"The request did not arrive within {BODY_SECONDS} s.") from None
        except ClientDisconnect:
            raise Fault(499, "gone", "The client closed its connection.") from None
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return whole.pop() if whole else await receive()

        return read
