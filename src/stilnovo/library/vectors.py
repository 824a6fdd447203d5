"""Vectors of the passages, for search by meaning: stored beside them, compared exactly.

In memory they are float32: 154 MB for 100,000 passages of 384 numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stilnovo.errors import StilnovoError
from stilnovo.library import embedders
from stilnovo.library.records import Passage, Work
from stilnovo.library.stored import StoredWorks

#: Rows that are read from the database at once.
_ROWS = 4096


def embedded_text(passage: Passage) -> str:
    """What is embedded of a passage: its names, as the lexical index has them, and its text."""
    section = passage.section
    names = (section.work.author, section.work.title, section.label, section.title)
    return f"{', '.join(filter(None, names))}\n{passage.text}"


class StoredVectors(StoredWorks):
    """The works of a library and their passages' vectors, of one or several models."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(connection, path)
        self._vectors: tuple[tuple[str, int], embedders.Matrix, Any] | None = None
        self._default: tuple[int, bool] = (-1, False)
        #: The embedding model, set by who chooses another than the default.
        self.embedder: embedders.Embedder | None = None

    def searching(self) -> embedders.Embedder | None:
        """The embedding model of searches: the one that was set, else the default where there are vectors of it."""
        if self.embedder is not None or not embedders.has_default():
            return self.embedder
        if self._default[0] != (revision := self._revision()):
            one = "SELECT passage FROM vectors WHERE model = ? LIMIT 1"
            there = self.connection.execute(one, (embedders.NanoEmbedder.NAME,)).fetchone() is not None
            self._default = (revision, there)
        return embedders.default_embedder() if self._default[1] else None

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

    def embedded(self, model: str) -> tuple[int, int]:
        """How many passages have a vector of this model, and how many there are."""
        vectors = self.connection.execute("SELECT count(*) FROM vectors WHERE model = ?", (model,)).fetchone()[0]
        return int(vectors), int(self.connection.execute("SELECT count(*) FROM passages").fetchone()[0])

    def vectors_by_text(self, work: Work) -> dict[tuple[str, str], bytes | str]:
        """The vectors of a work, as they are stored, by model and embedded text."""
        rows = self.connection.execute(
            "SELECT v.passage, v.model, v.vector FROM vectors v JOIN passages p ON p.id = v.passage "
            "JOIN sections s ON s.id = p.section WHERE s.work = ?",
            (work.id,),
        ).fetchall()
        if not rows:
            return {}
        texts = {
            passage.id: embedded_text(passage) for part in self.sections(work) for passage in self.passages_of(part)
        }
        return {(model, texts[passage]): vector for passage, model, vector in rows}

    def reuse_vectors(self, work: Work, known: Mapping[tuple[str, str], bytes | str]) -> None:
        """Store those of known vectors that are of a work's passages, as `vectors_by_text` gave them."""
        models = {model for model, _ in known}
        self._insert_vectors(
            (passage.id, model, known[model, text])
            for part in self.sections(work)
            for passage in self.passages_of(part)
            for text in [embedded_text(passage)]
            for model in models
            if (model, text) in known
        )

    def _insert_vectors(self, rows: Iterable[tuple[int, str, bytes | str]]) -> None:
        """Store vectors by passage and model; of a passage that has one, or is gone meanwhile, nothing is stored."""
        there = "SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM passages WHERE id = ?)"
        self.connection.executemany(
            f"INSERT INTO vectors(passage, model, vector) {there} ON CONFLICT DO NOTHING",
            [(*row, row[0]) for row in rows],
        )

    def _loaded(self, model: str) -> tuple[embedders.Matrix, Any]:
        """All vectors of a model, (n, d), and the ids of their passages and works, (n, 2)."""
        import numpy as np

        key = (model, self._revision())
        if self._vectors is None or self._vectors[0] != key:
            self._vectors = None  # before the new ones are read: not both at once
            count = self.connection.execute("SELECT count(*) FROM vectors WHERE model = ?", (model,)).fetchone()[0]
            cursor = self.connection.execute(
                "SELECT v.vector, v.passage, s.work FROM vectors v JOIN passages p ON p.id = v.passage "
                "JOIN sections s ON s.id = p.section WHERE v.model = ? ORDER BY v.passage",
                (model,),
            )
            matrix, ids, done = np.zeros((0, 0), np.float32), np.full((count, 2), -1, np.int64), 0
            while rows := cursor.fetchmany(_ROWS)[: count - done]:
                matrix = matrix if done else np.zeros((count, len(rows[0][0]) // 4), np.float32)
                if {len(row[0]) for row in rows} != {4 * matrix.shape[1]}:
                    raise StilnovoError(
                        f"The vectors of {model} have different lengths.", "", "Make them anew: stilnovo library embed --again"
                    )  # fmt: skip
                part = slice(done, done := done + len(rows))
                matrix[part] = np.frombuffer(b"".join(row[0] for row in rows), "<f4").reshape(len(rows), -1)
                ids[part] = [row[1:] for row in rows]
            self._vectors = (key, matrix, ids)
        return self._vectors[1], self._vectors[2]

    def nearest(
        self, query: str, limit: int, works: Sequence[int] = (), also: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Passage ids and cosine similarities, nearest first (exact): the nearest, and those in `also` that have a vector.

        Restricted to some works, if given.
        """
        import numpy as np

        embedder = self.searching()
        assert embedder is not None, "set the embedder first"
        matrix, ids = self._loaded(embedder.name)
        passages = np.where(np.isin(ids[:, 1], works), ids[:, 0], -1) if works else ids[:, 0]
        return embedders.nearest(matrix, passages, embedder.query(query), limit, also)
