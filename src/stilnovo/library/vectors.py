"""Vectors of the passages, for search by meaning: made in batches, stored beside them, compared exactly."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stilnovo.library import embedders
from stilnovo.library.database import transaction
from stilnovo.library.stored import StoredWorks

#: Passages whose vectors are made and stored at once.
EMBEDDED_AT_ONCE = 256


class StoredVectors(StoredWorks):
    """The works of a library and their passages' vectors, of one or several models."""

    _BEGIN = "BEGIN IMMEDIATE"

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(connection, path)
        self._vectors: tuple[tuple[str, int], embedders.Matrix, Any] | None = None
        #: Set by who has an embedding model: `search` then fuses both kinds.
        self.embedder: embedders.Embedder | None = None

    def _next(self, what: str, count: int = 1) -> int:
        """Reserve `count` ids that were never used before; returns the first. Call inside a transaction."""
        last = int(self._fact(what))
        self.connection.execute("UPDATE facts SET value = ? WHERE name = ?", (str(last + count), what))
        return last + 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a transaction, all or nothing; cached rows are dropped."""
        with self._guarded(), transaction(self.connection, self._BEGIN):
            yield
            self._next("revision")
        self._revision()

    def without_vector(self, model: str) -> list[int]:
        """Ids of the passages without a vector of this model."""
        rows = self.connection.execute(
            "SELECT p.id FROM passages p LEFT JOIN vectors v ON v.passage = p.id AND v.model = ? "
            "WHERE v.passage IS NULL ORDER BY p.id",
            (model,),
        )
        return [passage for (passage,) in rows.fetchall()]

    def embed(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Store vectors of all passages that have none of the embedder's yet; can be interrupted and continued.

        Returns:
            How many were added.
        """
        assert self.embedder is not None, "set the embedder first"
        missing = self.without_vector(self.embedder.name)
        for start in range(0, len(missing), EMBEDDED_AT_ONCE):
            batch = self.passages(missing[start : start + EMBEDDED_AT_ONCE])
            texts = [f"{p.section.work.author}, {p.section.work.title}, {p.section.label}\n{p.text}" for p in batch]
            vectors = map(self._stored, self.embedder.passages(texts))
            with self._transaction():
                self.connection.executemany(
                    "INSERT INTO vectors(passage, model, vector) VALUES (?, ?, ?)",
                    [(p.id, self.embedder.name, vector) for p, vector in zip(batch, vectors, strict=True)],
                )
            progress(min(start + EMBEDDED_AT_ONCE, len(missing)), len(missing))
        return len(missing)

    def _stored(self, row: embedders.Matrix) -> bytes | str:
        return row.astype("<f4").tobytes()

    def drop_vectors(self, model: str) -> None:
        """Delete the vectors of a model."""
        with self._transaction():
            self.connection.execute("DELETE FROM vectors WHERE model = ?", (model,))

    def nearest(self, query: str, limit: int, works: Sequence[int] = ()) -> list[tuple[int, float]]:
        """Passage ids and cosine similarities, nearest first (exact); restricted to some works, if given."""
        import numpy as np

        assert self.embedder is not None, "set the embedder first"
        key = (self.embedder.name, self._revision())
        if self._vectors is None or self._vectors[0] != key:
            rows = self.connection.execute(
                "SELECT v.passage, s.work, v.vector FROM vectors v JOIN passages p ON p.id = v.passage "
                "JOIN sections s ON s.id = p.section WHERE v.model = ? ORDER BY v.passage",
                (self.embedder.name,),
            ).fetchall()
            matrix = np.frombuffer(b"".join(row[2] for row in rows), dtype="<f4").reshape(len(rows), -1 if rows else 0)
            self._vectors = (key, matrix, np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2))
        _, matrix, ids = self._vectors
        if works:
            inside = np.isin(ids[:, 1], works)
            matrix, ids = matrix[inside], ids[inside]
        return embedders.nearest(matrix, ids[:, 0], self.embedder.query(query), limit)
