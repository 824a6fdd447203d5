"""`stilnovo library embed`, `rebuild`, `check`, `remove`: what keeps a library in order."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, EmbeddingModel, EmbeddingServer, LibraryPath, emit, note
from stilnovo.cli.library_common import described, open_store, work_named
from stilnovo.errors import StilnovoError
from stilnovo.library import embedding
from stilnovo.library.embedders import DEFAULT, LocalEmbedder, open_embedder
from stilnovo.progress import Progress, counted

#: Works that are named one by one.
_SHOWN = 6


def embed(
    model: EmbeddingModel = None,
    url: EmbeddingServer = None,
    again: Annotated[bool, typer.Option("--again", help="Recompute this model's vectors.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Compute embeddings for search by meaning; resumable.

    While another process makes them, such as the one that `add` leaves behind, its progress is shown.
    """
    embedder = open_embedder(model, url) or LocalEmbedder(DEFAULT)
    with open_store(library) as store:
        if again:
            store.drop_vectors(embedder.name)
        store.embedder = embedder
        with Progress("embed", 1) as bar:
            count = embedding.embed(
                store, lambda done, total: bar.update(done / max(total, 1), f"{done} of {total} passages")
            )
        vectors, passages = store.embedded(embedder.name)
    print(f"{count} passages embedded with {embedder.name}; {vectors} of {passages} have their vectors.")
    emit({"model": embedder.name, "embedded": count, "vectors": vectors, "passages": passages}, as_json)


def rebuild(library: LibraryPath = None, as_json: AsJson = False) -> None:
    """Rebuild the search index."""
    with open_store(library) as store:
        with Progress("index", 1) as bar:
            store.rebuild(lambda done, total: bar.update(done / total, f"{done} of {total} works"))
        works = store.works()
    print(f"Indexed: {counted(len(works), 'work')}, {counted(sum(work.passages for work in works), 'passage')}.")
    emit({"works": len(works), "passages": sum(work.passages for work in works)}, as_json)


def check(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild the index first.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Check texts against their files, passages and index.

    Each text must have the words of its file, once and in order. The exit status is 1 where something is wrong.
    """
    with open_store(library) as store:
        if rebuild:
            store.rebuild()
        problems = store.check()
        works, without_file = store.works(), store.without_file()
    for work in without_file[:_SHOWN]:
        note(f"«{work.title}» was added before files were kept: add it again to check it against its file.")
    if len(without_file) > _SHOWN:
        note(f"… and {len(without_file) - _SHOWN} more works without a file.")
    for problem in problems:
        print(problem)
    passages = sum(work.passages for work in works)
    print(f"{counted(len(works), 'work')}, {counted(passages, 'passage')}, {counted(len(problems), 'problem')}.")
    result = {
        "works": len(works), "passages": passages, "problems": problems,
        "without_file": [work.id for work in without_file],
    }  # fmt: skip
    emit(result, as_json)
    if problems:
        advice = "Try: stilnovo library check --rebuild, then stilnovo library reread"
        raise StilnovoError("The library is not sound.", "", advice)


def remove(
    work: Annotated[str, typer.Argument(help="Number (see `list`) or a part of the title.")],
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Remove a work."""
    with open_store(library) as store:
        stored = work_named(store, work)
        store.remove(stored)
        store.catch_up()
        print(f"Removed: {described(stored)}")
        emit({"removed": asdict(stored)}, as_json)
