"""Concordance, parallel passages, references: every place, aligned, found again; from the command line and over HTTP."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from serving import serving
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.library import references
from stilnovo.library.concordance import aligned, concordance
from stilnovo.library.parallels import parallels
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import stem, tokens

SEA = (
    "CAPITOLO I\n\nIl mare dormiva sotto la luna. «L'amore del mare», diceva il vecchio, «è l'amore di chi aspetta».\n\n"
    "CAPITOLO II\n\nNel porto i mari del nord parevano una favola, e gli amori dei marinai anche.\n"
)
HILL = (
    "CAPITOLO I\n\nSul colle il mare non si vedeva; ma il mare dormiva sotto la luna anche quella notte, diceva la gente.\n\n"
    "CAPITOLO II\n\nIl foco ardeva, e il fuoco scaldava la casa.\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Library.open(tmp_path / "libri.sqlite") as library:
        library.add(Book(Names("Il mare", "Edmondo De Rossi", 1890), SEA, "mare.txt"))
        library.add(Book(Names("Il colle", "Ada Bruni"), HILL, "colle.txt"))
    return tmp_path / "libri.sqlite"


@pytest.fixture
def library(path: Path) -> Iterator[Library]:
    with Library.open(path) as library:
        yield library


def test_every_place_of_a_word_and_of_its_forms(library: Library) -> None:
    assert [line.word for line in concordance(library, "mare")] == ["mare", "mare", "mare", "mare", "mari"]
    assert [line.word for line in concordance(library, "mare", exact=True)] == ["mare"] * 4
    assert [line.word for line in concordance(library, "fuoco")] == ["foco", "fuoco"]
    assert [line.word for line in concordance(library, "il mare dormiva")] == ["il mare dormiva", "Il mare dormiva"]
    assert concordance(library, "balena") == []
    works = [work for work in library.works() if work.title == "Il mare"]
    assert {line.section.work.title for line in concordance(library, "mare", works)} == {"Il mare"}
    with pytest.raises(InputError, match="needs a word"):
        concordance(library, "…")


def test_lines_are_the_texts_own_words_aligned_and_sorted(library: Library) -> None:
    lines = concordance(library, "mare", width=20)
    for line in lines:
        text = library.text(line.section.work)
        assert text[line.start : line.end] == line.word
        around = " ".join(text[line.section.body : line.section.end].split())
        assert f"{line.before}{line.word}{line.after}" in around
        assert max(len(line.before), len(line.after)) <= 20
    assert len({shown.index("[") for shown in aligned(lines, 20)}) == 1
    after = [[word.form for word in tokens(line.after)] for line in concordance(library, "mare", order="right")]
    assert after == sorted(after)
    before = [[word.form for word in tokens(line.before)][::-1] for line in concordance(library, "mare", order="left")]
    assert before == sorted(before)


def test_no_place_is_lost_nor_counted_twice() -> None:
    """Over made texts, the concordance has exactly the places that a plain walk through the words finds."""
    draw = random.Random(3)
    vocabulary = ["sole", "soli", "mare", "terra", "l'amore", "amori", "cuore", "core", "perché", "Tèrra"]
    with Library.open(None) as library:
        for number in range(3):
            pieces = [
                " ".join(draw.choice(vocabulary) for _ in range(draw.randrange(3, 60))) + draw.choice(".!;")
                for _ in range(draw.randrange(5, 40))
            ]
            library.add(Book(Names(f"Opera {number}", f"Autore {number}"), "\n\n".join(pieces), f"{number}.txt"))
        for word in ("sole", "terra", "amore", "cuore", "perché"):
            walked = [
                (work.id, place.start)
                for work in library.works()
                for place in tokens(library.text(work))
                if stem(place.form) == stem(word) and not place.elided
            ]
            assert [(line.section.work.id, line.start) for line in concordance(library, word)] == walked, word


def test_parallels_by_the_same_words_and_by_meaning(library: Library) -> None:
    found = parallels(library, "Quella notte il mare dormiva sotto la luna d'agosto")
    assert sorted(one.passage.section.work.title for one in found) == ["Il colle", "Il mare"]
    assert found[0].shared.lower() == "il mare dormiva sotto la luna"
    assert parallels(library, "Nessuno di noi parla così") == []
    own = next(p for p in (hit.passage for hit in found) if p.section.work.title == "Il mare")
    assert [one.passage.section.work.title for one in parallels(library, own.text, apart=own)] == ["Il colle"]

    class Toy:
        name = "giocattolo"

        def passages(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0, 0.0] if "foco" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

        def query(self, _: str) -> np.ndarray:
            return np.array([1.0, 0.0], dtype=np.float32)

    library.embedder = Toy()  # type: ignore[assignment]
    library.embed()
    near = parallels(library, "la fiamma del camino", limit=1)
    assert [(one.kind, "foco" in one.passage.text) for one in near] == [("meaning", True)]


def test_references_name_the_work_and_lead_to_the_place(library: Library) -> None:
    work = next(work for work in library.works() if work.title == "Il mare")
    assert references.entry(work) == "De Rossi, Edmondo, Il mare, 1890 [mare.txt]."
    assert references.note(library.sections(work)[1]) == "E. De Rossi, Il mare, 1890, cap. II."
    assert references.bibtex(work).startswith("@book{rossi1890mare,\n  author = {De Rossi, Edmondo},")
    assert references.csl(work)["issued"] == {"date-parts": [[1890]]}
    assert references.link(work, 3, 9, "http://qui/") == f"http://qui/#/biblioteca/{work.sha256}/3-9"
    assert [references.inverted(name) for name in ("Gabriele D'Annunzio", "Caterina da Siena", "Vamba", "")] == [
        "D'Annunzio, Gabriele", "Caterina da Siena", "Vamba", "",
    ]  # fmt: skip


def run(*arguments: str) -> dict:
    done = CliRunner().invoke(app, ["library", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_study_from_the_command_line(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "mare.csv"
    result = run("concordance", "mare", "--sort", "right", "--limit", "2", "--out", str(out), "--library", str(path))
    assert (result["places"], len(result["lines"])) == (5, 2)
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert len(rows) == 5
    assert rows[0]["citation"].startswith(("Ada Bruni", "Edmondo De Rossi"))
    assert run("parallels", "il mare dormiva sotto la luna", "--library", str(path))["parallels"][0]["kind"] == "words"
    cited = run("cite", "Il mare", "--words", "i mari del nord", "--service", "http://qui", "--library", str(path))
    assert cited["note"] == "E. De Rossi, Il mare, 1890, cap. II."
    assert cited["link"].startswith("http://qui/#/biblioteca/")


def test_study_over_http(path: Path) -> None:
    with serving(path) as client:
        found = client.get("/api/concordance", params={"q": "mare", "sort": "left", "limit": 3}).json()
        assert (found["places"], len(found["lines"])) == (5, 3)
        table = client.get("/api/concordance", params={"q": "mare", "format": "csv"})
        assert table.headers["content-type"].startswith("text/csv")
        assert len(table.text.splitlines()) == 6
        sha256 = found["lines"][0]["sha256"]
        only: httpx.Response = client.get("/api/concordance", params={"q": "mare", "work": sha256})
        assert 0 < only.json()["places"] < 5
        assert client.get("/api/concordance", params={"q": "mare", "work": "0" * 64}).status_code == 404
        assert client.get("/api/concordance", params={"q": "…"}).status_code == 400
        body = {"text": "il mare dormiva sotto la luna", "limit": 1}
        assert client.post("/api/parallels", json=body).json()["parallels"][0]["shared"].lower() == body["text"]
        assert client.get(f"/api/works/{sha256}/citation").json()["bibtex"].startswith("@book{")
