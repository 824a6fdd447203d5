"""`stilnovo library add`, `catalogue`, `fetch`: works come into a library."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, LibraryPath, emit, note
from stilnovo.cli.library_common import described, open_store, section_dict
from stilnovo.errors import InputError
from stilnovo.io.sample import library_texts
from stilnovo.library.catalogue import catalogue, fetch, find
from stilnovo.library.names import Names
from stilnovo.library.passages import cut
from stilnovo.library.read import MAXIMUM_BYTES, files_in, read
from stilnovo.library.records import Work
from stilnovo.library.sections import split
from stilnovo.library.store import Added, default_path
from stilnovo.library.text_builder import Book
from stilnovo.progress import Progress, bytes_text

#: Of a preview, how many sections are named; of works without author or year, how many.
_SHOWN = 6


def understood(document: Book) -> tuple[str, dict[str, object]]:
    """Report what was read from a file, for a person and as data, before anything is stored."""
    parts, names = split(document.text, document.headings, document.lines), document.names
    who = ", ".join((names.author or "(author unknown: give --author)", names.title or "(no title: give --title)"))
    labels = [part.label or "(without heading)" for part in parts]
    more = f" … {labels[-1]}" if len(labels) > _SHOWN + 1 else ""
    kind = "verse" if sum(part.verse for part in parts) * 2 > len(parts) else "prose"
    count = sum(len(cut(document.text, part)) for part in parts)
    line = (
        f"{document.source}: {who} ({names.year or 'year unknown'}), {kind}, {len(document.text)} characters, "
        f"{len(parts)} sections, {count} passages\n    {'; '.join(labels[:_SHOWN])}{more}"
    )
    return line, {
        "source": document.source, "author": names.author, "title": names.title, "year": names.year,
        "characters": len(document.text), "passages": count, "sections": [section_dict(part) for part in parts],
    }  # fmt: skip


def _ask_for_names(incomplete: list[tuple[Path, Work]]) -> None:
    """Print which works lack an author or a year, and how to give them; the text itself is not stored twice."""
    for file, work in incomplete[:_SHOWN]:
        examples = {"author": "'Name Surname'", "year": "1895"}
        missing = [name for name in examples if not getattr(work, name)]
        options = " ".join(f"--{name} {examples[name]}" for name in missing)
        note(
            f"«{work.title}»: {' and '.join(missing)} not recognised. "
            f"Give what you know: stilnovo library add {shlex.quote(str(file))} {options} (and --title, if it is another)"
        )
    if len(incomplete) > _SHOWN:
        note(f"… and {len(incomplete) - _SHOWN} more works without author or year: stilnovo library list")


def _added(done: Added) -> str:
    return f"{'added' if done.new else 'there already':<14}{described(done.work)}"


def add(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Text, EPUB, HTML, TEI, Markdown, PDF or Word files, or folders of them."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title, when one file is added.")] = "",
    author: Annotated[str, typer.Option(help="Author, when one file is added.")] = "",
    year: Annotated[int | None, typer.Option(help="Year, when one file is added.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Add the built-in novella and poem.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is recognised in the files; store nothing.")
    ] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Add works from files.

    A text that is stored already stays as it is, with the names given here.
    """
    files = files_in(paths or []) + (library_texts() if sample else [])
    if not files:
        raise InputError("Nothing to add.", next="Name files or folders, or use --sample.")
    if len(files) > 1 and (title or author or year):
        raise InputError(
            "--title, --author and --year are for one file.", f"Given: {len(files)} files.", "Add them singly."
        )
    given = Names(title, author, year)
    if dry_run:
        previews = [understood(read(file, given)) for file in files]
        print("\n".join(line for line, _ in previews))
        return emit({"understood": [facts for _, facts in previews]}, as_json)
    works: list[tuple[Path, Added]] = []
    failed: list[dict[str, str]] = []
    sizes = [file.stat().st_size for file in files]
    with open_store(library, create=True) as store:
        with Progress("add", sum(sizes)) as bar:
            for number, file in enumerate(files, start=1):
                try:
                    done = store.add(read(file, given))
                    if not done.new and given != Names():
                        done = Added(store.rename(done.work, given), new=False)
                except InputError as error:
                    if len(files) == 1:
                        raise
                    note(str(error))
                    failed.append({"file": str(file), "why": str(error).replace("\n", " ")})
                else:
                    works.append((file, done))
                    print(_added(done))
                    bar.update(sum(sizes[:number]), done.work.title)
        with Progress("index", len(works) or 1) as bar:
            store.catch_up(lambda count, total: bar.update(count * len(works) / total, f"{count} of {total} works"))
        _ask_for_names([(file, done.work) for file, done in works if not (done.work.author and done.work.year)])
        print(f"Library: {store.path}")
        added = [{**asdict(done.work), "new": done.new} for _, done in works]
        emit({"library": str(store.path), "works": added, "failed": failed}, as_json)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(files)} files could not be added.",
            f"First: {failed[0]['file']}",
            "The others were.",
        )


def list_catalogue(as_json: AsJson = False) -> None:
    """List the public-domain works that `fetch` can download."""
    for entry in catalogue():
        print(f"{entry.year:>6}  {entry.author}, {entry.title}  {entry.address()[0]}")
    emit({"works": [{**asdict(entry), "address": entry.address()[0]} for entry in catalogue()]}, as_json)


def fetch_work(
    name: Annotated[str, typer.Argument(help="A title of the catalogue, or words of author and title.")],
    folder: Annotated[Path | None, typer.Option(help="Download folder (default: beside the library).")] = None,
    mirror: Annotated[str, typer.Option(help="Web address to fetch from instead of the site's own.")] = "",
    add_it: Annotated[bool, typer.Option("--add/--no-add", help="Add it to the library, too.")] = True,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Download a work of the catalogue and add it."""
    entry = find(name)
    target = folder or (library or default_path()).parent / "fetched"
    with Progress("fetch", MAXIMUM_BYTES) as bar:
        file = fetch(entry, target, mirror, lambda size: bar.update(size, bytes_text(size)))
    print(f"Fetched: {file}")
    work = None
    if add_it:
        with open_store(library, create=True) as store:
            done = store.add(read(file, Names(entry.title, entry.author, entry.year)))
            store.catch_up()
            work = {**asdict(done.work), "new": done.new}
            print(_added(done))
    emit({"file": str(file), "work": work}, as_json)
