"""Store a library in PostgreSQL, for many people and large shelves: the same tables and methods, pgvector for vectors.

The connection string is the user's. Works, passages and vectors lie on the server; the lexical index, derived as ever,
lies on each machine that searches, in its cache folder, because PostgreSQL's own ranking finds Italian less well.
Conversations of the service need a SQLite file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from stilnovo.errors import InputError, StilnovoError, needs, reported
from stilnovo.library import embedders
from stilnovo.library.database import transaction
from stilnovo.library.schema import APPLICATION, SCHEMA, TABLES, run_script, upgrade
from stilnovo.library.store import Library

log = logging.getLogger("stilnovo.library")


def _adapted(script: str) -> str:
    """SQLite's tables in PostgreSQL's types."""
    return (
        script.replace("INTEGER PRIMARY KEY", "BIGINT PRIMARY KEY")
        .replace("vector BLOB", "vector vector")
        .replace("BLOB", "BYTEA")
    )


class _Connection:
    """psycopg's connection with the few methods of sqlite3's that the library uses; `?` marks a value."""

    def __init__(self, connection: Any) -> None:
        self._inner = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._inner.execute(statement.replace("?", "%s"), values or None)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._inner.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s"), list(rows))

    def close(self) -> None:
        self._inner.close()


class PostgresLibrary(Library):
    """A library on a PostgreSQL server; open it with `connect`."""

    # One writer at a time, as in SQLite: an advisory lock under a key of ours.
    _BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock({APPLICATION})"

    @classmethod
    def connect(cls, address: str) -> PostgresLibrary:
        """Open the library of a database, creating its tables where there are none; an older format is migrated.

        The migration is one transaction of the server. A copy beforehand is the server's affair (pg_dump).

        Raises:
            InputError: the server cannot be reached, or its library has another format.
            MissingExtra: psycopg is not installed.
        """
        with needs("psycopg", "postgres"):
            import psycopg
        with reported("The PostgreSQL server cannot be reached.", "Check the connection string.", errors=psycopg.Error):
            connection = psycopg.connect(address, autocommit=True, connect_timeout=10)
        library = cls(cast(Any, _Connection(connection)), None)
        try:
            library._prepare()
        except BaseException:
            library.close()
            raise
        return library

    def _prepare(self) -> None:
        """Create the tables, or migrate an older format."""
        db = self.connection
        with self._guarded(), transaction(db, self._BEGIN):
            if db.execute("SELECT to_regclass('facts')").fetchone()[0] is None:
                with reported("The server lacks pgvector.", "Install the extension there."):
                    db.execute("CREATE EXTENSION IF NOT EXISTS vector")
                run_script(db, _adapted(TABLES))
                db.execute("INSERT INTO facts VALUES ('library', gen_random_uuid()::text)")
                db.execute("INSERT INTO facts VALUES ('format', ?)", (str(SCHEMA),))
            elif (stored := self._fact("format")) not in ("2", str(SCHEMA)):
                raise InputError(
                    f"The library has format {stored}.", f"This version reads {SCHEMA}.", "Update stilnovo."
                )
            elif stored != str(SCHEMA):
                upgrade(db, int(stored), _adapted)
                db.execute("UPDATE facts SET value = ? WHERE name = 'format'", (str(SCHEMA),))
                log.info("The library had format %s and has %s now.", stored, SCHEMA)

    @property
    def index_folder(self) -> Path | None:
        """The folder of the index, in the user's cache."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "stilnovo" / f"index-{self._fact('library')}"

    def _guarded(self) -> AbstractContextManager[None]:
        import psycopg

        return reported(
            "The PostgreSQL server failed.", "Check the server, then run again.",
            errors=psycopg.Error, kind=StilnovoError,
        )  # fmt: skip

    def _database_problems(self) -> list[str]:
        return []  # the server looks after its files and its references itself

    def _stored(self, row: embedders.Matrix) -> str:
        return "[" + ",".join(f"{value:.8g}" for value in row) + "]"

    def nearest(
        self, query: str, limit: int, works: Sequence[int] = (), also: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Passage ids and cosine similarities, nearest first (exact, by pgvector); see `StoredVectors.nearest`."""
        embedder = self.searching()
        assert embedder is not None, "set the embedder first"
        vector = self._stored(embedder.query(query))
        with self._guarded():
            statement = (
                "SELECT v.passage, 1 - (v.vector <=> ?::vector) AS cosine FROM vectors v "
                "JOIN passages p ON p.id = v.passage JOIN sections s ON s.id = p.section "
                f"WHERE v.model = ?{' AND s.work = ANY(?)' if works else ''}"
            )
            values = [vector, embedder.name, *([list(works)] if works else [])]
            rows = self.connection.execute(f"{statement} ORDER BY cosine DESC, v.passage LIMIT ?", [*values, limit])
            found = {int(passage): float(cosine) for passage, cosine in rows.fetchall()}
            if also:
                rows = self.connection.execute(f"{statement} AND v.passage = ANY(?)", [*values, list(also)])
                found |= {int(passage): float(cosine) for passage, cosine in rows.fetchall()}
        return sorted(found.items(), key=lambda hit: (-hit[1], hit[0]))
