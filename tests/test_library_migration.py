"""Files of older formats: copied first, then changed as a whole, whatever happens between; ids and places stay valid."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from killing import forked, killed_at_every_step
from older_library import POEM, QUOTED, TEXTS, make_format_2
from serving import serving
from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.serve.history import Conversations

TABLES = ("works", "texts", "passages", "facts", "conversations", "conversation_messages")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "libri.sqlite"
    make_format_2(path)
    return path


def rows(path: Path) -> dict[str, list[Any]]:
    """What every format since the second holds."""
    with closing(sqlite3.connect(path)) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


@pytest.mark.parametrize("format", [1, 2])
def test_an_older_format_is_copied_and_migrated(tmp_path: Path, format: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "libri.sqlite"
    make_format_2(path, format)
    with closing(sqlite3.connect(path)) as db:
        before = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    with caplog.at_level("INFO", "stilnovo"), Library.open(path) as library:
        assert library.check() == []
        assert {work.title: library.text(work) for work in library.works()} == TEXTS
        assert [hit.passage.section.work.title for hit in search(library, '"tre volte"')] == ["La campana"]
        poem = next(work for work in library.works() if work.title == "La campana")
        (canto,) = library.sections(poem)
        assert [POEM[start:end] for start, end, _ in canto.lines] == [
            line.strip() for line in POEM.split("\n")[1:] if any(map(str.isalpha, line))
        ]
        assert [line.number for line in canto.lines] == [1, 2, 3, 4]
        at = POEM.index("gallo")
        assert canto.verses(at, at + 5) == "4"
        assert [section.lines for section in library.sections(library.works()[0])] == [(), ()]
        assert library.source(poem) is None
        assert library.apparatus(poem) == []
    (copy,) = copies(path)
    assert copy.name.startswith(f"libri.sqlite.format{format}-20")
    assert str(copy) in caplog.text
    assert (version(copy), version(path)) == (format, 3)
    after = rows(path)
    assert rows(copy) == before
    for table in set(TABLES) - {"facts"}:
        assert after[table] == before[table]
    if format == 2:
        assert after["facts"] == before["facts"]
    caplog.clear()
    with caplog.at_level("INFO", "stilnovo"), Library.open(path):
        assert not caplog.text  # said once
    assert copies(path) == [copy]


def test_what_format_2_held_stays_valid(old: Path) -> None:
    with Library.open(old) as library:
        ids = [p.id for w in library.works() for s in library.sections(w) for p in library.passages_of(s)]
        assert ids == [41, 42, 43]
        assert library.without_vector("lettere") == [42, 43]
        assert library.passages([43])[0].citation == "Ada Rossi, La campana, canto I, vv. 1-4"
    with serving(old) as service:
        conversation = service.get(f"/api/conversations/{'a' * 32}").json()
        (citation,) = conversation["messages"][1]["details"]["citations"]
        place = conversation["messages"][1]["text"][citation["answer_start"] : citation["answer_end"]]
        assert place == f"«{QUOTED}» (Ada Rossi, La barca, cap. I)"
        section = service.get(f"/api/works/{citation['sha256']}/section", params={"at": citation["start"]}).json()
        shown = "".join(block["text"] for block in section["blocks"])
        assert QUOTED in shown


def test_a_newer_format_is_refused_by_name_and_left_alone(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("PRAGMA user_version = 4")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = old.read_bytes()
    with pytest.raises(InputError, match="format 4"):
        Library.open(old)
    assert old.read_bytes() == before
    assert copies(old) == []


def test_newer_conversations_are_refused_by_name_and_left_alone(old: Path) -> None:
    with Library.open(old) as library:
        library.connection.execute("UPDATE conversation_facts SET value = '9'")
        library.connection.execute("UPDATE conversation_messages SET status = 'writing' WHERE position = 1")
        before = rows(old)
        with pytest.raises(InputError, match=r"conversations .* format 9"):
            Conversations(library).prepare()
        assert rows(old) == before


def test_an_empty_file_and_a_new_one_need_no_copy(tmp_path: Path) -> None:
    (tmp_path / "vuoto.sqlite").touch()
    for name in ("vuoto.sqlite", "nuovo.sqlite"):
        with Library.open(tmp_path / name) as library:
            assert library.works() == []
        assert version(tmp_path / name) == 3
        assert copies(tmp_path / name) == []


def open_and_count(path: Path) -> None:
    with Library.open(path) as library:
        assert len(library.works()) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_every_step_the_file_is_old_or_new_and_the_copy_whole(tmp_path: Path) -> None:
    make_format_2(tmp_path / "vera.sqlite")
    before = rows(tmp_path / "vera.sqlite")
    seen = set()
    for path in killed_at_every_step(tmp_path, make_format_2, open_and_count):
        found = version(path)
        seen.add(found)
        assert rows(path) == before
        assert found in (2, 3)
        for copy in copies(path):
            assert (rows(copy), version(copy)) == (before, 2)
        if found == 3:
            assert len(copies(path)) == 1
        with Library.open(path) as library:  # the next one finds it in order
            assert library.check() == []
            assert [len(section.lines) for w in library.works() for section in library.sections(w)] == [0, 0, 4]
        assert len(copies(path)) == 1
        assert not list(path.parent.glob(".*"))
        shutil.rmtree(path.parent)
    assert seen == {2, 3}


def open_in_little_room(path: Path, said: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    try:
        Library.open(path)
    except StilnovoError as error:
        said.write_text(f"{error.exit_code} {error}", encoding="utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_room_for_the_copy_nothing_is_changed(old: Path, tmp_path: Path) -> None:
    before = rows(old)
    assert forked(open_in_little_room, old, tmp_path / "detto") == 0
    said = (tmp_path / "detto").read_text(encoding="utf-8")
    assert said.startswith("1 No copy")
    assert "not changed" in said
    assert (version(old), rows(old)) == (2, before)
    assert copies(old) == []
    assert not list(tmp_path.glob(".libri*"))


def test_attempts_that_fail_do_not_fill_the_disk(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("stilnovo.library.schema.packed_lines", fail)
    for _ in range(3):
        with pytest.raises(StilnovoError, match="full"):
            Library.open(old)
    assert version(old) == 2
    assert len(copies(old)) == 1
    monkeypatch.undo()
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE works SET year = 1900")  # the older stilnovo goes on writing
    Library.open(old).close()
    assert len(copies(old)) == 2
    assert copies(old)[0].name == copies(old)[1].name.replace(".bak", "-2.bak")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_several_processes_open_it_at_once(old: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_and_count, args=(old,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert version(old) == 3
    assert len(copies(old)) == 1


def open_as_nobody(path: Path, write: int) -> None:
    os.setuid(65534)
    try:
        Library.open(path)
    except StilnovoError as error:
        os.write(write, f"{error.exit_code} {error}".encode())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody else")
def test_a_file_that_cannot_be_written_is_refused_in_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "libri.sqlite"
        make_format_2(path)
        before = path.read_bytes()
        read, write = os.pipe()
        assert forked(open_as_nobody, path, write) == 0
        os.close(write)
        with os.fdopen(read) as said:
            assert "Check its permissions" in said.read()
        assert path.read_bytes() == before
        assert copies(path) == []
