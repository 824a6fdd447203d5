"""`/api/concordance`, `/api/parallels`, `/api/works/…/citation`: the library as an instrument of study."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from stilnovo.library import references
from stilnovo.library.concordance import as_csv, concordance
from stilnovo.library.parallels import parallels
from stilnovo.library.records import Work
from stilnovo.library.store import Library
from stilnovo.serve.library_api import HITS_AT_MOST, Sha, Words, work_of
from stilnovo.serve.workers import Workers

#: Lines of a concordance sent at once, and characters of a passage whose parallels are sought.
LINES_AT_MOST, LONGEST_PASSAGE = 500, 5000
Works = Annotated[list[str] | None, Query(max_length=200)]


class PassageText(BaseModel):
    """A passage whose parallels are sought, in all works or in some (their sha256)."""

    text: str = Field(min_length=1, max_length=LONGEST_PASSAGE)
    works: list[str] = Field([], max_length=200)
    limit: int = Field(5, ge=1, le=HITS_AT_MOST)


def _named(library: Library, works: list[str] | None) -> list[Work]:
    return [work_of(library, sha256) for sha256 in works or ()]


def router(workers: Workers) -> APIRouter:
    """Create the routes of study."""
    routes = APIRouter(prefix="/api")

    @routes.get("/concordance", response_model=None)
    @workers.endpoint
    def lines(
        library: Library,
        q: Words,
        work: Works = None,
        exact: bool = False,
        sort: Literal["text", "left", "right", "word"] = "text",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=LINES_AT_MOST)] = 100,
        format: Literal["json", "csv"] = "json",
    ) -> dict[str, Any] | Response:
        """Every place of a word in the middle of its line; as CSV all of them at once."""
        found = concordance(library, q, _named(library, work), exact=exact, order=sort)
        if format == "csv":
            headers = {"Content-Disposition": 'attachment; filename="concordance.csv"'}
            return Response(
                as_csv([line.as_dict() for line in found]), media_type="text/csv; charset=utf-8", headers=headers
            )
        return {"places": len(found), "lines": [line.as_dict() for line in found[offset : offset + limit]]}

    @routes.post("/parallels")
    @workers.endpoint
    def elsewhere(library: Library, body: PassageText) -> dict[str, Any]:
        """Where the words of a passage, or its image, stand elsewhere."""
        found = parallels(library, body.text, body.limit, _named(library, body.works))
        return {"parallels": [one.as_dict() for one in found]}

    @routes.get("/works/{sha256}/citation")
    @workers.endpoint
    def cited(library: Library, sha256: Sha) -> dict[str, Any]:
        """Bibliography entry of a work: as a line, in BibTeX and in CSL-JSON."""
        work = work_of(library, sha256)
        return {"entry": references.entry(work), "bibtex": references.bibtex(work), "csl": references.csl(work),
                "link": references.link(work, 0, work.characters)}  # fmt: skip

    return routes
