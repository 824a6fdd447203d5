"""`/api/conversations`: conversations, with streamed answers."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Path, Request, Response
from pydantic import BaseModel, Field

from stilnovo.chat.events import Mode, Notice, TextToken
from stilnovo.library.store import Library
from stilnovo.serve.answering import Answering, Ask
from stilnovo.serve.exporting import KINDS, Format, exported
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.history import LONGEST_TITLE, Conversations, ConversationSummary, Stored, as_dict
from stilnovo.serve.streaming import EventStream, sse
from stilnovo.serve.wire import SamplingFields
from stilnovo.serve.workers import Workers

#: The longest message of a person, and system prompt, in characters.
LONGEST_MESSAGE, LONGEST_SYSTEM = 20_000, 8_000
Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Title = Annotated[str, Body(embed=True, max_length=LONGEST_TITLE)]


class AnswerSettings(BaseModel):
    """Settings of an answer: mode, sampling, system prompt."""

    mode: Mode = "library"
    sampling: SamplingFields = Field(default_factory=SamplingFields)
    system: str = Field("", max_length=LONGEST_SYSTEM)


class Said(AnswerSettings):
    """A message with the settings of its answer."""

    text: str = Field(min_length=1, max_length=LONGEST_MESSAGE)


def router(workers: Workers, answering: Answering) -> APIRouter:
    """Create the routes under `/api/conversations`."""
    routes = APIRouter(prefix="/api/conversations")

    @routes.get("")
    @workers.endpoint
    def listed(library: Library) -> dict[str, Any]:
        return {"conversations": [asdict(summary) for summary in Conversations(library).all()]}

    @routes.post("", status_code=201)
    @workers.endpoint
    def create(library: Library, title: Title = "") -> dict[str, Any]:
        return asdict(Conversations(library).create(title.strip()))

    @routes.get("/{conversation_id}")
    @workers.endpoint
    def conversation(library: Library, conversation_id: Id) -> dict[str, Any]:
        return as_dict(*Conversations(library).whole(conversation_id))

    @routes.patch("/{conversation_id}")
    @workers.endpoint
    def rename(library: Library, conversation_id: Id, title: Title = "") -> dict[str, Any]:
        if not title.strip():
            raise Fault(422, "unusable", "The title is empty.", "title")
        return asdict(Conversations(library).rename(conversation_id, title.strip()))

    @routes.delete("/{conversation_id}", status_code=204)
    @workers.endpoint
    def delete(library: Library, conversation_id: Id) -> None:
        Conversations(library).delete(conversation_id)

    @routes.get("/{conversation_id}/export")
    @workers.endpoint
    def export(
        library: Library,
        conversation_id: Id,
        request: Request,
        format: Format = "markdown",
        language: Literal["it", "en"] = "it",
    ) -> Response:
        heading, messages = Conversations(library).whole(conversation_id)
        suffix, kind = KINDS[format]
        content = exported(heading, messages, format, language, str(request.base_url))
        name = "".join(c if c.isalnum() or c in " -_" else "_" for c in heading.title).strip()[:80] or "stilnovo"
        disposition = f"attachment; filename=\"conversation.{suffix}\"; filename*=UTF-8''{quote(name)}.{suffix}"
        return Response(content, media_type=kind, headers={"Content-Disposition": disposition})

    @routes.post("/{conversation_id}/messages")
    async def say(conversation_id: Id, body: Said) -> EventStream:
        if not body.text.strip():
            raise Fault(422, "unusable", "The message is empty.", "text")
        return await _answer(workers, answering, conversation_id, body.text.strip(), body)

    @routes.post("/{conversation_id}/regenerate")
    async def regenerate(conversation_id: Id, body: AnswerSettings) -> EventStream:
        return await _answer(workers, answering, conversation_id, None, body)

    return routes


async def _answer(
    workers: Workers, answering: Answering, conversation_id: str, message: str | None, settings: AnswerSettings
) -> EventStream:
    if settings.mode not in answering.responder.modes:
        raise Fault(422, "mode", f"The mode {settings.mode!r} needs a model that writes.", "mode")
    ask = Ask("", mode=settings.mode, sampling=settings.sampling.sampling(), system=settings.system.strip())
    begun = time.monotonic()

    # The question is stored before the stream opens: what fails here is an HTTP error, and nothing was begun.
    def begin(library: Library) -> tuple[Ask, Stored, Stored, ConversationSummary]:
        return *answering.begin(library, conversation_id, message, ask), Conversations(library).heading(conversation_id)

    asked, question, answer, heading = await workers.run(begin)
    start = {"question": asdict(question), "answer": asdict(answer), "conversation": asdict(heading)}
    return EventStream(_events(workers, answering, asked, answer, start, begun))


async def _events(
    workers: Workers, answering: Answering, ask: Ask, answer: Stored, start: dict[str, Any], begun: float
) -> AsyncGenerator[str, None]:
    """Stream one answer: start, then the events of `Answering.write`, or `error` when it got no turn."""
    yield sse(start, "start")
    reached = False
    try:
        async with workers.turn():
            reached = True
            async with aclosing(workers.stream(lambda library: answering.write(library, answer, ask, begun))) as events:
                async for event in events:
                    yield _page_event(event)
    except Exception as error:
        fault = fault_of(error)
        await workers.run(lambda library: answering.give_up(library, answer, fault))
        yield sse(fault.error, "error")
    except BaseException:
        if not reached:
            # Gone while waiting for a turn: the queue of quick work says so in the answer's place.
            gone = Fault(499, "stopped", "Stopped before the answer began.")
            workers.later(lambda library: answering.give_up(library, answer, gone))
        raise


def _page_event(event: TextToken | Notice | Stored | Fault) -> str:
    if isinstance(event, TextToken):
        return sse({"text": event.text}, "token")
    if isinstance(event, Notice):
        return sse(event.as_dict(), "notice")
    return sse(event.error, "unsaved") if isinstance(event, Fault) else sse(asdict(event), "done")
