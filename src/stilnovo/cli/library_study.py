"""`stilnovo library concordance`, `parallels`, `cite`: a library as an instrument of study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stilnovo.cli.common import AsJson, EmbeddingModel, EmbeddingServer, LibraryPath, emit
from stilnovo.cli.library_common import open_store, search_with, section_named, work_named
from stilnovo.errors import InputError
from stilnovo.library import references
from stilnovo.library.concordance import WIDTH, aligned, as_csv
from stilnovo.library.concordance import concordance as find_places
from stilnovo.library.parallels import parallels as find_parallels
from stilnovo.library.store import Library
from stilnovo.progress import counted
from stilnovo.runlog import write_atomic

Works = Annotated[
    list[str] | None,
    typer.Option("--work", metavar="NAME", help="Only this work: its number or title (may be given several times)."),
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write them all to a file, .csv or .json.")]
Service = Annotated[
    str, typer.Option("--service", metavar="URL", help="Address of `stilnovo serve`, before the links into its reader.")
]


def concordance(
    word: Annotated[str, typer.Argument(help="A word, or several in a row in quotation marks.")],
    work: Works = None,
    exact: Annotated[bool, typer.Option("--exact", help="Only this form, not all forms of the word.")] = False,
    sort: Annotated[
        Literal["text", "left", "right", "word"],
        typer.Option(help="text: as they stand; left, right: by the words before or after; word: by the form."),
    ] = "text",
    width: Annotated[int, typer.Option(min=10, max=400, help="Characters on each side.")] = WIDTH,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of lines shown.")] = 100,
    out: Out = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """List every place of a word, in the middle of its line (KWIC)."""
    with open_store(library) as store:
        works = [work_named(store, name) for name in work or ()]
        lines = find_places(store, word, works, exact=exact, order=sort, width=width)
    for line in aligned(lines[:limit], width):
        print(line)
    rows = [line.as_dict() for line in lines]
    _write(out, rows)
    more = f"; {limit} are shown (--limit)" if len(lines) > limit else ""
    print(f"{counted(len(lines), 'place')} in {counted(len({line.section.work.id for line in lines}), 'work')}{more}.")
    emit({"word": word, "exact": exact, "places": len(rows), "lines": rows[:limit]}, as_json)


def parallels(
    passage: Annotated[str, typer.Argument(help="A passage's words, or its id (see `show --section … --json`).")],
    work: Works = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Maximum number of each kind.")] = 5,
    out: Out = None,
    model: EmbeddingModel = None,
    url: EmbeddingServer = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Find where a passage's words, or its image, stand elsewhere."""
    with open_store(library) as store:
        search_with(store, model, url, None)
        apart = next(iter(store.passages([int(passage)])), None) if passage.isdigit() else None
        if passage.isdigit() and apart is None:
            raise InputError(
                f"There is no passage {passage}.", "", "Ids stand in `stilnovo library show --section … --json`."
            )
        text = apart.text if apart else passage
        found = find_parallels(store, text, limit, [work_named(store, name) for name in work or ()], apart)
    rows = [parallel.as_dict() for parallel in found]
    for number, row in enumerate(rows, start=1):
        said = (
            f"the same words: «{row['shared']}»" if row["kind"] == "words" else f"near in meaning, {row['score']:.2f}"
        )
        print(f"{number}. {row['citation']} [{said}]\n{row['text']}\n")
    if not rows:
        print("Nothing found.")
    _write(out, rows)
    emit({"passage": text, "parallels": rows}, as_json)


def cite(
    work: Annotated[str, typer.Argument(help="Number (see `list`) or a part of the title.")],
    section: Annotated[str, typer.Option(help="Cite one section: its number in the list, or its label.")] = "",
    words: Annotated[str, typer.Option(help="Cite the place of these words.")] = "",
    service: Service = "",
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Print bibliography entry, note and permanent link of a work or a place."""
    with open_store(library) as store:
        stored = work_named(store, work)
        cited = _cited(store, store.sections(stored), section, words)
    result = {
        "entry": references.entry(stored), "note": cited[0], "link": references.link(stored, *cited[1], service),
        "bibtex": references.bibtex(stored), "csl": references.csl(stored),
    }  # fmt: skip
    print(f"{result['entry']}\n{result['note']}\n{result['link']}\n\n{result['bibtex']}")
    emit(result, as_json)


def _cited(store: Library, sections: list[Any], section: str, words: str) -> tuple[str, tuple[int, int]]:
    """The note on a place, and where it is."""
    chapter = section_named(sections, section) if section else sections[0]
    text = store.text(chapter.work)
    if words:
        lines = find_places(store, words, [chapter.work], exact=True)
        inside = [line for line in lines if not section or line.section.id == chapter.id]
        if not inside:
            raise InputError(f"«{words}» does not stand there.", chapter.work.title, "See: stilnovo library search")
        return references.note(inside[0].section, inside[0].verses), (inside[0].start, inside[0].end)
    if section:
        return references.note(chapter), (chapter.start, chapter.end)
    return references.entry(chapter.work), (0, len(text))


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write rows to a file by its suffix, whole or not at all."""
    if out is None:
        return
    if out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"{out.name} is neither .csv nor .json.", next="Such as: --out places.csv")
    write_atomic(
        out, as_csv(rows) if out.suffix.lower() == ".csv" else json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    )
