"""The library file: one transaction a work, the same text once, an index that agrees with the truth, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stilnovo.errors import InputError, StilnovoError
from stilnovo.io import sample
from stilnovo.library.location import open_or_sample, sample_library
from stilnovo.library.read import read
from stilnovo.library.records import citation
from stilnovo.library.search import search
from stilnovo.library.store import Library, default_path
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import fold, tokens


def document(text: str, title: str = "Prova") -> Book:
    return Book(Names(title, "Ada Prova", 1901), text, f"{title}.txt")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library.open(tmp_path / "libri.sqlite")
    for path in sample.library_texts():
        library.add(read(path))
    return library


def test_add_twice_remove_and_reopen(library: Library) -> None:
    assert library.path is not None
    works = library.works()
    assert [work.title for work in works] == ["Il faro di Pietranera", "La notte delle lucciole"]
    again = library.add(read(sample.library_texts()[0]))
    assert (again.new, again.work) == (False, works[0])
    assert library.check() == []
    library.remove(works[0])
    assert library.works() == works[1:]
    assert library.check() == []
    assert search(library, "petrolio") == []
    library.close()
    with Library.open(library.path) as reopened:
        assert [work.sha256 for work in reopened.works()] == [works[1].sha256]
        assert reopened.check() == []


def test_every_passage_is_its_span(library: Library) -> None:
    for work in library.works():
        text = library.text(work)
        assert len(text) == work.characters
        for section in library.sections(work):
            for passage in library.passages_of(section):
                assert passage.text == text[passage.start : passage.end]
                assert bool(passage.verses) == section.verse
                assert library.passages([passage.id]) == [passage]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE passages SET text = text || 'x' WHERE id = 3", "not its span"),
        ("UPDATE passages SET start = start + 1, end = end + 1 WHERE id = 3", "not its span"),
        ("UPDATE texts SET text = replace(text, 'faro', 'Faro') WHERE work = 1", "has changed"),
        ("UPDATE sections SET start = start + 5 WHERE id = 2", "in no section"),
        ("UPDATE passages SET text = 'tutt altro' WHERE id = 4", "not in the index under its words"),
        ("DELETE FROM passages WHERE id = 4", "The index holds"),
    ],
)
def test_check_finds_damage(library: Library, damage: str, words: str) -> None:
    search(library, "faro")  # the index is there before the damage
    library.connection.execute(damage)
    assert words in " ".join(library.check())


def test_check_names_a_kept_file_that_cannot_be_read(library: Library) -> None:
    library.connection.execute("UPDATE sources SET data = x'00' WHERE work = 1")
    (problem,) = library.check()
    assert "cannot be read any more" in problem


def found(library: Library, query: str) -> list[int]:
    return [hit.passage.id for hit in search(library, query, 50)]


@pytest.mark.parametrize("harm", ["lost", "other version", "no state", "garbage", "another library's", "behind"])
def test_the_index_mends_itself(library: Library, tmp_path: Path, harm: str) -> None:
    assert library.path is not None
    folder = library.index_folder
    assert folder is not None
    before = found(library, "lanterna faro")
    assert before
    library.close()
    state = folder / "works.json"
    if harm == "lost":
        shutil.rmtree(folder)
    elif harm == "other version":
        state.write_text(state.read_text().replace('"version": ', '"version": 9'))
    elif harm == "no state":
        state.unlink()
    elif harm == "garbage":
        (folder / "meta.json").write_text("{")
    elif harm == "another library's":
        with Library.open(tmp_path / "altri.sqlite") as other:
            other.add(document("Il gatto della lanterna dormiva nel faro."))
            search(other, "gatto")
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "altri.sqlite.index", folder)
    elif harm == "behind":  # killed between the commit and its record: the works are there, and nobody knows
        state.write_text(json.dumps({**json.loads(state.read_text()), "works": {}}))
    with Library.open(library.path) as again:
        assert found(again, "lanterna faro") == before
        assert again.check() == []


def test_an_empty_library_opened_by_many_keeps_one_index(tmp_path: Path) -> None:
    with Library.open(tmp_path / "libri.sqlite") as first, Library.open(tmp_path / "libri.sqlite") as second:
        assert found(first, "gatto") == []
        assert first.index_folder is not None
        made = (first.index_folder / "meta.json").stat().st_ino
        assert found(second, "gatto") == []
        assert (first.index_folder / "meta.json").stat().st_ino == made
        first.add(document("Il gatto dormiva."))
        assert found(first, "gatto") == found(second, "gatto") != []


def test_ids_are_never_given_twice(library: Library) -> None:
    last = library.works()[-1]
    numbers = {p.id for work in library.works() for s in library.sections(work) for p in library.passages_of(s)}
    for work in library.works():
        library.remove(work)
    added = library.add(document("Il gatto dormiva.")).work
    assert added.id > last.id
    assert min(p.id for s in library.sections(added) for p in library.passages_of(s)) > max(numbers)


def test_two_open_libraries_see_each_others_works(library: Library) -> None:
    assert library.path is not None
    with Library.open(library.path) as other:
        assert found(other, "gattopardo") == found(library, "gattopardo") == []
        added = library.add(document("Il gattopardo dormiva.")).work
        assert len(found(other, "gattopardo")) == len(found(library, "gattopardo")) == 1
        other.remove(other.work(added.id))
        assert found(library, "gattopardo") == []


def test_a_library_of_the_first_format_is_brought_up_to_date(tmp_path: Path, library: Library) -> None:
    assert library.path is not None
    before = found(library, "lanterna")
    db = library.connection
    for table in ("vectors", "sources", "apparatus"):
        db.execute(f"DROP TABLE {table}")
    db.execute("ALTER TABLE sections DROP COLUMN lines")
    db.execute("DELETE FROM facts")
    db.execute("INSERT INTO facts VALUES ('index', '1')")
    db.execute('CREATE VIRTUAL TABLE words USING fts5(surface, tokenize="unicode61")')
    db.execute("PRAGMA user_version = 1")
    library.close()
    with Library.open(library.path) as again:
        assert found(again, "lanterna") == before
        assert again.check() == []


def test_a_folder_that_cannot_be_written(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only disk; the superuser may write anywhere, so the refusal is made by hand."""
    assert library.path is not None
    shutil.rmtree(library.path.with_name("libri.sqlite.index"), ignore_errors=True)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert found(library, "lanterna")
    assert not (library.path.with_name("libri.sqlite.index")).exists()


def test_neighbours_and_whole_sections(library: Library) -> None:
    novel = library.works()[0]
    section = library.sections(novel)[7]
    inside = library.passages_of(section)
    assert library.around(inside[1], 1) == inside[:3]
    assert library.around(inside[0], 1) == inside[:2]
    text = library.text(section.work)[section.start : section.end]
    assert text == library.text(novel)[section.start : section.end]
    assert all(passage.text in text for passage in inside)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "testo.sqlite").write_text("questo non è una biblioteca " * 50)
    with sqlite3.connect(tmp_path / "altro.sqlite") as other:
        other.execute("CREATE TABLE a(b)")
    other.close()
    (tmp_path / "file").write_text("")
    for name, words in (
        ("testo.sqlite", "damaged"),
        ("altro.sqlite", "no stilnovo library"),
        ("file/a.sqlite", "folder"),
    ):
        with pytest.raises(InputError, match=words):
            Library.open(tmp_path / name)


def test_a_locked_library_says_so(library: Library) -> None:
    assert library.path is not None
    other = sqlite3.connect(library.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    library.connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StilnovoError, match="another program"):
        library.add(document("Un testo nuovo."))
    other.execute("ROLLBACK")
    other.close()
    assert library.add(document("Un testo nuovo.")).new
    assert library.check() == []


def test_a_failing_add_leaves_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    before = library.works()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stilnovo.library.passages.cut", fail)
    with pytest.raises(KeyboardInterrupt):
        library.add(document("Capitolo I\n\nUn testo nuovo.\n"))
    monkeypatch.undo()
    assert library.works() == before
    assert library.check() == []


ADD = """
import sys
from pathlib import Path
from stilnovo.library.read import files_in, read
from stilnovo.library.store import Library
with Library.open(Path(sys.argv[1])) as library:
    for file in files_in([Path(sys.argv[2])]):
        print(library.add(read(file)).work.title, flush=True)
"""


def test_kill_9_leaves_whole_works_only(tmp_path: Path) -> None:
    folder = tmp_path / "libri"
    folder.mkdir()
    base = sample.library_texts()[0].read_text(encoding="utf-8").split("\n\n", 1)[1]
    for number in range(30):
        (folder / f"libro_{number:02}.txt").write_text(base.replace("Tecla", f"Tecla{number}") * 4, encoding="utf-8")
    file = tmp_path / "libri.sqlite"
    for stop_after in (1, 5):
        adding = subprocess.Popen(
            [sys.executable, "-c", ADD, str(file), str(folder)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert adding.stdout is not None
        for _ in range(stop_after):
            adding.stdout.readline()
        adding.send_signal(signal.SIGKILL)
        adding.wait()
        adding.stdout.close()
        with Library.open(file) as library:
            assert library.check() == []
            assert stop_after <= len(library.works()) < 30
            assert all(work.passages > 0 for work in library.works())
    subprocess.run([sys.executable, "-c", ADD, str(file), str(folder)], check=True, capture_output=True)
    with Library.open(file) as library:
        assert len(library.works()) == 30


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("STILNOVO_LIBRARY", raising=False)
    assert default_path() == tmp_path / "stilnovo" / "library.sqlite"
    monkeypatch.setenv("STILNOVO_LIBRARY", str(tmp_path / "mia.sqlite"))
    assert default_path() == tmp_path / "mia.sqlite"


def test_the_sample_answers_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILNOVO_LIBRARY", str(tmp_path / "mia.sqlite"))
    library, is_sample = open_or_sample(None)
    assert is_sample
    assert len(library.works()) == 2
    library.close()
    assert not (tmp_path / "mia.sqlite").exists()
    with Library.open(tmp_path / "mia.sqlite") as mine:
        mine.add(document("Il gatto dormiva."))
    library, is_sample = open_or_sample(None)
    assert not is_sample
    library.close()
    with pytest.raises(InputError, match="no library"):
        open_or_sample(tmp_path / "altra.sqlite")


def test_search_finds_phrases_stems_elisions_and_names() -> None:
    with sample_library() as library:
        best = search(library, "chiamo quelli che hanno perduto la strada")[0].passage
        assert "chiamo quelli che hanno perduto la strada" in best.text
        for query in ('"secca delle monache"', "«Secca delle Monache»"):
            hits = search(library, query, 50)
            assert hits
            assert all("secca delle monache" in fold(hit.passage.text) for hit in hits)
        assert search(library, '"monache delle secca"') == []
        assert search(library, "") == search(library, "?!") == []
        assert {h.passage.id for h in search(library, "dell’isola", 50)} == {
            h.passage.id for h in search(library, "isola", 50)
        }
        assert search(library, "naufraghi")[0].score > 0
        assert search(library, "lucciole")[0].passage.section.work.title == "La notte delle lucciole"
        for odd in ('" OR 1', "a* NEAR(b)", "surface:faro", "'; DROP TABLE works; --", "((("):
            search(library, odd)
        assert len(library.works()) == 2


def test_six_words_in_a_row_find_their_passage() -> None:
    with sample_library() as library:
        for work in library.works():
            for section in library.sections(work):
                for passage in library.passages_of(section):
                    words = [token.form for token in tokens(passage.text)]
                    middle = len(words) // 2
                    query = " ".join(words[middle : middle + 6])
                    assert search(library, query, 1)[0].passage == passage, query


def test_citations_and_json_rows(library: Library) -> None:
    poem = library.works()[1]
    passage = library.passages_of(library.sections(poem)[0])[0]
    assert passage.citation == "stilnovo, La notte delle lucciole, canto I, vv. 1-9"
    novel = library.sections(library.works()[0])[7]
    assert citation(novel) == "stilnovo, Il faro di Pietranera, cap. VIII"
    nameless = library.add(Book(Names("Senza nome"), "Il gatto dormiva.", "x.txt")).work
    assert citation(library.sections(nameless)[0]) == "Senza nome"


def run(*arguments: str, library: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILNOVO_LIBRARY": str(library)}
    command = [sys.executable, "-m", "stilnovo.cli.main", "library", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_commands(tmp_path: Path) -> None:
    file = tmp_path / "libri.sqlite"
    folder = tmp_path / "cartella"
    folder.mkdir()
    (folder / "buono.txt").write_text("Capitolo I\n\nIl gatto di Teresa dormiva.\n", encoding="utf-8")
    (folder / "cattivo.txt").write_bytes(b"a\0b")
    done = run("add", str(folder), "--json", library=file)
    assert done.returncode == 2
    result = json.loads(done.stdout.splitlines()[-1])
    assert [work["title"] for work in result["works"]] == ["Buono"]
    assert "cattivo.txt" in result["failed"][0]["file"]
    assert run("add", "--sample", library=file).returncode == 0
    found = json.loads(run("search", "lucciole", "--json", library=file).stdout.splitlines()[-1])["results"]
    assert set(found[0]) == {"id", "work", "author", "section", "verses", "text", "score", "start", "end"}
    assert found[0]["verses"]
    assert run("check", library=file).returncode == 0
    assert run("remove", "a", library=file).returncode == 2
    assert run("remove", "buono", library=file).returncode == 0
    assert len(json.loads(run("list", "--json", library=file).stdout.splitlines()[-1])["works"]) == 2
    assert run("add", library=file).returncode == 2
