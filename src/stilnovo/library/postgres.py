"""A library in PostgreSQL, for many people and large shelves: the same tables, the same methods, pgvector for vectors.

The connection string is the user's. Works, passages and vectors lie on the server; the lexical index, derived as ever,
lies on each machine that searches, in its cache folder, because PostgreSQL's own ranking finds Italian less well.
Conversations of the service need a SQLite file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stilnovo.errors import InputError, MissingExtra, StilnovoError
from stilnovo.library.database import SCHEMA, TABLES
from stilnovo.library.store import Library

if TYPE_CHECKING:
    from stilnovo.library.rank import Matrix

# One writer at a time, as in SQLite: the key of the advisory lock.
_LOCK = 0x5374696C


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

    @classmethod
    def connect(cls, address: str) -> PostgresLibrary:
        """Open the library of a database, creating its tables where there are none.

        Raises:
            InputError: the server cannot be reached, or its library has another format.
            MissingExtra: psycopg is not installed.
        """
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres") from error
        try:
            connection = psycopg.connect(address, autocommit=True, connect_timeout=10)
        except psycopg.Error as error:
            raise InputError(
                "The PostgreSQL server cannot be reached.", str(error).splitlines()[0], "Check the connection string."
            ) from error
        library = cls(cast(Any, _Connection(connection)), None)
        library._prepare()
        return library

    def _prepare(self) -> None:
        with self._transaction():
            there = self._db.execute("SELECT to_regclass('facts')").fetchone()[0]
            if there is None:
                try:
                    self._db.execute("CREATE EXTENSION IF NOT EXISTS vector")
                except Exception as error:
                    raise InputError(
                        "The server lacks pgvector.", str(error).splitlines()[0], "Install the extension there."
                    ) from error
                served = TABLES.replace("INTEGER PRIMARY KEY", "BIGINT PRIMARY KEY").replace("BLOB", "vector")
                for statement in served.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute("INSERT INTO facts VALUES ('library', gen_random_uuid()::text)")
                self._db.execute("INSERT INTO facts VALUES ('format', ?)", (str(SCHEMA),))
            elif self._fact("format") != str(SCHEMA):
                raise InputError(f"The library has format {self._fact('format')}.", f"This version reads {SCHEMA}.")

    @property
    def index_folder(self) -> Path | None:
        """The folder of the index, in the user's cache."""
        home = os.environ.get("XDG_CACHE_HOME")
        base = Path(home) if home else Path.home() / ".cache"
        return base / "stilnovo" / f"index-{self._fact('library')}"

    def _guarded(self) -> AbstractContextManager[None]:
        return _guard()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._db.execute("BEGIN")
            try:
                self._db.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _database_problems(self) -> list[str]:
        return []  # the server looks after its files and its references itself

    def put_vectors(self, model: str, rows: Sequence[tuple[int, Matrix]]) -> None:
        """Store unit vectors of passages, all or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO vectors(passage, model, vector) VALUES (?, ?, ?)",
                [(number, model, _written(row)) for number, row in rows],
            )
            self._next("revision")

    def nearest(self, model: str, query: Matrix, limit: int, works: Sequence[int] = ()) -> list[tuple[int, float]]:
        """Passage ids and cosines, nearest first, by pgvector and exactly; within some works, if given."""
        within = " AND s.work = ANY(?)" if works else ""
        with self._guarded():
            rows = self._db.execute(
                "SELECT v.passage, 1 - (v.vector <=> ?::vector) AS cosine FROM vectors v "
                "JOIN passages p ON p.id = v.passage JOIN sections s ON s.id = p.section "
                f"WHERE v.model = ?{within} ORDER BY cosine DESC, v.passage LIMIT ?",
                (_written(query), model, *([list(works)] if works else []), limit),
            )
            return [(int(number), float(cosine)) for number, cosine in rows.fetchall()]


def _written(row: Matrix) -> str:
    return "[" + ",".join(f"{value:.8g}" for value in row) + "]"


@contextmanager
def _guard() -> Iterator[None]:
    """Turn psycopg's errors into lines for a person."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise StilnovoError("The PostgreSQL server failed.", lines[0], "Check the server, then run again.") from error
