"""Server-sent events, and detection of clients that disconnect before their answer begins.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. JSON holds no line end, so one `data` line is
enough.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stilnovo.serve.faults import Fault

T = TypeVar("T")
#: How often a waiting client is asked whether it is still there.
WATCH_SECONDS = 0.25


def sse(data: object, event: str = "") -> str:
    """Format one server-sent event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """A stream of events that is always closed, so that the generation behind it stops with the client."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; close it at the end, or when the client has gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, cancelled when the client disconnects.

    Raises:
        Fault: it did.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=WATCH_SECONDS))[0]:
            if await request.is_disconnected():
                raise Fault(499, "gone", "The client closed its connection.")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
