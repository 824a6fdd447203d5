"""`stilnovo library`: add works, list, search, check and remove them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note
from stilnovo.errors import InputError, StilnovoError

if TYPE_CHECKING:
    from stilnovo.library.records import Work
    from stilnovo.library.store import Library

app = typer.Typer(help="A library of texts: add, list, search, check, remove.", no_args_is_help=True)

LibraryPath = Annotated[
    Path | None, typer.Option("--library", help="Library file; default $STILNOVO_LIBRARY or your data folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def _open(path: Path | None, *, create: bool = False) -> Library:
    from stilnovo.library.store import Library, default_path

    path = path or default_path()
    if not create and not path.exists():
        raise InputError(f"There is no library {path}.", next="Make it: stilnovo library add FILE …")
    return Library.open(path)


def _described(work: Work) -> str:
    names = ", ".join(part for part in (work.author or "(author unknown: give --author)", work.title) if part)
    year = f" ({work.year})" if work.year else ""
    return f"{names}{year}: {work.sections} sections, {work.passages} passages"


def _as_dict(work: Work) -> dict[str, object]:
    return {
        "id": work.id,
        "author": work.author,
        "title": work.title,
        "year": work.year,
        "source": work.source,
        "sections": work.sections,
        "passages": work.passages,
        "characters": work.characters,
        "sha256": work.sha256,
    }


@app.command("add")
def add(
    paths: Annotated[list[Path] | None, typer.Argument(help="Text files, TEI files, or folders of them.")] = None,
    title: Annotated[str, typer.Option(help="Title, when one file is added.")] = "",
    author: Annotated[str, typer.Option(help="Author, when one file is added.")] = "",
    year: Annotated[int | None, typer.Option(help="Year, when one file is added.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Add the built-in novella and poem.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Read works and store them; a text that is there already is left as it is."""
    from stilnovo.data.sample import library_texts
    from stilnovo.library.names import Names
    from stilnovo.library.read import files_in, read
    from stilnovo.progress import Progress

    files = files_in(paths or []) + (library_texts() if sample else [])
    if not files:
        raise InputError("Nothing to add.", next="Name files or folders, or use --sample.")
    if len(files) > 1 and (title or author or year):
        raise InputError(
            "--title, --author and --year are for one file.", f"Given: {len(files)} files.", "Add them singly."
        )
    works: list[dict[str, object]] = []
    failed: list[dict[str, str]] = []
    with _open(library, create=True) as store, Progress("add", len(files)) as bar:
        for number, file in enumerate(files, start=1):
            try:
                done = store.add(read(file, Names(title, author, year)))
            except InputError as error:
                if len(files) == 1:
                    raise
                note(str(error))
                failed.append({"file": str(file), "why": str(error).replace("\n", " ")})
                continue
            works.append({**_as_dict(done.work), "new": done.new})
            print(f"{'added' if done.new else 'there already':<14}{_described(done.work)}")
            bar.update(number, done.work.title)
        print(f"Library: {store.path}")
        emit({"library": str(store.path), "works": works, "failed": failed}, as_json)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(files)} files could not be added.",
            f"First: {failed[0]['file']}",
            "The others were.",
        )


@app.command("list")
def list_works(library: LibraryPath = None, as_json: AsJson = False) -> None:
    """List the works."""
    with _open(library) as store:
        works = store.works()
        for work in works:
            print(f"{work.id:>4}  {_described(work)}")
        emit({"works": [_as_dict(work) for work in works]}, as_json)


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help='Words, a question, or a "phrase in quotation marks".')],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many passages.")] = 5,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Find passages."""
    from stilnovo.library.search import search as find

    with _open(library) as store:
        hits = find(store, query, limit)
    results = []
    for number, hit in enumerate(hits, start=1):
        passage = hit.passage
        print(f"{number}. {passage.citation}\n{passage.text}\n")
        results.append(
            {
                "work": passage.section.work.title,
                "author": passage.section.work.author,
                "section": passage.section.label,
                "verses": passage.verses,
                "text": passage.text,
                "score": hit.score,
                "start": passage.start,
                "end": passage.end,
            }
        )
    if not hits:
        print("Nothing found.")
    emit({"query": query, "results": results}, as_json)


@app.command("check")
def check(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew first.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Check that texts, sections, passages and index agree; exit status 1 when they do not."""
    with _open(library) as store:
        if rebuild:
            store.rebuild()
        problems = store.check()
        works = store.works()
    for problem in problems:
        print(problem)
    passages = sum(work.passages for work in works)
    print(f"{len(works)} works, {passages} passages, {len(problems)} problems.")
    emit({"works": len(works), "passages": passages, "problems": problems}, as_json)
    if problems:
        raise StilnovoError("The library is not sound.", "", "Try: stilnovo library check --rebuild")


@app.command("remove")
def remove(
    work: Annotated[str, typer.Argument(help="Number (see `list`) or a part of the title.")],
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Take a work out."""
    from stilnovo.text.italian import fold

    with _open(library) as store:
        works = store.works()
        found = [w for w in works if str(w.id) == work] or [w for w in works if fold(work) in fold(w.title)]
        if len(found) != 1:
            what = "No work" if not found else f"{len(found)} works"
            raise InputError(
                f"{what} in the library match «{work}».",
                "; ".join(f"{w.id} {w.title}" for w in found[:8]),
                "Give the number that `stilnovo library list` shows.",
            )
        store.remove(found[0])
        print(f"Removed: {_described(found[0])}")
        emit({"removed": _as_dict(found[0])}, as_json)
