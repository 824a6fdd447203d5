"""Vectors of the passages, for search by meaning: stored beside them, compared exactly."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stilnovo.library import embedders
from stilnovo.library.stored import StoredWorks


class StoredVectors(StoredWorks):
    """The works of a library and their passages' vectors, of one or several models."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(connection, path)
        self._vectors: tuple[tuple[str, int], embedders.Matrix, Any] | None = None
        #: Set by who has an embedding model: `search` then fuses both kinds.
        self.embedder: embedders.Embedder | None = None

    def without_vector(self, model: str) -> list[int]:
        """Ids of the passages without a vector of this model."""
        rows = self.connection.execute(
            "SELECT p.id FROM passages p LEFT JOIN vectors v ON v.passage = p.id AND v.model = ? "
            "WHERE v.passage IS NULL ORDER BY p.id",
            (model,),
        )
        return [passage for (passage,) in rows.fetchall()]

    def _stored(self, row: embedders.Matrix) -> bytes | str:
        return row.astype("<f4").tobytes()

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
