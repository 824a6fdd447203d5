"""`stilnovo library list`, `search`, `show`: what a library holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, EmbeddingModel, EmbeddingServer, LibraryPath, Reranker, emit, note
from stilnovo.cli.library_common import (
    apparatus_line,
    described,
    open_store,
    passage_dict,
    search_with,
    section_dict,
    section_named,
    work_named,
)
from stilnovo.errors import InputError
from stilnovo.library import embedding
from stilnovo.library.apparatus import search_apparatus, words_by_kind
from stilnovo.library.embedders import NanoEmbedder
from stilnovo.library.records import Passage, Work
from stilnovo.library.search import search as find_passages
from stilnovo.library.store import Library


def list_works(library: LibraryPath = None, as_json: AsJson = False) -> None:
    """List the works."""
    with open_store(library) as store:
        works = store.works()
        for work in works:
            print(f"{work.id:>4}  {described(work)}")
        vectors, passages = store.embedded(NanoEmbedder.NAME)
        running = embedding.is_running(store.path)
        if vectors or running:
            more = "; the others are being made" if running else ""
            print(f"{vectors} of {passages} passages can be found by meaning{more}.")
        found = {"passages": passages, "embedded": vectors, "embedding_runs": running} if works else {}
        emit({"works": [asdict(work) for work in works], **found}, as_json)


def search(
    query: Annotated[str, typer.Argument(help='Words, a question, or a "phrase in quotation marks".')],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of passages.")] = 5,
    work: Annotated[str | None, typer.Option(help="Search one work only: its number or part of its title.")] = None,
    apparatus: Annotated[
        bool, typer.Option("--apparatus", help="Search notes, speakers, stage directions and the like instead.")
    ] = False,
    model: EmbeddingModel = None,
    url: EmbeddingServer = None,
    reranker: Reranker = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Search passages by words, phrase or question."""
    with open_store(library) as store:
        within = [work_named(store, work).id] if work else []
        if apparatus:
            return _search_apparatus(store, query, limit, within, as_json)
        search_with(store, model, url, reranker)
        hits = find_passages(store, query, limit, within)
    results = [
        {
            "work": hit.passage.section.work.title, "author": hit.passage.section.work.author, "score": hit.score,
            **passage_dict(hit.passage),
        }
        for hit in hits
    ]  # fmt: skip
    for number, hit in enumerate(hits, start=1):
        print(f"{number}. {hit.passage.citation}\n{hit.passage.text}\n")
    if not hits:
        print("Nothing found.")
    emit({"query": query, "results": results}, as_json)


def _search_apparatus(store: Library, query: str, limit: int, within: list[int], as_json: bool) -> None:
    hits = search_apparatus(store, query, limit, within)
    for number, hit in enumerate(hits, start=1):
        print(
            f"{number}. {hit.citation} [{hit.item.kind}], after «{hit.before}», before «{hit.after}»\n{hit.item.text}\n"
        )
    if not hits:
        print("Nothing found.")
    results = [
        {
            "work": hit.section.work.title, "author": hit.section.work.author, "score": hit.score,
            "kind": hit.item.kind, "text": hit.item.text, "section": hit.section.label, "at": hit.item.at,
            "before": hit.before, "after": hit.after,
        }
        for hit in hits
    ]  # fmt: skip
    emit({"query": query, "results": results}, as_json)


def show(
    work: Annotated[str, typer.Argument(help="Number (see `list`) or a part of the title.")],
    section: Annotated[str, typer.Option(help="Show one section: its number in the list, or its label.")] = "",
    around: Annotated[int | None, typer.Option(help="Show the passage with this id, and its neighbours.")] = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Show a work's sections, one section, or a passage."""
    with open_store(library) as store:
        stored = work_named(store, work)
        sections = store.sections(stored)
        if around is not None:
            passages = _neighbours(store, stored, around)
            print("\n\n".join(f"[{passage.id}] {passage.text}" for passage in passages))
            result: dict[str, object] = {"passages": [passage_dict(passage) for passage in passages]}
        elif section:
            chapter = section_named(sections, section)
            text = store.text(chapter.work)[chapter.start : chapter.end]
            print(text)
            result = {
                "section": [{"label": chapter.label, "text": text, "start": chapter.start, "end": chapter.end}],
                "passages": [passage_dict(passage) for passage in store.passages_of(chapter)],
            }
        else:
            apart, warnings = words_by_kind(store.apparatus(stored)), store.warnings(stored)
            print(described(stored))
            print(f"      apparatus: {apparatus_line(apart)}" if apart else "      no apparatus")
            for warning in warnings:
                note(f"{stored.source}: {warning}")
            for number, chapter in enumerate(sections, start=1):
                print(f"{number:>4}  {chapter.label or '(without heading)'}  {chapter.title}".rstrip())
            result = {
                "sections": [section_dict(chapter) for chapter in sections], "apparatus": apart, "warnings": warnings,
            }  # fmt: skip
        emit({"work": asdict(stored), **result}, as_json)


def _neighbours(store: Library, work: Work, passage_id: int) -> list[Passage]:
    passages = store.passages([passage_id])
    if not passages or passages[0].section.work.id != work.id:
        raise InputError(f"{work.title} has no passage {passage_id}.", "", "Ids stand in `show --section … --json`.")
    return store.around(passages[0])
