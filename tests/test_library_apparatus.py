"""Apparatus: kept with its place, searched as such, never met by a search for the author's words or by a quotation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import serving
from stilnovo.library.apparatus import placed, search_apparatus, words_by_kind
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.reading.headings import Heading
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Apparatus, Book, TextBuilder


def play() -> Book:
    """A short play as a reader gives it: speakers, a stage direction, a note."""
    text = TextBuilder()
    text.heading(["SCENA I"], 1)
    text.apart("stage", "Mirandolina entra, con la biancheria.")
    text.apart("speaker", "MIRANDOLINA")
    text.put("Che vuole, illustrissimo?", "\n\n")
    text.apart("note", "Il cavaliere disprezza le donne: vedi la prefazione dell'editore.")
    text.heading(["SCENA II"], 1)
    text.apart("speaker", "CAVALIERE")
    text.put("Vi chiedo scusa.", "\n\n")
    text.apart("page", "17")
    book = text.book(Names("La locandiera", "Carlo Goldoni"))
    return Book(
        book.names,
        book.text,
        "locandiera.xml",
        book.headings,
        book.apparatus,
        warnings=("La tavola 3 manca.",),
        data=b"x",
    )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.open(tmp_path / "libri.sqlite")
    library.add(play())
    return library


def test_it_is_placed_between_the_words_where_it_stood(library: Library) -> None:
    (work,) = library.works()
    items = placed(library, work)
    assert [(item.item.kind, item.section.label) for item in items] == [
        ("stage", "Scena I"), ("speaker", "Scena I"), ("note", "Scena I"), ("speaker", "Scena II"), ("page", "Scena II"),
    ]  # fmt: skip
    note = items[2]
    assert (note.before, note.after) == ("SCENA I Che vuole, illustrissimo?", "SCENA II Vi chiedo scusa.")
    assert note.citation == "Carlo Goldoni, La locandiera, scena I"
    assert words_by_kind(library.apparatus(work)) == {"note": 9, "stage": 5, "speaker": 2, "page": 1}
    assert library.warnings(work) == ["La tavola 3 manca."]


def test_it_is_searched_as_such_and_never_met_otherwise(library: Library) -> None:
    (hit,) = search_apparatus(library, "il cavaliere e le donne", 5)[:1]
    assert hit.item.kind == "note"
    assert hit.score > 0
    assert [h.item.text for h in search_apparatus(library, '"con la biancheria"')] == [
        "Mirandolina entra, con la biancheria."
    ]
    assert search_apparatus(library, '"illustrissimo"') == []  # the author's
    assert search_apparatus(library, "?!") == []
    assert search(library, '"disprezza le donne"') == []
    assert search(library, '"Mirandolina"') == []
    library.add(Book(Names("Altra"), "Un testo.", "a.txt", apparatus=(Apparatus("note", "Le donne cavaliere.", 3),)))
    assert [h.section.work.title for h in search_apparatus(library, "donne", works=[library.works()[0].id])] == [
        "Altra"
    ]
    assert library.check_works() == []


def test_its_index_follows_the_works(library: Library) -> None:
    assert library.path is not None
    assert search_apparatus(library, "biancheria")
    with Library.open(library.path) as other:
        assert search_apparatus(other, "biancheria")
        library.remove(library.works()[0])
        assert search_apparatus(other, "biancheria") == []
        library.add(play())
        assert len(search_apparatus(other, "biancheria")) == len(search_apparatus(library, "biancheria")) == 1


def test_an_item_at_the_end_and_a_work_without_sections() -> None:
    with Library.open(None) as library:
        items = (Apparatus("title page", "MILANO", 0), Apparatus("colophon", "Finito di stampare.", 9))
        work = library.add(Book(Names("Prova"), "Un testo.", "a.txt", (), items)).work
        assert [(item.before, item.after) for item in placed(library, work)] == [("", "Un testo."), ("Un testo.", "")]
        assert search_apparatus(library, "stampare")[0].item == items[1]
        nested = (Heading(0, 2, 1, "parte", 1, "Parte I"), Heading(0, 2, 2, "capitolo", 1, "Capitolo I"))
        assert library.add(Book(Names("Due"), "Un altro testo.", "b.txt", nested, items)).new


def test_the_command_and_the_routes(library: Library) -> None:
    assert library.path is not None
    environment = {**os.environ, "STILNOVO_LIBRARY": str(library.path)}
    base = [sys.executable, "-m", "stilnovo.cli.main", "library"]

    def run(*arguments: str) -> tuple[str, dict[str, object]]:
        done = subprocess.run([*base, *arguments, "--json"], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr, json.loads(done.stdout.splitlines()[-1])

    said, result = run("search", "donne", "--apparatus")
    assert "1. Carlo Goldoni, La locandiera, scena I [note], after «SCENA I Che vuole, illustrissimo?»" in said
    (found,) = result["results"]  # type: ignore[misc]
    assert (found["kind"], found["section"], found["after"]) == ("note", "Scena I", "SCENA II Vi chiedo scusa.")
    assert run("search", "biancheria")[1]["results"] == []
    said, result = run("show", "locandiera")
    assert "apparatus: 17 words (note 9, stage 5, speaker 2, page 1)" in said
    assert "La tavola 3 manca." in said
    assert (result["apparatus"], result["warnings"]) == (
        {"note": 9, "stage": 5, "speaker": 2, "page": 1},
        ["La tavola 3 manca."],
    )
    with serving(library.path) as service:
        sha = service.get("/api/works").json()["works"][0]["sha256"]
        whole = service.get(f"/api/works/{sha}/apparatus").json()
        assert (len(whole["apparatus"]), whole["words"]["note"], whole["warnings"]) == (5, 9, ["La tavola 3 manca."])
        notes = service.get(f"/api/works/{sha}/apparatus", params={"kind": "note"}).json()["apparatus"]
        assert [(item["kind"], item["section"], item["position"]) for item in notes] == [("note", "Scena I", 0)]
        section = service.get(f"/api/works/{sha}/section", params={"at": 0}).json()
        assert [item["kind"] for item in section["apparatus"]] == ["stage", "speaker", "note"]
        hits = service.get("/api/search", params={"q": "donne", "apparatus": True}).json()["results"]
        assert [(hit["kind"], hit["sha256"], hit["citation"]) for hit in hits] == [
            ("note", sha, "Carlo Goldoni, La locandiera, scena I")
        ]
        assert service.get("/api/search", params={"q": "biancheria"}).json() == {"results": []}
        assert service.get(f"/api/works/{'0' * 64}/apparatus").status_code == 404
