"""`/api/conversations`: what the page does with conversations, answers streamed with their quotations."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from stilnovo.library.store import Library
from stilnovo.serve.answer_events import Ask, Mode, Responder, SamplingSettings
from stilnovo.serve.answering import Answering, PageEvent
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.history import LONGEST_TITLE, Conversations
from stilnovo.serve.streaming import EventStream, sse
from stilnovo.serve.transcript import as_json, as_markdown
from stilnovo.serve.workers import Workers

#: The longest message of a person, and system prompt, in characters.
LONGEST_MESSAGE, LONGEST_SYSTEM = 20_000, 8_000
Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class Title(BaseModel):
    """A conversation's title."""

    title: str = Field("", max_length=LONGEST_TITLE)


class Controls(BaseModel):
    """The sampling controls of the page, the report's settings as defaults."""

    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=8192)
    seed: int = Field(default=42, ge=0, lt=2**31)


class AnswerSettings(BaseModel):
    """How an answer is to be made."""

    mode: Mode = "library"
    sampling: Controls = Controls()
    system: str = Field("", max_length=LONGEST_SYSTEM)


class Said(AnswerSettings):
    """A message of the person."""

    text: str = Field(min_length=1, max_length=LONGEST_MESSAGE)


def router(workers: Workers, responder: Responder, answering: Answering) -> APIRouter:
    """The routes under `/api/conversations`."""
    routes = APIRouter(prefix="/api/conversations")

    @routes.get("")
    async def listed() -> dict[str, Any]:
        found = await workers.run(lambda library: Conversations(library).all())
        return {"conversations": [asdict(heading) for heading in found]}

    @routes.post("", status_code=201)
    async def create(body: Title) -> dict[str, Any]:
        return asdict(await workers.run(lambda library: Conversations(library).create(body.title.strip())))

    @routes.get("/{number}")
    async def one(number: Id) -> dict[str, Any]:
        def work(library: Library) -> dict[str, Any]:
            store = Conversations(library)
            return {**asdict(store.heading(number)), "messages": [asdict(m) for m in store.messages(number)]}

        return await workers.run(work)

    @routes.patch("/{number}")
    async def rename(number: Id, body: Title) -> dict[str, Any]:
        if not body.title.strip():
            raise Fault(422, "unusable", "The title is empty.", "title")
        return asdict(await workers.run(lambda library: Conversations(library).rename(number, body.title.strip())))

    @routes.delete("/{number}", status_code=204)
    async def delete(number: Id) -> None:
        await workers.run(lambda library: Conversations(library).delete(number))

    @routes.get("/{number}/export")
    async def export(
        number: Id, format: Literal["markdown", "json"] = "markdown", language: Literal["it", "en"] = "it"
    ) -> Response:
        def work(library: Library) -> tuple[str, str]:
            store = Conversations(library)
            heading, messages = store.heading(number), store.messages(number)
            text = as_json(heading, messages) if format == "json" else as_markdown(heading, messages, language)
            return heading.title, text

        title, text = await workers.run(work)
        suffix, kind = ("json", "application/json") if format == "json" else ("md", "text/markdown; charset=utf-8")
        name = quote("".join(c if c.isalnum() or c in " -_" else "_" for c in title).strip()[:80] or "stilnovo")
        disposition = f"attachment; filename=\"conversation.{suffix}\"; filename*=UTF-8''{name}.{suffix}"
        return Response(text, media_type=kind, headers={"Content-Disposition": disposition})

    async def answer(number: str, message: str | None, settings: AnswerSettings) -> EventStream:
        if settings.mode not in responder.modes:
            raise Fault(422, "mode", f"The mode {settings.mode!r} needs a model that writes.", "mode")
        ask = Ask(
            "",
            mode=settings.mode,
            sampling=SamplingSettings(**settings.sampling.model_dump()),
            system=settings.system.strip(),
        )
        begun = time.monotonic()
        # The question is stored before the stream opens: what fails here is an HTTP error, and nothing was begun.
        asked, start = await workers.run(lambda library: answering.begin(library, number, message, ask))
        return EventStream(_events(workers, answering, asked, start, begun))

    @routes.post("/{number}/messages")
    async def say(number: Id, body: Said) -> EventStream:
        if not body.text.strip():
            raise Fault(422, "unusable", "The message is empty.", "text")
        return await answer(number, body.text.strip(), body)

    @routes.post("/{number}/regenerate")
    async def regenerate(number: Id, body: AnswerSettings) -> EventStream:
        return await answer(number, None, body)

    return routes


async def _events(
    workers: Workers, answering: Answering, ask: Ask, start: PageEvent, begun: float
) -> AsyncGenerator[str, None]:
    """The stream of one answer: start, then as `Answering.write` says, or `error` when no turn was to be had."""
    answer = start[1]["answer"]
    yield sse(start[1], start[0])
    reached = False
    try:
        async with workers.turn():
            reached = True
            pieces = workers.stream(lambda library: answering.write(library, answer, ask, begun))
            async with aclosing(pieces) as open_pieces:
                async for event, data in open_pieces:
                    yield sse(data, event)
    except Exception as error:
        fault = fault_of(error)
        await workers.run(lambda library: answering.give_up(library, answer, fault))
        yield sse(fault.body()["error"], "error")
    except BaseException:
        if not reached:
            # Gone while waiting for a turn: the queue of quick work says so in the answer's place.
            gone = Fault(499, "stopped", "Stopped before the answer began.")
            workers.later(lambda library: answering.give_up(library, answer, gone))
        raise
