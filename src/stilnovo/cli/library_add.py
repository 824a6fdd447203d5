"""`stilnovo library add`, `catalogue`, `fetch`, `reread`: works come into a library, or anew."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, LibraryPath, emit, note
from stilnovo.cli.library_common import (
    apparatus_line,
    described,
    embed_later,
    open_store,
    section_dict,
    work_named,
)
from stilnovo.errors import InputError, StilnovoError
from stilnovo.io.sample import library_texts
from stilnovo.library.apparatus import words_by_kind
from stilnovo.library.catalogue import catalogue, fetch, find
from stilnovo.library.location import is_served
from stilnovo.library.passages import cut
from stilnovo.library.read import MAXIMUM_BYTES, files_in, read, understand
from stilnovo.library.records import Work
from stilnovo.library.store import Added, Library, default_path
from stilnovo.progress import Progress, bytes_text, counted
from stilnovo.reading.names import Names
from stilnovo.reading.sections import split
from stilnovo.reading.text_builder import Book

#: Of a preview, how many sections are named; of works without author or year, how many.
_SHOWN = 6


EmbedLater = Annotated[
    bool,
    typer.Option(
        "--embed/--no-embed", envvar="STILNOVO_EMBED", help="Make the vectors for search by meaning in the background."
    ),
]


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
        f"{counted(len(parts), 'section')}, {counted(count, 'passage')}\n    {'; '.join(labels[:_SHOWN])}{more}"
    )
    apart = words_by_kind(document.apparatus)
    more_lines = [f"apparatus: {apparatus_line(apart)}"] * bool(apart) + [f"warning: {w}" for w in document.warnings]
    return "\n    ".join([line, *more_lines]), {
        "source": document.source, "author": names.author, "title": names.title, "year": names.year,
        "characters": len(document.text), "passages": count, "sections": [section_dict(part) for part in parts],
        "apparatus": apart, "warnings": list(document.warnings),
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


def _told(document: Book, done: Added) -> dict[str, object]:
    """Print what became of a document, and what its reader could not read; returns it as data."""
    state = "replaced" if done.replaced else "added" if done.new else "there already"
    print(f"{state:<14}{described(done.work)}")
    for warning in document.warnings:
        note(f"{document.source}: {warning}")
    if old := done.replaced:
        note(
            f"«{old.title}» was there with other text ({old.source}, {old.characters} characters; now "
            f"{done.work.characters}) and is replaced. To keep both: --keep-both"
        )
    elif done.namesake:
        note(
            f"«{done.work.title}»: another work of this name (number {done.namesake.id}) has other text. Both are kept."
        )
    return {
        **asdict(done.work), "new": done.new, "warnings": list(document.warnings),
        "apparatus": words_by_kind(document.apparatus), "replaced": asdict(old) if old else None,
    }  # fmt: skip


def _would_replace(library: Path | None, document: Book) -> Work | None:
    """The stored work that a document would replace, where there is a library."""
    path = library or default_path()
    if not is_served(path) and not path.exists():
        return None
    with open_store(library) as store:
        return store.older(document)


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
    keep_both: Annotated[
        bool, typer.Option("--keep-both", help="Keep an older version of the same work beside the new one.")
    ] = False,
    embed: EmbedLater = True,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Add works from files.

    A text that is stored already stays as it is, with the names given here. A corrected file replaces its older version:
    the work of the same file name, or author and title, most of whose text stands in the new one.
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
        return _preview([read(file, given) for file in files], library, keep_both, as_json)
    works: list[tuple[Path, Added]] = []
    added: list[dict[str, object]] = []
    failed: list[dict[str, str]] = []
    sizes = [file.stat().st_size for file in files]
    with open_store(library, create=True) as store:
        first = not store.works()
        with Progress("add", sum(sizes)) as bar:
            for number, file in enumerate(files, start=1):
                try:
                    document = read(file, given)
                    done = store.add(document, keep_both=keep_both)
                    if not done.new and given != Names():
                        done = Added(store.rename(done.work, given), new=False)
                except InputError as error:
                    if len(files) == 1:
                        raise
                    note(str(error))
                    failed.append({"file": str(file), "why": str(error).replace("\n", " ")})
                else:
                    works.append((file, done))
                    added.append(_told(document, done))
                    bar.update(sum(sizes[:number]), done.work.title)
        with Progress("index", len(works) or 1) as bar:
            store.catch_up(lambda count, total: bar.update(count * len(works) / total, f"{count} of {total} works"))
        _ask_for_names([(file, done.work) for file, done in works if not (done.work.author and done.work.year)])
        print(f"Library: {store.path}")
        later = embed_later(store, embed, first)
        emit({"library": str(store.path), "works": added, "failed": failed, "embedding_runs": later}, as_json)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(files)} files could not be added.",
            f"First: {failed[0]['file']}",
            "The others were.",
        )


def _preview(documents: list[Book], library: Path | None, keep_both: bool, as_json: bool) -> None:
    """Print what was recognised in documents, and what they would replace."""
    previews = []
    for document in documents:
        line, facts = understood(document)
        old = None if keep_both else _would_replace(library, document)
        print(line + (f"\n    would replace «{old.title}» (number {old.id}, {old.source})" if old else ""))
        previews.append({**facts, "replaces": asdict(old) if old else None})
    emit({"understood": previews}, as_json)


def list_catalogue(as_json: AsJson = False) -> None:
    """List the public-domain works that `fetch` can download."""
    for entry in catalogue():
        print(f"{entry.year:>6}  {entry.author}, {entry.title}  {entry.address()[0]}")
    emit({"works": [{**asdict(entry), "address": entry.address()[0]} for entry in catalogue()]}, as_json)


def fetch_work(
    name: Annotated[str, typer.Argument(help="A title of the catalogue, or words of author and title.")],
    folder: Annotated[
        Path | None, typer.Option(help="Download folder (default: `fetched` beside the library).")
    ] = None,
    mirror: Annotated[str, typer.Option(help="Web address to fetch from instead of the site's own.")] = "",
    add_it: Annotated[bool, typer.Option("--add/--no-add", help="Add it to the library, too.")] = True,
    embed: EmbedLater = True,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Download a work of the catalogue and add it."""
    entry = find(name)
    path = library or default_path()
    target = folder or (Path() if is_served(path) else path.parent) / "fetched"
    with Progress("fetch", MAXIMUM_BYTES) as bar:
        file = fetch(entry, target, mirror, lambda size: bar.update(size, bytes_text(size)))
    print(f"Fetched: {file}")
    work = None
    if add_it:
        with open_store(library, create=True) as store:
            first = not store.works()
            document = read(file, Names(entry.title, entry.author, entry.year))
            work = _told(document, store.add(document))
            store.catch_up()
            embed_later(store, embed, first)
    emit({"file": str(file), "work": work}, as_json)


def reread(
    work: Annotated[
        str | None, typer.Argument(help="Number (see `list`) or a part of the title (default: all works).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; store nothing.")] = False,
    embed: EmbedLater = True,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Read works anew from the files they came from, which are kept.

    A newer stilnovo may read more in them. Works that it reads as before stay untouched.
    """
    with open_store(library) as store:
        works = [work_named(store, work)] if work else store.works()
        results: dict[str, list[dict[str, object]]] = {"changed": [], "unchanged": [], "without_file": [], "failed": []}
        with Progress("reread", max(len(works), 1)) as bar:
            for number, stored in enumerate(works, start=1):
                state, facts = _read_again(store, stored, dry_run)
                results[state].append(facts)
                bar.update(number, stored.title)
        store.catch_up()
        embed_later(store, embed and bool(results["changed"]) and not dry_run, first=False)
    counts = ", ".join(f"{len(items)} {state.replace('_', ' ')}" for state, items in results.items() if items)
    print(f"{counts or 'No works'}.{' Nothing was stored.' if dry_run else ''}")
    emit({"dry_run": dry_run, **results}, as_json)
    if results["failed"]:
        raise StilnovoError(f"{len(results['failed'])} works could not be read anew.", "", "They stay as they were.")


def _read_again(store: Library, stored: Work, dry_run: bool) -> tuple[str, dict[str, object]]:
    """Read one work anew and print what became of it; returns its state and the work as data."""
    facts: dict[str, object] = asdict(stored)
    if (data := store.source(stored)) is None:
        note(f"«{stored.title}» was added before files were kept: add its file again.")
        return "without_file", facts
    try:
        document = understand(data, stored.source, store.given(stored))
    except InputError as error:
        note(f"«{stored.title}»: {error}")
        return "failed", {**facts, "why": str(error).replace("\n", " ")}
    if not store.differs(stored, document):
        return "unchanged", facts
    print(f"{'differs' if dry_run else 'read anew':<14}{described(stored)}")
    return "changed", facts if dry_run else asdict(store.replace(stored, document).work)
