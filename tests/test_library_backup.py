"""Backup and restore: one file holds all, a running service goes on and sees the new state, an interruption the old."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from killing import forked, killed_at_every_step
from older_library import make_format_2
from serving import QUESTION, begin, sample_file, say, serving
from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.backup import back_up, restore
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.serve.history import Conversations

TABLES = ("works", "texts", "sections", "passages", "sources", "apparatus", "vectors")


def rows(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def run(*arguments: str, library: Path | str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILNOVO_LIBRARY": str(library)}
    command = [sys.executable, "-m", "stilnovo.cli.main", "library", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, cwd=folder)


def leave(_: Library) -> None:
    pass


def one_work(path: Path, title: str = "Il gatto") -> None:
    with Library.open(path) as library:
        text = f"{title} dormiva sul tetto."
        library.add(Book(Names(title, "Ada Prova", 1901), text, f"{title}.txt", data=text.encode()))


def titles(client: httpx.Client) -> list[str]:
    return [work["title"] for work in client.get("/api/works").json()["works"]]


def test_a_running_service_is_backed_up_and_restored(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    with serving(path) as service:
        before = begin(service)
        cited = say(service, before, QUESTION)[-1][1]["details"]["citations"][0]
        done = run("backup", "copia.sqlite", "--json", library=path, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert (told["works"], told["conversations"], told["format"]) == (2, 1, 3)
        assert told["bytes"] == (tmp_path / "copia.sqlite").stat().st_size
        after = begin(service)
        one_work(path)
        assert service.delete(f"/api/works/{cited['sha256']}").status_code == 204
        assert sorted(titles(service)) == ["Il gatto", "La notte delle lucciole"]
        assert service.get("/api/search", params={"q": "dormiva sul tetto"}).json()["results"]

        done = run("restore", "copia.sqlite", "--json", library=path, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert (told["works"], told["conversations"]) == (2, 1)
        for _ in range(12):  # more than there are workers
            assert sorted(titles(service)) == ["Il faro di Pietranera", "La notte delle lucciole"]
            assert not service.get("/api/search", params={"q": '"dormiva sul tetto"'}).json()["results"]
            assert service.get(f"/api/conversations/{after}").status_code == 404
        message = service.get(f"/api/conversations/{before}").json()["messages"][1]
        assert message["details"]["citations"][0] == cited
        for _ in range(6):
            again = say(service, before, QUESTION)[-1][1]["details"]["citations"][0]
            assert (again["quote"], again["status"]) == (cited["quote"], "verified")
        replaced = Path(told["copy"])
        assert "before-restore" in replaced.name
    with Library.open(replaced) as library:
        assert sorted(work.title for work in library.works()) == ["Il gatto", "La notte delle lucciole"]
    with Library.open(path) as library:
        assert library.check() == []


def test_a_backup_is_whole_while_others_write(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            one_work(path, f"Opera {number}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(path, tmp_path / f"copia{number}.sqlite")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        with Library.open(tmp_path / f"copia{number}.sqlite") as copy:
            assert copy.check() == []
            assert all(work.passages for work in copy.works())
    assert not list(tmp_path.glob(".*"))


def test_ids_are_never_given_again_after_a_restore(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    back_up(path, tmp_path / "copia.sqlite")
    with Library.open(path) as library:
        last = library.add(Book(Names("Uno"), "Il lupo correva nel bosco.", "uno.txt")).work
        revision = library._revision()
        restore(tmp_path / "copia.sqlite", path, leave)
        assert library._revision() > revision
        assert search(library, '"lupo correva"') == []
        assert library.add(Book(Names("Due"), "La volpe correva nel bosco.", "due.txt")).work.id > last.id
        assert library.check() == []


@pytest.mark.parametrize("format", [1, 2])
def test_an_older_backup_is_migrated_and_not_changed(tmp_path: Path, format: int) -> None:
    backup, path = tmp_path / "vecchia.sqlite", sample_file(tmp_path)
    make_format_2(backup, format)
    with closing(sqlite3.connect(backup)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = backup.read_bytes()
    held, copy = restore(backup, path, leave)
    assert (held.format, held.works, held.conversations) == (format, 2, 1)
    assert copy is not None
    assert backup.read_bytes() == before
    with Library.open(path) as library:
        assert [work.title for work in library.works()] == ["La barca", "La campana"]
        assert library.check() == []
    assert not list(tmp_path.glob("vecchia*.bak"))


def test_restore_makes_a_library_where_there_is_none(tmp_path: Path) -> None:
    back_up(sample_file(tmp_path), tmp_path / "copia.sqlite")
    path = tmp_path / "altrove" / "libri.sqlite"
    _, copy = restore(tmp_path / "copia.sqlite", path, leave)
    assert copy is None
    assert rows(path) == rows(tmp_path / "library.sqlite")
    with Library.open(path) as library:
        assert library.check() == []


def test_what_a_killed_restore_left_is_removed_in_time(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    back_up(path, tmp_path / "copia.sqlite")
    for name, age in (("restore-vecchio", 7200), ("restore-nuovo", 60)):
        (tmp_path / f".library.sqlite.{name}").mkdir()
        os.utime(tmp_path / f".library.sqlite.{name}", (time.time() - age,) * 2)
    restore(tmp_path / "copia.sqlite", path, leave)
    assert [left.name for left in tmp_path.glob(".*")] == [".library.sqlite.restore-nuovo"]  # that one may be at work


def damaged(folder: Path, what: str) -> Path:
    """A file that is no backup."""
    file = folder / "cattiva.sqlite"
    if what == "absent":
        return file
    back_up(folder / "library.sqlite", file)
    data = file.read_bytes()
    if what == "text":
        file.write_text("questo non è una biblioteca " * 500, encoding="utf-8")
    elif what == "empty":
        file.write_bytes(b"")
    elif what == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif what == "garbled":
        file.write_bytes(data[: len(data) // 2] + os.urandom(len(data) // 4) + data[len(data) * 3 // 4 :])
    else:
        with closing(sqlite3.connect(file)) as db, db:
            db.execute(what)
    return file


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("absent", "no file"),
        ("empty", "empty"),
        ("text", "no stilnovo library"),
        ("cut", "damaged"),
        ("garbled", "damaged"),
        ("PRAGMA application_id = 7", "no stilnovo library"),
        ("PRAGMA user_version = 9", "format 9"),
        ("UPDATE texts SET text = replace(text, 'faro', 'Faro')", "damaged"),
        ("DELETE FROM works WHERE id = 1", "damaged"),
        ("CREATE TABLE conversation_facts AS SELECT 'version' AS name, '9' AS value", "conversations .* format 9"),
    ],
)
def test_what_is_no_backup_is_refused_and_nothing_is_changed(tmp_path: Path, what: str, words: str) -> None:
    path = sample_file(tmp_path)
    before = rows(path)
    bad = damaged(tmp_path, what)
    with pytest.raises(InputError, match=words) as caught:
        restore(bad, path, lambda library: Conversations(library).prepare())
    assert "cattiva.sqlite" in str(caught.value)
    assert "restore-" not in str(caught.value)
    assert rows(path) == before
    assert not list(tmp_path.glob("*.bak"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("begin", [0, 4096 * 2])
def test_a_damaged_library_is_moved_away_by_hand(tmp_path: Path, begin: int) -> None:
    path = sample_file(tmp_path)
    back_up(path, tmp_path / "copia.sqlite")
    data = path.read_bytes()
    path.write_bytes(data[:begin] + b"x" * (len(data) // 2) + data[begin + len(data) // 2 :])
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"move library.sqlite\* away"):
        restore(tmp_path / "copia.sqlite", path, leave)
    assert path.read_bytes() == before
    for file in tmp_path.glob("library.sqlite*"):
        shutil.move(file, tmp_path / f"via-{file.name}")
    restore(tmp_path / "copia.sqlite", path, leave)
    with Library.open(path) as library:
        assert library.check() == []


def test_copies_are_as_private_as_the_library(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    path.chmod(0o600)
    back_up(path, tmp_path / "copia.sqlite")
    _, copy = restore(tmp_path / "copia.sqlite", path, leave)
    assert copy is not None
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "copia.sqlite", copy, path)] == [0o600] * 3


def test_files_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    (tmp_path / "mia.txt").write_text("importante", encoding="utf-8")
    with pytest.raises(InputError, match="exists"):
        back_up(path, tmp_path / "mia.txt")
    assert (tmp_path / "mia.txt").read_text(encoding="utf-8") == "importante"
    with pytest.raises(InputError, match="no folder"):
        back_up(path, tmp_path / "nessuna" / "copia.sqlite")
    with pytest.raises(InputError, match="itself"):
        restore(path, path, leave)


def test_a_locked_library_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample_file(tmp_path)
    back_up(path, tmp_path / "copia.sqlite")
    one_work(path)
    before = rows(path)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StilnovoError, match="another program"):
            restore(tmp_path / "copia.sqlite", path, leave)
        other.execute("ROLLBACK")
    assert rows(path) == before


def back_up_in_little_room(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    with pytest.raises(StilnovoError, match="could not be written"):
        back_up(path, path.with_name("copia.sqlite"))
    with pytest.raises(StilnovoError):
        restore(path.with_name("altra.sqlite"), path, leave)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    back_up(path, tmp_path / "altra.sqlite")
    one_work(path)
    before = rows(path)
    assert forked(back_up_in_little_room, path) == 0
    assert rows(path) == before
    assert not (tmp_path / "copia.sqlite").exists()
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".") or file.suffix == ".bak"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_every_step_a_restore_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    make_format_2(tmp_path / "copia.sqlite")
    make_format_2(tmp_path / "libri.sqlite")
    one_work(tmp_path / "libri.sqlite")
    with Library.open(tmp_path / "copia.sqlite"):
        pass
    for copy in tmp_path.glob("*.bak"):
        copy.unlink()
    new, old = rows(tmp_path / "copia.sqlite"), rows(tmp_path / "libri.sqlite")
    seen = []

    def make(path: Path) -> None:
        shutil.copy(tmp_path / "libri.sqlite", path)

    def work(path: Path) -> None:
        restore(tmp_path / "copia.sqlite", path, leave)

    for path in killed_at_every_step(tmp_path, make, work, stride=3):
        found = rows(path)
        assert found in (old, new)
        seen.append(found == new)
        copies = list(path.parent.glob("*.bak"))
        assert all(rows(copy) == old for copy in copies)
        assert len(copies) == 1 or not seen[-1]
        with Library.open(path) as library:
            assert library.check_works() == []
        shutil.rmtree(path.parent)
    assert {True, False} == set(seen)


def test_the_commands(tmp_path: Path) -> None:
    path = sample_file(tmp_path / "dati")
    for number in range(2):  # named by the date, never over the first
        done = run("backup", "--json", library=path, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(list(tmp_path.glob("library-20*.sqlite"))) == number + 1
    assert "backup: " in done.stderr
    for arguments, code, words in (
        (("backup", "library.sqlite", "--library", "nessuna.sqlite"), 2, "no library"),
        (("restore", "nessuna.sqlite"), 2, "no file"),
        (("backup", "--library", "postgresql://u:segreto@h/d"), 2, "pg_dump"),
        (("restore", "x.sqlite", "--library", "postgresql://u:segreto@h/d"), 2, "pg_restore"),
    ):
        done = run(*arguments, library=path, folder=tmp_path)
        assert (done.returncode, words in done.stderr, "segreto" in done.stderr) == (code, True, False)
