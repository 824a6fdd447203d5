"""`stilnovo library`: add, fetch, list, show, search, check and remove works."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from stilnovo.cli.common import AsJson, EmbeddingModel, EmbeddingServer, LibraryPath, emit, note
from stilnovo.errors import InputError, StilnovoError
from stilnovo.io.sample import library_texts
from stilnovo.library.catalogue import catalogue, fetch, find
from stilnovo.library.embedders import DEFAULT, LocalReranker, open_embedder
from stilnovo.library.location import is_served, open_library
from stilnovo.library.names import Names
from stilnovo.library.passages import cut
from stilnovo.library.read import MAXIMUM_BYTES, files_in, read
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.search import search as find_passages
from stilnovo.library.sections import Section, split
from stilnovo.library.store import Added, Library, default_path
from stilnovo.library.text_builder import Book
from stilnovo.progress import Progress, bytes_text
from stilnovo.text.italian import fold

Thing = TypeVar("Thing")
#: Of a preview, how many sections are named; of works without author or year, how many.
_SHOWN = 6
app = typer.Typer(
    help="Manage a library of texts: add, list, search, check and more.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _open(path: Path | None, *, create: bool = False) -> Library:
    path = path or default_path()
    if not create and not is_served(path) and not path.exists():
        raise InputError(f"There is no library {path}.", next="Make it: stilnovo library add FILE …")
    return open_library(path)


def _named(
    things: Sequence[Thing],
    rules: Sequence[Callable[[Thing], bool]],
    name: str,
    label: Callable[[Thing], str],
    advice: str,
) -> Thing:
    """Find the only match for a name: by the first of the rules under which any matches."""
    matches = next(filter(None, ([thing for thing in things if rule(thing)] for rule in rules)), [])
    if len(matches) != 1:
        shown = "; ".join(label(thing) for thing in (matches or things)[:8])
        raise InputError(f"{len(matches) or 'None'} of {len(things)} match «{name}».", f"Such as: {shown}", advice)
    return matches[0]


def _work(store: Library, name: str) -> Work:
    """Find a work by its number, its title or a part of it."""
    rules = (
        lambda work: str(work.id) == name,
        lambda work: fold(work.title) == fold(name),
        lambda work: fold(name) in fold(work.title),
    )
    advice = "Give the number that `stilnovo library list` shows."
    return _named(store.works(), rules, name, lambda work: f"{work.id} {work.title}", advice)


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
        "characters": len(document.text), "passages": count, "sections": [_section_dict(part) for part in parts],
    }  # fmt: skip


def _described(work: Work) -> str:
    """A work on one line."""
    names = ", ".join(part for part in (work.author or "(author unknown: give --author)", work.title) if part)
    year = f" ({work.year})" if work.year else ""
    return f"{names}{year}: {work.sections} sections, {work.passages} passages"


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
    return f"{'added' if done.new else 'there already':<14}{_described(done.work)}"


@app.command("add")
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
    with _open(library, create=True) as store:
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


@app.command("catalogue")
def list_catalogue(as_json: AsJson = False) -> None:
    """List the public-domain works that `fetch` can download."""
    for entry in catalogue():
        print(f"{entry.year:>6}  {entry.author}, {entry.title}  {entry.address()[0]}")
    emit({"works": [{**asdict(entry), "address": entry.address()[0]} for entry in catalogue()]}, as_json)


@app.command("fetch")
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
        with _open(library, create=True) as store:
            done = store.add(read(file, Names(entry.title, entry.author, entry.year)))
            store.catch_up()
            work = {**asdict(done.work), "new": done.new}
            print(_added(done))
    emit({"file": str(file), "work": work}, as_json)


@app.command("list")
def list_works(library: LibraryPath = None, as_json: AsJson = False) -> None:
    """List the works."""
    with _open(library) as store:
        works = store.works()
        for work in works:
            print(f"{work.id:>4}  {_described(work)}")
        emit({"works": [asdict(work) for work in works]}, as_json)


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help='Words, a question, or a "phrase in quotation marks".')],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of passages.")] = 5,
    work: Annotated[str | None, typer.Option(help="Search one work only: its number or part of its title.")] = None,
    model: EmbeddingModel = None,
    url: EmbeddingServer = None,
    reranker: Annotated[str | None, typer.Option(help="Cross-encoder that reorders the results.")] = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Search passages by words, phrase or question."""
    with _open(library) as store:
        within = [_work(store, work).id] if work else []
        if model or url or reranker:
            _with_models(store, model, url, reranker)
        hits = find_passages(store, query, limit, within)
    results = [
        {
            "work": hit.passage.section.work.title, "author": hit.passage.section.work.author, "score": hit.score,
            **_passage_dict(hit.passage),
        }
        for hit in hits
    ]  # fmt: skip
    for number, hit in enumerate(hits, start=1):
        print(f"{number}. {hit.passage.citation}\n{hit.passage.text}\n")
    if not hits:
        print("Nothing found.")
    emit({"query": query, "results": results}, as_json)


def _with_models(store: Library, model: str | None, url: str | None, reranker: str | None) -> None:
    embedder = open_embedder(model, url)
    if embedder is not None:
        store.embedder = embedder
        if missing := len(store.without_vector(embedder.name)):
            note(f"{missing} passages have no vector of {embedder.name}: run `stilnovo library embed` first.")
    if reranker:
        store.reranker = LocalReranker(reranker)


@app.command("show")
def show(
    work: Annotated[str, typer.Argument(help="Number (see `list`) or a part of the title.")],
    section: Annotated[str, typer.Option(help="Show one section: its number in the list, or its label.")] = "",
    around: Annotated[int | None, typer.Option(help="Show the passage with this id, and its neighbours.")] = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Show a work's sections, one section, or a passage."""
    with _open(library) as store:
        stored = _work(store, work)
        sections = store.sections(stored)
        if around is not None:
            passages = _neighbours(store, stored, around)
            print("\n\n".join(f"[{passage.id}] {passage.text}" for passage in passages))
            result = {"passages": [_passage_dict(passage) for passage in passages]}
        elif section:
            chapter = _section(sections, section)
            text = store.text(chapter.work)[chapter.start : chapter.end]
            print(text)
            result = {
                "section": [{"label": chapter.label, "text": text, "start": chapter.start, "end": chapter.end}],
                "passages": [_passage_dict(passage) for passage in store.passages_of(chapter)],
            }
        else:
            print(_described(stored))
            for number, chapter in enumerate(sections, start=1):
                print(f"{number:>4}  {chapter.label or '(without heading)'}  {chapter.title}".rstrip())
            result = {"sections": [_section_dict(chapter) for chapter in sections]}
        emit({"work": asdict(stored), **result}, as_json)


def _neighbours(store: Library, work: Work, passage_id: int) -> list[Passage]:
    passages = store.passages([passage_id])
    if not passages or passages[0].section.work.id != work.id:
        raise InputError(f"{work.title} has no passage {passage_id}.", "", "Ids stand in `show --section … --json`.")
    return store.around(passages[0])


def _section(sections: list[Chapter], name: str) -> Chapter:
    """Find a section by its number in the list, its label or a part of it."""
    asked = fold(name).strip()
    rules = (
        lambda chapter: name.isdigit() and chapter is dict(enumerate(sections, start=1)).get(int(name)),
        lambda chapter: fold(chapter.label) == asked,
        lambda chapter: fold(chapter.label).endswith(asked),
        lambda chapter: asked in fold(f"{chapter.label} {chapter.title}"),
    )
    return _named(sections, rules, name, lambda chapter: chapter.label, "Give its number in the list of sections.")


def _section_dict(section: Section | Chapter) -> dict[str, object]:
    return {name: getattr(section, name) for name in ("label", "title", "verse", "start", "end")}


def _passage_dict(passage: Passage) -> dict[str, object]:
    return {
        "id": passage.id, "section": passage.section.label, "verses": passage.verses, "text": passage.text,
        "start": passage.start, "end": passage.end,
    }  # fmt: skip


@app.command("embed")
def embed(
    model: EmbeddingModel = None,
    url: EmbeddingServer = None,
    again: Annotated[bool, typer.Option("--again", help="Recompute this model's vectors.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Compute embeddings for search by meaning; resumable."""
    embedder = open_embedder(model or (None if url else DEFAULT), url)
    assert embedder is not None
    with _open(library) as store:
        if again:
            store.drop_vectors(embedder.name)
        store.embedder = embedder
        with Progress("embed", 1) as bar:
            count = store.embed(lambda done, total: bar.update(done / total, f"{done} of {total} passages"))
    print(f"{count} passages embedded with {embedder.name}.")
    emit({"model": embedder.name, "embedded": count}, as_json)


@app.command("rebuild")
def rebuild(library: LibraryPath = None, as_json: AsJson = False) -> None:
    """Rebuild the search index."""
    with _open(library) as store:
        with Progress("index", 1) as bar:
            store.rebuild(lambda done, total: bar.update(done / total, f"{done} of {total} works"))
        works = store.works()
    print(f"Indexed: {len(works)} works, {sum(work.passages for work in works)} passages.")
    emit({"works": len(works), "passages": sum(work.passages for work in works)}, as_json)


@app.command("check")
def check(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild the index first.")] = False,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Check that texts, passages and index agree.

    The exit status is 1 when they do not.
    """
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
    """Remove a work."""
    with _open(library) as store:
        stored = _work(store, work)
        store.remove(stored)
        store.catch_up()
        print(f"Removed: {_described(stored)}")
        emit({"removed": asdict(stored)}, as_json)
