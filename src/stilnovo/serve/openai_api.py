"""`/v1`: the OpenAI-compatible API."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from stilnovo.chat.events import Answer, Event
from stilnovo.library.embedders import Embedder
from stilnovo.serve.answering import MODEL_OF, Answering, Ask
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.streaming import EventStream, sse, while_connected
from stilnovo.serve.wire import Answered, ChatRequest
from stilnovo.serve.workers import Workers

#: Texts of one embedding request, and characters of each.
INPUTS_AT_MOST, INPUT_CHARACTERS = 256, 100_000


class EmbeddingRequest(BaseModel):
    """A request for embeddings; `input_type`, an extension, tells queries from passages."""

    model: str
    input: str | list[str] = Field(min_length=1)
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["passage", "query"] = "passage"
    dimensions: int | None = None


def router(workers: Workers, answering: Answering, embedder: Embedder | None) -> APIRouter:
    """Create the routes under `/v1`."""
    routes = APIRouter(prefix="/v1")
    modes, created = answering.responder.modes, int(time.time())
    models = {
        name: {"id": name, "object": "model", "created": created, "owned_by": "stilnovo"}
        for name in (*(MODEL_OF[mode] for mode in modes), *([embedder.name] if embedder else []))
    }

    @routes.get("/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(models.values())}

    @routes.get("/models/{name:path}")
    def one_model(name: str) -> dict[str, Any]:
        if name not in models:
            raise Fault(404, "model_not_found", f"The model {name[:80]!r} does not exist.", "model")
        return models[name]

    async def events(ask: Ask) -> AsyncGenerator[Event, None]:
        begun = time.monotonic()
        stream = workers.stream(lambda library: answering.events(library, ask, begun))
        async with workers.turn(), aclosing(stream) as open_stream:
            async for event in open_stream:
                yield event

    @routes.post("/chat/completions")
    async def complete(request: Request, body: ChatRequest) -> Response:
        body.checked(modes)
        source = events(body.ask())
        answered = Answered(body.model, body.stop, bool((body.stream_options or {}).get("include_usage")))
        if not body.stream:
            return JSONResponse(answered.completion(await while_connected(request, _last(source))))
        try:
            # What fails before the first word is an HTTP error; afterwards it can only be an event.
            first = await while_connected(request, anext(source))
        except BaseException:
            await source.aclose()
            raise
        return EventStream(_pieces(first, source, answered))

    _embeddings(routes, workers, embedder)
    return routes


def _embeddings(routes: APIRouter, workers: Workers, embedder: Embedder | None) -> None:
    @routes.post("/embeddings")
    async def embed(body: EmbeddingRequest) -> dict[str, Any]:
        if embedder is None or body.model != embedder.name:
            offered = f"Offered: {embedder.name}." if embedder else "No embedding model here; start with --embedder."
            raise Fault(404, "model_not_found", offered, "model")
        texts = [body.input] if isinstance(body.input, str) else body.input
        if len(texts) > INPUTS_AT_MOST or any(not text or len(text) > INPUT_CHARACTERS for text in texts):
            raise Fault(400, "invalid_value", f"At most {INPUTS_AT_MOST} texts, none empty or very long.", "input")
        asked = body.input_type == "query"  # models may embed questions otherwise than passages
        vectors = await workers.run(
            lambda _: [embedder.query(text) for text in texts] if asked else list(embedder.passages(texts))
        )
        if body.dimensions not in (None, len(vectors[0])):
            raise Fault(400, "unsupported", f"The vectors have {len(vectors[0])} dimensions.", "dimensions")
        # In base64 as OpenAI's clients read it: little-endian 32-bit floats.
        written = [
            base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
            if body.encoding_format == "base64"
            else vector.tolist()
            for vector in vectors
        ]
        data = [{"object": "embedding", "index": i, "embedding": value} for i, value in enumerate(written)]
        usage = dict.fromkeys(("prompt_tokens", "total_tokens"), sum(len(text.split()) for text in texts))
        return {"object": "list", "data": data, "model": embedder.name, "usage": usage}


async def _last(events: AsyncGenerator[Event, None]) -> Answer:
    async with aclosing(events) as open_events:
        *_, answer = [event async for event in open_events]
    assert isinstance(answer, Answer), "the generation finished without an answer"
    return answer


async def _pieces(first: Event, rest: AsyncGenerator[Event, None], answered: Answered) -> AsyncGenerator[str, None]:
    """Iterate over the server-sent events of one streamed answer."""
    yield sse(answered.chunk({"role": "assistant", "content": ""}))
    try:
        async with aclosing(rest) as open_rest:
            event: Event | None = first
            while event is not None:
                for chunk in answered.chunks(event):
                    yield sse(chunk)
                event = await anext(open_rest, None)
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield sse({"error": fault_of(error).error})
