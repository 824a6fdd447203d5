"""`/v1`: the service as any OpenAI client sees it."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from stilnovo.library.embedders import Embedder
from stilnovo.library.store import Library
from stilnovo.serve.answer_events import MODEL_OF, AnswerDone, Ask, Event, Responder, TextToken
from stilnovo.serve.answering import counted, events_of
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.metrics import Metrics
from stilnovo.serve.streaming import EventStream, sse, while_connected
from stilnovo.serve.wire import Answered, ChatRequest, Cut
from stilnovo.serve.workers import Workers

#: Texts of one embedding request, and characters of each.
INPUTS_AT_MOST, INPUT_CHARACTERS = 256, 100_000


class EmbeddingRequest(BaseModel):
    """A request for vectors. `input_type` is this service's own: models may see questions otherwise than passages."""

    model: str
    input: str | list[str] = Field(min_length=1)
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["passage", "query"] = "passage"
    dimensions: int | None = None


def router(workers: Workers, responder: Responder, metrics: Metrics, embedder: Embedder | None) -> APIRouter:
    """The routes under `/v1`."""
    routes = APIRouter(prefix="/v1")
    created = int(time.time())

    def models() -> list[dict[str, Any]]:
        names = [MODEL_OF[mode] for mode in responder.modes] + ([embedder.name] if embedder else [])
        return [{"id": name, "object": "model", "created": created, "owned_by": "stilnovo"} for name in names]

    @routes.get("/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": models()}

    @routes.get("/models/{name:path}")
    def one_model(name: str) -> dict[str, Any]:
        found = next((model for model in models() if model["id"] == name), None)
        if found is None:
            raise Fault(404, "model_not_found", f"The model {name[:80]!r} does not exist.", "model")
        return found

    async def events(ask: Ask) -> AsyncGenerator[Event, None]:
        begun = time.monotonic()

        def work(library: Library) -> Generator[Event, None, None]:
            return counted(events_of(responder, library, ask), ask, metrics, begun)

        async with workers.turn(), aclosing(workers.stream(work)) as pieces:
            async for event in pieces:
                yield event

    @routes.post("/chat/completions")
    async def complete(request: Request, body: ChatRequest) -> Response:
        body.checked(responder.modes)
        ask = body.ask()
        if not body.stream:
            return JSONResponse(await while_connected(request, _whole(events(ask), ask, Answered(body.model))))
        source = events(ask)
        try:
            # What fails before the first word is an HTTP error; afterwards it can only be an event.
            first = await while_connected(request, anext(source))
        except BaseException:
            await source.aclose()
            raise
        usage = body.stream_options is not None and body.stream_options.include_usage
        return EventStream(_pieces(first, source, ask, Answered(body.model), usage))

    @routes.post("/embeddings")
    async def embed(body: EmbeddingRequest) -> dict[str, Any]:
        if embedder is None:
            raise Fault(
                404, "model_not_found", "This service has no embedding model; start it with --embedder.", "model"
            )
        if body.model != embedder.name:
            raise Fault(404, "model_not_found", f"Offered: {embedder.name}.", "model")
        texts = [body.input] if isinstance(body.input, str) else body.input
        if len(texts) > INPUTS_AT_MOST or any(not text or len(text) > INPUT_CHARACTERS for text in texts):
            raise Fault(400, "invalid_value", f"At most {INPUTS_AT_MOST} texts, none empty or very long.", "input")

        def vectors_of(_: Library) -> list[list[float]]:
            if body.input_type == "query":
                return [embedder.query(text).tolist() for text in texts]
            found: list[list[float]] = embedder.passages(texts).tolist()
            return found

        vectors = await workers.run(vectors_of)
        if body.dimensions not in (None, len(vectors[0])):
            raise Fault(400, "unsupported", f"The vectors have {len(vectors[0])} dimensions.", "dimensions")
        written = _base64 if body.encoding_format == "base64" else list
        data = [{"object": "embedding", "index": i, "embedding": written(v)} for i, v in enumerate(vectors)]
        read = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": read, "total_tokens": read}
        return {"object": "list", "data": data, "model": embedder.name, "usage": usage}

    return routes


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients read them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


async def _whole(events: AsyncGenerator[Event, None], ask: Ask, answered: Answered) -> dict[str, Any]:
    done: AnswerDone | None = None
    async with aclosing(events) as open_events:
        async for event in open_events:
            done = event if isinstance(event, AnswerDone) else done
    if done is None:
        raise Fault(502, "model_failed", "The answer ended without an end.")
    if done.failure:
        raise Fault(502, "model_failed", done.failure)
    cut = Cut(ask.sampling.stop)
    return answered.completion(cut.feed(done.text) + cut.rest(), done)


async def _pieces(
    first: Event, rest: AsyncGenerator[Event, None], ask: Ask, answered: Answered, usage: bool
) -> AsyncGenerator[str, None]:
    """The events of one streamed answer."""
    cut = Cut(ask.sampling.stop)
    write: Callable[..., str] = lambda *delta, **more: sse(answered.chunk(*delta, **more))  # noqa: E731
    yield write({"role": "assistant", "content": ""})
    try:
        async with aclosing(rest) as open_rest:
            event: Event | None = first
            while event is not None:
                if isinstance(event, TextToken):
                    if piece := cut.feed(event.text):
                        yield write({"content": piece})
                elif isinstance(event, AnswerDone):
                    if piece := cut.rest():
                        yield write({"content": piece})
                    if event.failure:
                        raise Fault(502, "model_failed", event.failure)
                    more = {"stilnovo": {"kind": event.kind, "citations": list(event.citations)}}
                    yield write({}, "stop" if cut.ended else event.reason, **more)
                    if usage:
                        yield sse(answered.usage_chunk(event))
                event = await anext(open_rest, None)
    except Exception as error:
        yield sse(fault_of(error).body())
        return
    yield "data: [DONE]\n\n"
