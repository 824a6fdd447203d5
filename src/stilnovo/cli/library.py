"""`stilnovo library`: add, list, search, check and remove the works that are asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.library.store import Library

app = typer.Typer(help="The works that `ask` answers from: add, list, search, check, remove.", no_args_is_help=True)

Place = Annotated[Path | None, typer.Option("--library", help="Library file; default: yours.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def add(
    paths: Annotated[list[Path], typer.Argument(help="Text or TEI files, or folders of them.")],
    title: Annotated[str | None, typer.Option(help="Instead of the file's own; one file only.")] = None,
    author: Annotated[str | None, typer.Option(help="Instead of the file's own.")] = None,
    year: Annotated[int | None, typer.Option(help="Instead of the file's own.")] = None,
    library: Place = None,
    as_json: Json = False,
) -> None:
    """Read, index and store works; each whole or not at all. Running it again adds nothing twice."""
    from stilnovo.errors import InputError
    from stilnovo.library.names import Names
    from stilnovo.library.read import files_in, read
    from stilnovo.library.store import Library, default_path
    from stilnovo.progress import Progress

    files = files_in(paths)
    if title and len(files) > 1:
        raise InputError("--title is for one file.", f"Given: {len(files)} files.", "Add them one by one.")
    place = library or default_path()
    added, failed = [], []
    with Library.open(place) as store, Progress("add", len(files)) as bar:
        for number, file in enumerate(files, 1):
            try:
                done = store.add(read(file, Names(title=title or "", author=author or "", year=year)))
            except InputError as error:
                if len(files) == 1:
                    raise
                failed.append(str(file))
                note(str(error))
                continue
            work = done.work
            added.append({"title": work.title, "author": work.author, "year": work.year, "new": done.new, "id": work.id})
            print(
                f"{'added' if done.new else 'there already':<14}{work.author or '?'}, {work.title}"
                f"{f' ({work.year})' if work.year else ''}: {work.sections} sections, {work.passages} passages"
            )
            bar.update(number, work.title)
    print(f"Library: {place}")
    emit({"library": str(place), "works": added, "failed": failed}, as_json)
    if failed:
        raise InputError(f"{len(failed)} of {len(files)} files could not be added.", f"First: {failed[0]}", "The others were.")


@app.command("list")
def list_works(library: Place = None, as_json: Json = False) -> None:
    """The works in the library."""
    from dataclasses import asdict

    with _open(library) as store:
        works = store.works()
    for work in works:
        print(f"{work.id:>4}  {work.author or '?'}, {work.title} ({work.year or '?'}): {work.sections} sections, {work.passages} passages")
    emit({"works": [asdict(work) for work in works]}, as_json)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='Words; "quoted words" must stand together.')],
    library: Place = None,
    limit: Annotated[int, typer.Option(min=1, help="Passages at most.")] = 5,
    as_json: Json = False,
) -> None:
    """The passages that fit best."""
    from stilnovo.library.search import search as find

    with _open(library) as store:
        hits = find(store, query, limit)
    for hit in hits:
        text = " ".join(hit.passage.text.split())
        print(f"{hit.score:7.3f}  {hit.passage.citation}\n         {text[:200]}{'…' if len(text) > 200 else ''}")
    if not hits:
        print("Nothing found.")
    emit({"hits": [{"score": h.score, "citation": h.passage.citation, "text": h.passage.text} for h in hits]}, as_json)


@app.command()
def check(library: Place = None, as_json: Json = False) -> None:
    """Compare the index and every passage with the stored texts."""
    from stilnovo.errors import StilnovoError

    with _open(library) as store:
        problems, count = store.check(), len(store.works())
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{count} works: every passage stands in its text and in the index.")
    emit({"works": count, "problems": problems}, as_json)
    if problems:
        raise StilnovoError(f"{len(problems)} problem(s) in the library.", next="Remove the works named and add them again.")


@app.command()
def remove(
    work: Annotated[int, typer.Argument(help="Its number in `stilnovo library list`.")],
    library: Place = None,
    as_json: Json = False,
) -> None:
    """Take a work out, with all that was made of it."""
    with _open(library) as store:
        gone = store.work(work)
        store.remove(gone)
    print(f"Removed: {gone.author or '?'}, {gone.title}")
    emit({"removed": gone.id, "title": gone.title}, as_json)


def _open(library: Path | None) -> Library:
    from stilnovo.errors import InputError
    from stilnovo.library.store import Library, default_path

    place = library or default_path()
    if not place.exists():
        raise InputError(f"There is no library {place}.", next="Make it: stilnovo library add FILE …")
    return Library.open(place)
