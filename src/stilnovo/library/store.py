"""Store a library in one SQLite file: texts, works, sections and passages are the truth, the index is derived.

A work is stored in one transaction (write-ahead log), so a process killed at any moment leaves either the whole work
or none of it; the index catches up before the next search. The same text is never stored twice, whatever its file was
called. Ids of works and passages are never given twice, so that an index that lags behind cannot point at other words.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError, reported
from stilnovo.library import embedders, passages, sections
from stilnovo.library.database import guard, integrity, prepare, problems, transaction
from stilnovo.library.index import Index, Row
from stilnovo.library.names import Names
from stilnovo.library.records import Apparatus, Chapter, Passage, Work, packed_lines, unpacked_lines
from stilnovo.library.text_builder import Book

_WORK = """SELECT w.id, w.title, w.author, w.year, w.source, w.sha256,
    (SELECT length(text) FROM texts WHERE work = w.id),
    (SELECT count(*) FROM sections WHERE work = w.id),
    (SELECT count(*) FROM passages p JOIN sections s ON s.id = p.section WHERE s.work = w.id) FROM works w"""
_SECTION = 'SELECT id, work, position, label, title, verse, start, "end", body, lines FROM sections'
_PASSAGE = 'SELECT id, section, start, "end", text, first_verse, last_verse FROM passages'


#: Passages whose vectors are made and stored at once.
EMBEDDED_AT_ONCE = 256


@dataclass(frozen=True)
class Added:
    """Result of `add`: the work, and whether it is new."""

    work: Work
    new: bool


def default_path() -> Path:
    """Default library file: `$STILNOVO_LIBRARY`, else `stilnovo/library.sqlite` in the user's data folder (XDG)."""
    if named := os.environ.get("STILNOVO_LIBRARY"):
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "stilnovo" / "library.sqlite"


class Library(AbstractContextManager["Library"]):
    """One library. Open it with `Library.open(path)`, or `Library.open(None)` in memory; close it, or use it in a `with`.

    Every method may raise `StilnovoError` when the file is locked, read-only or on a full disk.
    """

    _BEGIN = "BEGIN IMMEDIATE"

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        #: `connection` is open to other tables in the same file.
        self.connection, self.path = connection, path
        self._indexed_at: int | None = None  # the revision that the index is of
        self._seen = -1
        self._vectors: tuple[tuple[str, int], embedders.Matrix, Any] | None = None
        #: Set by who has an embedding model: `search` then fuses both kinds.
        self.embedder: embedders.Embedder | None = None
        self.reranker: Callable[[str, Sequence[str]], Sequence[float]] | None = None
        self._works: dict[int, Work] = {}
        self._texts: dict[int, str] = {}
        self._listed: list[Work] | None = None

    @classmethod
    def open(cls, path: Path | None) -> Library:
        """Open a library file, creating it where there is none; None: one in memory.

        Raises:
            InputError: the file is something else, or from a newer stilnovo.
        """
        if path is not None:
            with reported(f"Cannot create the folder {path.parent}.", errors=OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
        with guard(path):
            library = cls(sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None), path)
            prepare(library.connection, path)
        return library

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @property
    def index(self) -> Index:
        """The full-text index, brought up to date."""
        return self.catch_up()

    def catch_up(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Index:
        """Bring the index up to date; `progress` is called with works done and works in all."""
        with self._guarded():
            revision = self._revision()
            if revision != self._indexed_at and self._index.sync(self._digests(), self._rows, progress):
                self._indexed_at = revision
            return self._index

    @cached_property
    def _index(self) -> Index:
        try:
            return Index(self.index_folder)
        except OSError:  # a library on a disk that cannot be written: its index lives in memory
            return Index(None)

    @property
    def index_folder(self) -> Path | None:
        """The folder of the index, beside the library; None for a library in memory."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.index")

    def _revision(self) -> int:
        """Revision number, raised by every change of this or another process; on a change, cached rows are dropped."""
        with self._guarded():
            revision = int(self._fact("revision"))
        if revision != self._seen:
            self._works, self._texts, self._listed, self._seen = {}, {}, None, revision
        return revision

    def _digests(self) -> dict[int, str]:
        """Digest of everything indexed of each work."""
        library = self._fact("library")
        rows = self.connection.execute("SELECT id, sha256, author, title FROM works ORDER BY id")
        return {work: hashlib.sha256(repr((library, *rest)).encode()).hexdigest()[:24] for work, *rest in rows}

    def _rows(self, work: int) -> Iterator[Row]:
        rows = self.connection.execute(
            "SELECT p.id, p.text, w.author, w.title, s.label, s.title FROM passages p "
            "JOIN sections s ON s.id = p.section JOIN works w ON w.id = s.work WHERE w.id = ? ORDER BY p.id",
            (work,),
        )
        return ((passage, text, tuple(names)) for passage, text, *names in rows)

    def _fact(self, name: str) -> str:
        return str(self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def _next(self, what: str, count: int = 1) -> int:
        """Reserve `count` ids that were never used before; returns the first. Call inside a transaction."""
        last = int(self._fact(what))
        self.connection.execute("UPDATE facts SET value = ? WHERE name = ?", (str(last + count), what))
        return last + 1

    def _guarded(self) -> AbstractContextManager[None]:
        return guard(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a transaction, all or nothing; cached rows are dropped."""
        with self._guarded(), transaction(self.connection, self._BEGIN):
            yield
            self._next("revision")
        self._revision()

    def add(self, document: Book) -> Added:
        """Store a work with its sections and passages, unless its text is stored already."""
        digest = hashlib.sha256(document.text.encode("utf-8")).hexdigest()
        if stored := self.connection.execute("SELECT id FROM works WHERE sha256 = ?", (digest,)).fetchone():
            return Added(self.work(stored[0]), new=False)
        parts = sections.split(document.text, document.headings, document.lines)
        with self._transaction():
            if stored := self.connection.execute("SELECT id FROM works WHERE sha256 = ?", (digest,)).fetchone():
                return Added(self.work(stored[0]), new=False)  # another process was faster
            work, now = self._next("work"), datetime.now(UTC).isoformat(timespec="seconds")
            self.connection.execute(
                "INSERT INTO works(id, title, author, year, source, sha256, added) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (work, *astuple(document.names), document.source, digest, now),
            )
            self.connection.execute("INSERT INTO texts VALUES (?, ?)", (work, document.text))
            if document.data:
                self.connection.execute("INSERT INTO sources VALUES (?, ?)", (work, zlib.compress(document.data)))
            self.connection.executemany(
                "INSERT INTO apparatus(work, position, kind, text, at) VALUES (?, ?, ?, ?, ?)",
                [(work, position, *astuple(item)) for position, item in enumerate(document.apparatus)],
            )
            for position, part in enumerate(parts):
                section = self._next("section")
                self.connection.execute(
                    'INSERT INTO sections(id, work, position, label, title, verse, start, "end", body, lines) '
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        section,
                        work,
                        position,
                        part.label,
                        part.title,
                        int(part.verse),
                        part.start,
                        part.end,
                        part.body,
                        packed_lines(part.lines),
                    ),
                )
                pieces = passages.cut(document.text, part)
                first = self._next("passage", len(pieces))
                self.connection.executemany(
                    'INSERT INTO passages(id, section, start, "end", text, first_verse, last_verse) '
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (passage, section, *piece[:2], document.text[piece.start : piece.end], *piece[2:])
                        for passage, piece in enumerate(pieces, first)
                    ],
                )
        return Added(self.work(work), new=True)

    def rename(self, work: Work, names: Names) -> Work:
        """Change author, title and year of a work; values not given stay."""
        now = names.over(Names(work.title, work.author, work.year))
        with self._transaction():
            self.connection.execute(
                "UPDATE works SET title = ?, author = ?, year = ? WHERE id = ?", (*astuple(now), work.id)
            )
        return self.work(work.id)

    def remove(self, work: Work) -> None:
        """Remove a work and everything derived from it."""
        with self._transaction():
            self.connection.execute("DELETE FROM works WHERE id = ?", (work.id,))

    def rebuild(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Rebuild the index from the passages."""
        self._index.reset()
        self._indexed_at = None
        self.catch_up(progress)

    def works(self) -> list[Work]:
        """All works, by author and title."""
        with self._guarded():
            self._revision()
            if self._listed is None:
                self._listed = [
                    Work(*row) for row in self.connection.execute(f"{_WORK} ORDER BY w.author, w.title, w.id")
                ]
            return list(self._listed)

    def work(self, work_id: int) -> Work:
        """One work by its id."""
        if work_id not in self._works:
            row = self.connection.execute(f"{_WORK} WHERE w.id = ?", (work_id,)).fetchone()
            if row is None:
                raise InputError(f"There is no work {work_id} in the library.", "", "See: stilnovo library list")
            self._works[work_id] = Work(*row)
        return self._works[work_id]

    def text(self, work: Work) -> str:
        """The stored source of a work."""
        if work.id not in self._texts:
            if len(self._texts) >= 8:
                self._texts.pop(next(iter(self._texts)))
            self._texts[work.id] = str(
                self.connection.execute("SELECT text FROM texts WHERE work = ?", (work.id,)).fetchone()[0]
            )
        return self._texts[work.id]

    def source(self, work: Work) -> bytes | None:
        """The bytes of the file that a work was read from; None: added before files were kept, or not from a file."""
        row = self.connection.execute("SELECT data FROM sources WHERE work = ?", (work.id,)).fetchone()
        return None if row is None else zlib.decompress(row[0])

    def apparatus(self, work: Work) -> list[Apparatus]:
        """Notes, speakers, stage directions and the like of a work, in the order in which they stood."""
        rows = self.connection.execute(
            "SELECT kind, text, at FROM apparatus WHERE work = ? ORDER BY position", (work.id,)
        )
        return [Apparatus(*row) for row in rows.fetchall()]

    def section(self, section_id: int) -> Chapter:
        """One section by its id."""
        return self._chapter(self.connection.execute(f"{_SECTION} WHERE id = ?", (section_id,)).fetchone())

    def sections(self, work: Work) -> list[Chapter]:
        """The sections of a work, in order."""
        rows = self.connection.execute(f"{_SECTION} WHERE work = ? ORDER BY position", (work.id,))
        return [self._chapter(row) for row in rows.fetchall()]

    def _chapter(self, row: Sequence[object]) -> Chapter:
        section, work, position, label, title, verse, start, end, body, lines = row
        verses = unpacked_lines(str(lines))
        return Chapter(section, self.work(work), position, label, title, bool(verse), start, end, body, verses)  # type: ignore[arg-type]

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """Passages by id, in the order of the ids."""
        if not ids:
            return []
        marks = ",".join("?" * len(ids))
        rows = self.connection.execute(f"{_PASSAGE} WHERE id IN ({marks})", tuple(ids)).fetchall()
        chapters = {row[1]: self.section(row[1]) for row in rows}
        by_id = {row[0]: Passage(row[0], chapters[row[1]], *row[2:]) for row in rows}
        return [by_id[passage] for passage in ids if passage in by_id]

    def passages_of(self, section: Chapter) -> list[Passage]:
        """The passages of a section, in order."""
        rows = self.connection.execute(f"{_PASSAGE} WHERE section = ? ORDER BY start", (section.id,)).fetchall()
        return [Passage(row[0], section, *row[2:]) for row in rows]

    def around(self, passage: Passage, count: int = 1) -> list[Passage]:
        """A passage with up to `count` neighbours on each side, within its section, in order."""
        inside = self.passages_of(passage.section)
        at = next(i for i, other in enumerate(inside) if other.id == passage.id)
        return inside[max(0, at - count) : at + count + 1]

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

    def check(self, progress: Callable[[str], None] = lambda _: None) -> list[str]:
        """Check the library; returns one line per problem.

        Checks the file itself, that texts have their sha256, that sections tile each text, that every passage is
        exactly its span inside its section, and that the index holds exactly these passages with exactly these words.
        """
        with self._guarded():
            lines = self._database_problems()
            for work in self.works():
                progress(work.title)
                parts = ((section, self.passages_of(section)) for section in self.sections(work))
                lines += [f"{work.title}: {problem}" for problem in problems(work, self.text(work), parts)]
            return lines + list(self.index.problems(self._digests(), self._rows))

    def _database_problems(self) -> list[str]:
        return integrity(self.connection)
