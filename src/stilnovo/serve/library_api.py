"""`/api/works`, `/api/search`, `/api/uploads`: the library's routes."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from stilnovo.io.sample import library_texts
from stilnovo.library.apparatus import PlacedApparatus, placed, search_apparatus, words_by_kind
from stilnovo.library.read import read
from stilnovo.library.records import Chapter, Passage, Work, citation
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.serve.faults import not_found
from stilnovo.serve.uploads import Uploads, confirm, preview, sent_file, work_dict
from stilnovo.serve.workers import Workers

HITS_AT_MOST, LONGEST_QUERY, LONGEST_NAME = 50, 1000, 300
Sha = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, Query(min_length=1, max_length=LONGEST_QUERY)]
Limit = Annotated[int, Query(ge=1, le=HITS_AT_MOST)]
UploadId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class UploadName(BaseModel):
    """Title, author and year of an uploaded work."""

    title: str = Field(min_length=1, max_length=LONGEST_NAME)
    author: str = Field("", max_length=LONGEST_NAME)
    year: int | None = Field(None, ge=-3000, le=3000)


class Confirmation(UploadName):
    """Names of an uploaded work, and whether an older version of it is kept beside it."""

    keep_both: bool = False


def work_of(library: Library, sha256: str) -> Work:
    """The work with this text.

    Raises:
        Fault: 404.
    """
    work = next((work for work in library.works() if work.sha256 == sha256), None)
    if work is None:
        raise not_found("This work")
    return work


def _section_dict(section: Chapter) -> dict[str, Any]:
    return {
        "position": section.position, "label": section.label, "title": section.title, "verse": section.verse,
        "start": section.start, "end": section.end, "characters": section.end - section.body,
    }  # fmt: skip


def _passage_dict(passage: Passage) -> dict[str, Any]:
    section = passage.section
    return {
        "citation": passage.citation, "text": passage.text, "start": passage.start, "end": passage.end,
        "sha256": section.work.sha256, "verse": section.verse,
    }  # fmt: skip


def _apparatus_dict(placed: PlacedApparatus) -> dict[str, Any]:
    item = placed.item
    return {
        "kind": item.kind, "text": item.text, "at": item.at, "section": placed.section.label,
        "position": placed.section.position, "before": placed.before, "after": placed.after,
    }  # fmt: skip


def blocks(text: str, section: Chapter) -> list[dict[str, Any]]:
    """Split a section for display: paragraphs, and verses with their numbers and whether a stanza begins there.

    Each is exactly `text[start:end]` of the work, so that a quotation can be marked to the letter; together they are all
    the words of the section.
    """
    shown = list[dict[str, Any]]()
    before = section.body
    for start, end, number in section.lines:
        between = _paragraphs(text, before, start)
        stanza = bool(between) or not shown or text.count("\n", before, start) > 1
        verse = {"start": start, "end": end, "text": text[start:end], "number": number, "stanza": stanza}
        shown += [*between, verse]
        before = end
    return shown + _paragraphs(text, before, section.end)


def _paragraphs(text: str, start: int, end: int) -> list[dict[str, Any]]:
    """Paragraphs of a stretch of prose: between blank lines where lines are wrapped, else one a line."""
    stretch = text[start:end]
    lines = [line for line in stretch.split("\n") if line.strip()]
    wrapped = bool(lines) and sorted(map(len, lines))[len(lines) // 2] < 100 and "\n\n" in stretch.strip()
    pattern = r"\S(?:[^\n]|\n(?![ \t]*\n))*" if wrapped else r"\S[^\n]*"
    return [
        {"start": start + match.start(), "end": start + match.start() + len(block), "text": block}
        for match in re.finditer(pattern, stretch)
        for block in [match.group().rstrip()]
    ]


def router(workers: Workers, uploads: Uploads) -> APIRouter:
    """Create the library's routes."""
    routes = APIRouter(prefix="/api")

    @routes.get("/works")
    @workers.endpoint
    def works(library: Library) -> dict[str, Any]:
        return {"works": [work_dict(work) for work in library.works()]}

    @routes.get("/works/{sha256}")
    @workers.endpoint
    def one_work(library: Library, sha256: Sha) -> dict[str, Any]:
        work = work_of(library, sha256)
        return {**work_dict(work), "contents": [_section_dict(section) for section in library.sections(work)]}

    @routes.get("/works/{sha256}/section")
    @workers.endpoint
    def section(library: Library, sha256: Sha, at: Annotated[int, Query(ge=0)]) -> dict[str, Any]:
        """The section that holds character `at` of the work's text."""
        work = work_of(library, sha256)
        contents = library.sections(work)
        here = next((section for section in contents if section.start <= at < section.end), None)
        if here is None:
            raise not_found("This place")
        before, after = contents[: here.position][-1:], contents[here.position + 1 :][:1]
        return {
            "work": work_dict(work),
            "section": {**_section_dict(here), "citation": citation(here)},
            "blocks": blocks(library.text(work), here),
            "apparatus": [_apparatus_dict(item) for item in placed(library, work) if item.section.id == here.id],
            "previous": _section_dict(before[0]) if before else None,
            "next": _section_dict(after[0]) if after else None,
        }

    @routes.get("/works/{sha256}/apparatus")
    @workers.endpoint
    def apparatus(library: Library, sha256: Sha, kind: str = "") -> dict[str, Any]:
        """What is not the author's running text: notes, speakers and the like, of one kind or of all."""
        work = work_of(library, sha256)
        items = placed(library, work)
        return {
            "work": work_dict(work),
            "words": words_by_kind(item.item for item in items),
            "warnings": library.warnings(work),
            "apparatus": [_apparatus_dict(item) for item in items if not kind or item.item.kind == kind],
        }

    @routes.delete("/works/{sha256}", status_code=204)
    @workers.endpoint
    def remove(library: Library, sha256: Sha) -> None:
        library.remove(work_of(library, sha256))

    @routes.post("/works/sample", status_code=201)
    @workers.endpoint
    def add_sample(library: Library) -> dict[str, Any]:
        works = [library.add(read(path)).work for path in library_texts()]
        library.catch_up()
        workers.embed()
        return {"works": [work_dict(work) for work in works]}

    @routes.get("/search")
    @workers.endpoint
    def search_passages(library: Library, q: Words, limit: Limit = 12, apparatus: bool = False) -> dict[str, Any]:
        if apparatus:
            items = search_apparatus(library, q, limit)
            return {
                "results": [
                    {**_apparatus_dict(item), "citation": item.citation, "sha256": item.section.work.sha256}
                    for item in items
                ]
            }
        return {"results": [_passage_dict(hit.passage) for hit in search(library, q, limit)]}

    _upload_routes(routes, workers, uploads)
    return routes


def _upload_routes(routes: APIRouter, workers: Workers, uploads: Uploads) -> None:
    @routes.post("/uploads", status_code=201)
    async def upload(request: Request) -> dict[str, Any]:
        async with request.form(max_files=1, max_fields=4) as form:
            file = sent_file(form)

            def stage(library: Library) -> dict[str, Any]:
                staged = uploads.put(file.filename or "", file.file)
                try:
                    return preview(staged, library)
                except BaseException:
                    uploads.drop(staged.id)
                    raise

            return await workers.run(stage)

    @routes.post("/uploads/{upload_id}/confirm", status_code=201)
    @workers.endpoint
    def keep(library: Library, upload_id: UploadId, body: Confirmation) -> dict[str, Any]:
        names = Names(body.title.strip(), body.author.strip(), body.year)
        added = confirm(uploads.get(upload_id), names, library, keep_both=body.keep_both)
        uploads.drop(upload_id)
        # The words can be searched before the vectors are there.
        workers.embed()
        replaced = work_dict(added.replaced) if added.replaced else None
        return {**work_dict(added.work), "new": added.new, "replaced": replaced}

    @routes.delete("/uploads/{upload_id}", status_code=204)
    async def drop(upload_id: UploadId) -> None:
        uploads.drop(upload_id)
