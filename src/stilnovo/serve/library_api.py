"""`/api/works`, `/api/search`, `/api/uploads`: what the page does with the library."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from stilnovo.io.sample import library_texts
from stilnovo.library.dense import Dense
from stilnovo.library.names import Names
from stilnovo.library.passages import verse_lines
from stilnovo.library.read import read
from stilnovo.library.records import Chapter, Work, citation
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.serve.faults import Fault, not_found
from stilnovo.serve.uploads import Uploads, confirm, preview
from stilnovo.serve.workers import Workers

HITS_AT_MOST, LONGEST_QUERY, LONGEST_NAME = 50, 1000, 300
Sha = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
UploadId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class UploadName(BaseModel):
    """What an uploaded work is to be called."""

    title: str = Field(min_length=1, max_length=LONGEST_NAME)
    author: str = Field("", max_length=LONGEST_NAME)
    year: int | None = Field(None, ge=-3000, le=3000)


def work_dict(work: Work) -> dict[str, Any]:
    """A work for JSON; outside, it goes by its text's sha256, which is never used twice."""
    return {
        "sha256": work.sha256, "title": work.title, "author": work.author, "year": work.year, "source": work.source,
        "characters": work.characters, "sections": work.sections, "passages": work.passages,
    }  # fmt: skip


def _work(library: Library, sha256: str) -> Work:
    found = next((work for work in library.works() if work.sha256 == sha256), None)
    if found is None:
        raise not_found("This work")
    return found


def _with_vectors(library: Library) -> None:
    """Vectors for new passages, where there is an embedder; the words can be searched before they are there."""
    if isinstance(library.dense, Dense):
        library.dense.embed()


def _section_dict(section: Chapter) -> dict[str, Any]:
    return {
        "position": section.position, "label": section.label, "title": section.title, "verse": section.verse,
        "start": section.start, "end": section.end, "characters": section.end - section.body,
    }  # fmt: skip


def blocks(text: str, section: Chapter) -> list[dict[str, Any]]:
    """A section as it is shown: paragraphs, or verses with their numbers and whether a stanza begins with them.

    Each is exactly `text[start:end]` of the work, so that a quotation can be marked to the letter.
    """
    if section.verse:
        found, before = [], section.body
        for number, (start, end) in enumerate(verse_lines(text, section.body, section.end), start=1):
            stanza = number == 1 or text.count("\n", before, start) > 1
            found.append({"start": start, "end": end, "text": text[start:end], "number": number, "stanza": stanza})
            before = end
        return found
    body = text[section.body : section.end]
    # Wrapped lines form paragraphs between blank lines; long lines are paragraphs themselves.
    lines = [line for line in body.split("\n") if line.strip()]
    wrapped = bool(lines) and sorted(map(len, lines))[len(lines) // 2] < 100 and "\n\n" in body.strip()
    pattern = r"\S(?:[^\n]|\n(?![ \t]*\n))*" if wrapped else r"\S[^\n]*"
    spans = [
        (section.body + m.start(), section.body + len(m.group().rstrip()) + m.start())
        for m in re.finditer(pattern, body)
    ]
    return [{"start": start, "end": end, "text": text[start:end]} for start, end in spans]


def router(workers: Workers, uploads: Uploads) -> APIRouter:
    """The routes of the library."""
    routes = APIRouter(prefix="/api")

    @routes.get("/works")
    async def works() -> dict[str, Any]:
        return {"works": [work_dict(work) for work in await workers.run(lambda library: library.works())]}

    @routes.get("/works/{sha256}")
    async def one_work(sha256: Sha) -> dict[str, Any]:
        def find(library: Library) -> dict[str, Any]:
            work = _work(library, sha256)
            return {**work_dict(work), "contents": [_section_dict(one) for one in library.sections(work)]}

        return await workers.run(find)

    @routes.get("/works/{sha256}/section")
    async def section(sha256: Sha, at: Annotated[int, Query(ge=0)]) -> dict[str, Any]:
        """The section that holds character `at` of the work's text."""

        def find(library: Library) -> dict[str, Any]:
            work = _work(library, sha256)
            contents = library.sections(work)
            here = next((one for one in contents if one.start <= at < one.end), None)
            if here is None:
                raise not_found("This place")
            before, after = contents[: here.position][-1:], contents[here.position + 1 :][:1]
            return {
                "work": work_dict(work),
                "section": {**_section_dict(here), "citation": citation(here)},
                "blocks": blocks(library.text(work), here),
                "previous": _section_dict(before[0]) if before else None,
                "next": _section_dict(after[0]) if after else None,
            }

        return await workers.run(find)

    @routes.delete("/works/{sha256}", status_code=204)
    async def remove(sha256: Sha) -> None:
        await workers.run(lambda library: library.remove(_work(library, sha256)))

    @routes.post("/works/sample", status_code=201)
    async def add_sample() -> dict[str, Any]:
        def add(library: Library) -> list[Work]:
            works = [library.add(read(path)).work for path in library_texts()]
            library.catch_up()
            return works

        return {"works": [work_dict(work) for work in await workers.run(add)]}

    @routes.get("/search")
    async def found(
        q: Annotated[str, Query(min_length=1, max_length=LONGEST_QUERY)],
        limit: Annotated[int, Query(ge=1, le=HITS_AT_MOST)] = 12,
    ) -> dict[str, Any]:
        def find(library: Library) -> list[dict[str, Any]]:
            hits = [hit.passage for hit in search(library, q, limit)]
            return [
                {
                    "citation": passage.citation, "text": passage.text, "start": passage.start, "end": passage.end,
                    "sha256": passage.section.work.sha256, "verse": passage.section.verse,
                }
                for passage in hits
            ]  # fmt: skip

        return {"results": await workers.run(find)}

    @routes.post("/uploads", status_code=201)
    async def upload(request: Request) -> dict[str, Any]:
        async with request.form(max_files=1, max_fields=4) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Fault(422, "unusable", "The form has no file in the field 'file'.", "file")

            def stage(library: Library) -> dict[str, Any]:
                staged = uploads.put(file.filename or "", file.file)
                try:
                    return preview(staged, library)
                except BaseException:
                    uploads.drop(staged.id)
                    raise

            return await workers.run(stage)

    @routes.post("/uploads/{number}/confirm", status_code=201)
    async def keep(number: UploadId, body: UploadName) -> dict[str, Any]:
        def add(library: Library) -> dict[str, Any]:
            staged = uploads.get(number)
            work, new = confirm(staged, Names(body.title.strip(), body.author.strip(), body.year), library)
            uploads.drop(number)
            return {**work_dict(work), "new": new}

        kept = await workers.run(add)
        workers.later(_with_vectors)
        return kept

    @routes.delete("/uploads/{number}", status_code=204)
    async def drop(number: UploadId) -> None:
        uploads.drop(number)

    return routes
