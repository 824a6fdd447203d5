"""`/api/quotes`: check the quotations of a text or a file against the library. Nothing of it is stored."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from stilnovo.chat.essay import TEXT_AT_MOST, check_text, counts
from stilnovo.chat.essay_text import EssayText, read_essay
from stilnovo.library.store import Library
from stilnovo.serve.faults import Fault
from stilnovo.serve.settings import MEBIBYTE, ServeSettings
from stilnovo.serve.uploads import clean_name, read_within, sent_file
from stilnovo.serve.workers import Workers

#: Bytes of a file; an essay with pictures has some.
FILE_BYTES = 20 * MEBIBYTE


def router(workers: Workers, settings: ServeSettings) -> APIRouter:
    """Create the route."""
    routes = APIRouter(prefix="/api")
    limit = min(FILE_BYTES, settings.upload_bytes)

    @routes.post("/quotes")
    async def quotes(request: Request) -> dict[str, Any]:
        """Check a text (JSON, `text`) or a file (a form, `file`); waits for its turn like an answer."""
        form = request.headers.get("content-type", "").startswith("multipart/form-data")
        name, data = await _file(request, limit) if form else ("", await _text(request))

        def work(library: Library) -> Generator[dict[str, Any], None, None]:
            essay = read_essay(data, name) if isinstance(data, bytes) else EssayText(name, data)
            yield _checked(library, essay)

        async with workers.turn(), aclosing(workers.stream(work)) as pieces:
            async for piece in pieces:
                return piece
        raise Fault(500, "internal", "The check gave no result.")

    return routes


async def _file(request: Request, limit: int) -> tuple[str, bytes]:
    async with request.form(max_files=1, max_fields=4) as form:
        file = sent_file(form)
        return clean_name(file.filename or ""), await run_in_threadpool(read_within, file.file, limit)


async def _text(request: Request) -> str:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > 8 * TEXT_AT_MOST:  # JSON may write a letter in six characters, or more
            raise Fault(413, "too_large", f"A text has at most {TEXT_AT_MOST:,} characters.", "text")
    try:
        text = json.loads(body)["text"]
    except (ValueError, TypeError, KeyError):
        text = None
    if not isinstance(text, str):
        raise Fault(
            422, "invalid_value", "The request must be a JSON object with a 'text', or a form with a 'file'.", "text"
        )
    if not text.strip():
        raise Fault(422, "unusable", "The text is empty.", "text")
    if len(text) > TEXT_AT_MOST:
        raise Fault(413, "too_large", f"A text has at most {TEXT_AT_MOST:,} characters.", "text")
    return text


def _checked(library: Library, essay: EssayText) -> dict[str, Any]:
    checked = check_text(library, essay.text, essay.notes)
    return {
        "name": essay.name, "text": essay.text, "notes": [note._asdict() for note in essay.notes],
        "warnings": list(essay.warnings), "counts": counts(checked),
        "quotations": [quotation.as_dict() for quotation in checked],
    }  # fmt: skip
