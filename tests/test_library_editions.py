"""The same file again, corrected: it replaces its older version, and never another work that only bears its name."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from older_library import PROSE, make_format_2
from serving import begin, say, serving
from stilnovo.io.sample import library_texts
from stilnovo.library.editions import SAME_FILE, SAME_NAMES, likeness
from stilnovo.library.read import read, understand
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book

BOAT = "Autore: Ada Rossi\nTitolo: La barca\n\nCapitolo I\n\nPartì di lunedi.\n"
NOVELLA = library_texts()[0].read_text(encoding="utf-8").split("\n\n", 1)[1]


def run(*arguments: str, library: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILNOVO_LIBRARY": str(library)}
    command = [sys.executable, "-m", "stilnovo.cli.main", "library", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def titles(library: Library) -> list[str]:
    return [work.title for work in library.works()]


def test_a_corrected_file_replaces_its_older_version(tmp_path: Path) -> None:
    file, path = tmp_path / "b.txt", tmp_path / "libri.sqlite"
    file.write_text(BOAT, encoding="utf-8")
    assert run("add", str(file), library=path).returncode == 0
    file.write_text(BOAT.replace("lunedi", "lunedì"), encoding="utf-8")
    seen = run("add", str(file), "--dry-run", "--json", library=path)
    assert "would replace «La barca»" in seen.stdout
    assert last_json(seen)["understood"][0]["replaces"]["id"] == 1  # type: ignore[index]
    done = run("add", str(file), "--json", library=path)
    assert done.returncode == 0
    assert "is replaced" in done.stderr
    assert "--keep-both" in done.stderr
    work = last_json(done)["works"][0]  # type: ignore[index]
    assert (work["new"], work["replaced"]["title"]) == (True, "La barca")
    with Library.open(path) as library:
        assert titles(library) == ["La barca"]
        assert "lunedì" in library.text(library.works()[0])
        assert library.works()[0].id == 2  # ids are never given twice
        assert [hit.passage.text for hit in search(library, '"di lunedì"')] == ["Partì di lunedì."]
        assert library.check() == []
    assert "there already" in run("add", str(file), library=path).stdout

    file.write_text(BOAT.replace("Partì", "Partì, credo,"), encoding="utf-8")
    done = run("add", str(file), "--keep-both", "--json", library=path)
    assert last_json(done)["works"][0]["replaced"] is None  # type: ignore[index]
    done = run("remove", "La barca", library=path)
    assert done.returncode == 2
    assert "2 of 2" in done.stderr
    assert "2 Ada Rossi, La barca (b.txt); 3 Ada Rossi, La barca (b.txt)" in done.stderr
    assert "number, such as 2" in done.stderr
    assert run("remove", "2", library=path).returncode == 0
    with Library.open(path) as library:
        assert [work.id for work in library.works()] == [3]


def book(text: str, title: str = "La barca", author: str = "Ada Rossi", file: str = "testo.txt") -> Book:
    return Book(Names(title, author), text, file, data=text.encode())


@pytest.mark.parametrize(
    ("corrected", "replaced"),
    [
        (lambda text: text.replace("il ", "lo "), True),  # a systematic slip
        (lambda text: text.replace("\n", " ").upper(), True),  # another set-up of the page, another case
        (lambda text: text[: len(text) * 7 // 10], True),  # notes and licence gone
        (lambda text: text + "\n\n" + text.replace("Tecla", "Nunzia"), True),  # the whole work, where a part was
        (lambda text: text[: len(text) // 3], False),  # an excerpt: two thirds would be lost
        (lambda text: text[::-1], False),  # another work
    ],
)
def test_what_counts_as_the_same_work(corrected: object, replaced: bool) -> None:
    assert callable(corrected)
    with Library.open(None) as library:
        first = library.add(book(NOVELLA)).work
        for other in (
            book(corrected(NOVELLA)),  # the same names, the same file
            book(corrected(NOVELLA), file="altro.txt"),
            book(corrected(NOVELLA), title="Il faro", author="", file="testo.txt"),
        ):
            assert library.older(other) == (first if replaced else None)
        assert library.older(book(corrected(NOVELLA), "Il faro", "Ada Neri", "altro.txt")) is None  # nothing says so


def made(seed: int, length: int) -> str:
    """A text of common Italian words, so that two texts share most of their words and few of their runs."""
    words = sorted({word.strip(".,;:«»!?—").lower() for word in NOVELLA.split()} - {""})
    draw = random.Random(seed)
    return " ".join(draw.choice(words) for _ in range(length)).capitalize() + "."


@pytest.mark.parametrize("seed", range(40))
def test_few_changed_words_are_the_same_work_and_other_texts_are_not(seed: int) -> None:
    draw = random.Random(seed)
    length, every = draw.randint(60, 900), draw.randint(12, 60)
    text = made(seed, length)
    words = text.split()
    for at in draw.sample(range(length), length // every):
        words[at] = draw.choice(["mendato", words[at] * 2, words[at][:1]])
    assert likeness(text, " ".join(words)) >= SAME_FILE
    assert likeness(text, made(seed + 1000, length)) < SAME_FILE / 2


@pytest.mark.parametrize(
    "texts",
    [
        ["Sempre caro mi fu quest'ermo colle, e questa siepe.", "Dolce e chiara è la notte e senza vento."],
        [PROSE, NOVELLA],
        [NOVELLA[: len(NOVELLA) // 2], NOVELLA[len(NOVELLA) // 2 :]],  # volume one and volume two
    ],
)
def test_works_that_share_only_names_stay_both(texts: list[str]) -> None:
    with Library.open(None) as library:
        first = library.add(book(texts[0]))
        second = library.add(book(texts[1]))
        assert (second.new, second.replaced) == (True, None)
        assert second.namesake == first.work
        assert len(library.works()) == 2
        assert library.add(book(texts[1][:-1] + "!")).replaced == second.work  # the right one of them
        assert library.check() == []


def test_two_collections_that_share_half_stay_both_unless_the_file_is_the_same() -> None:
    poems = [made(seed, 120) for seed in range(4)]
    first, second = "\n\n".join(poems[:3]), "\n\n".join([poems[0], poems[1], poems[3]])
    assert SAME_FILE < likeness(first, second) < SAME_NAMES
    with Library.open(None) as library:
        work = library.add(book(first, "Poesie", file="1891.txt")).work
        assert library.older(book(second, "Poesie", file="1903.txt")) is None
        assert library.older(book(second, "Poesie", file="1891.txt")) == work


def test_names_that_a_person_gave_stay_and_the_others_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "racconto.txt"

    def add(library: Library, text: str, names: Names | None = None) -> Names:
        file.write_text(text, encoding="utf-8")
        work = library.add(read(file, names)).work
        return Names(work.title, work.author, work.year)

    body = f"\n\n{NOVELLA}"
    with Library.open(tmp_path / "libri.sqlite") as library:
        assert add(library, f"Titolo: Il fato{body}") == Names("Il fato", "", None)
        work = library.rename(library.works()[0], Names(author="Ada Rossi"))
        assert library.given(work) == Names(author="Ada Rossi")
        assert add(library, f"Titolo: Il faro\nAutore: A. R.{body}.") == Names("Il faro", "Ada Rossi", None)
        given = Names("La lanterna", "Ada Neri", 1900)
        assert add(library, f"Titolo: Il faro{body}!", given) == given
        assert add(library, f"Titolo: Il faro\nAnno: 1899{body}?") == given
        assert len(library.works()) == 1


def test_a_work_of_an_older_format_is_completed_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "libri.sqlite"
    make_format_2(path)
    with Library.open(path) as library:
        before = next(work for work in library.works() if work.title == "La barca")
        assert library.source(before) is None
        done = library.add(understand(PROSE.encode(), "altro nome.txt"))
        assert (done.new, done.replaced) == (False, None)
        assert library.source(done.work) == PROSE.encode()
        assert (done.work.title, done.work.author, done.work.year) == ("La barca", "Ada Rossi", 1891)
        assert done.work.sha256 == before.sha256  # so that conversations still find it
        assert len(library.works()) == 2
        assert library.check() == []
        corrected = library.add(understand(PROSE.replace("fiume", "mare").encode(), "La barca.txt"))
        assert corrected.replaced == done.work
        assert corrected.work.author == "Ada Rossi"


def test_a_failing_replacement_leaves_the_old_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Library.open(tmp_path / "libri.sqlite") as library:
        work = library.add(book(NOVELLA)).work

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("stilnovo.library.passages.cut", fail)
        with pytest.raises(KeyboardInterrupt):
            library.add(book(NOVELLA + " Fine."))
        monkeypatch.undo()
        assert library.works() == [work]
        assert library.check() == []


def test_reread_changes_what_a_better_reader_reads(tmp_path: Path) -> None:
    path, file = tmp_path / "libri.sqlite", tmp_path / "b.txt"
    make_format_2(path)
    file.write_text(BOAT, encoding="utf-8")
    with Library.open(path) as library:
        library.add(read(file, Names(year=1891)))
        # As an older reader would have stored it: a word glued, a heading not seen.
        library.connection.execute("UPDATE texts SET text = replace(text, 'di lunedi', 'dilunedi') WHERE work = 9")
        library.connection.execute("UPDATE works SET sha256 = 'x' WHERE id = 9")
    done = run("reread", "--dry-run", "--json", library=path)
    assert done.returncode == 0, done.stderr
    told = last_json(done)
    assert {state: len(works) for state, works in told.items() if isinstance(works, list)} == {  # type: ignore[misc]
        "changed": 1, "unchanged": 0, "without_file": 2, "failed": 0,
    }  # fmt: skip
    assert "add its file again" in done.stderr
    with Library.open(path) as library:
        assert "dilunedi" in library.text(library.work(9))
    assert run("reread", "La barca", library=path).returncode == 2  # two works of that name
    assert len(last_json(run("reread", "9", "--json", library=path))["changed"]) == 1  # type: ignore[arg-type]
    with Library.open(path) as library:
        work = library.works()[-1] if library.works()[-1].id > 9 else library.works()[0]
        work = max(library.works(), key=lambda work: work.id)
        assert library.text(work) == "Capitolo I\n\nPartì di lunedi."
        assert (work.title, work.author, work.year) == ("La barca", "Ada Rossi", 1891)
        assert library.check() == []
    assert len(last_json(run("reread", "--json", library=path))["unchanged"]) == 1  # type: ignore[arg-type]


def test_the_page_says_what_an_upload_replaces(tmp_path: Path) -> None:
    def send(text: str, keep_both: bool = False) -> tuple[object, object]:
        shown = service.post("/api/uploads", files={"file": ("b.txt", text.encode())}).json()
        names = {"title": shown["title"], "author": shown["author"], "keep_both": keep_both}
        kept = service.post(f"/api/uploads/{shown['id']}/confirm", json=names)
        assert kept.status_code == 201, kept.text
        return shown["replaces"], kept.json()["replaced"]

    header = "Autore: Ada Rossi\nTitolo: La barca\n\n"
    with serving(tmp_path / "libri.sqlite") as service:
        assert send(header + PROSE) == (None, None)
        cited = say(service, begin(service), "Che cosa fece il gatto quando Ada partì di lunedì?")
        citation = cited[-1][1]["details"]["citations"][0]
        first = service.get("/api/works").json()["works"][0]
        assert send(header + PROSE.replace("fiume", "mare")) == (first, first)
        # A quotation from the older text is as one from a work that was removed.
        gone = service.get(f"/api/works/{citation['sha256']}/section", params={"at": citation["start"]})
        assert gone.status_code == 404
        second = service.get("/api/works").json()["works"]
        assert len(second) == 1
        assert send(header + PROSE.replace("fiume", "lago"), keep_both=True) == (second[0], None)
        assert len(service.get("/api/works").json()["works"]) == 2
