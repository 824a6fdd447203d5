"""The library in one SQLite file: source texts, works, sections and passages are the truth, the index is derived.

A work is stored in one transaction with its index rows (write-ahead log), so a process killed at any moment leaves
either the whole work or none of it. The same text is never stored twice, whatever its file was called.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library import index, passages, sections
from stilnovo.library.read import Document
from stilnovo.library.records import Chapter, Passage, Work

_APPLICATION, _SCHEMA = 0x5374696C, 1  # "Stil"
_TABLES = """
CREATE TABLE works(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL, year INTEGER,
    source TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, added TEXT NOT NULL);
CREATE TABLE texts(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, text TEXT NOT NULL);
CREATE TABLE sections(id INTEGER PRIMARY KEY, work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE,
    position INTEGER NOT NULL, label TEXT NOT NULL, title TEXT NOT NULL, verse INTEGER NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, body INTEGER NOT NULL, UNIQUE(work, position));
CREATE TABLE passages(id INTEGER PRIMARY KEY, section INTEGER NOT NULL REFERENCES sections ON DELETE CASCADE,
    start INTEGER NOT NULL, end INTEGER NOT NULL, text TEXT NOT NULL, first_verse INTEGER, last_verse INTEGER);
CREATE INDEX passages_of_section ON passages(section, start);
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_WORK = """SELECT w.id, w.title, w.author, w.year, w.source, w.sha256,
    (SELECT length(text) FROM texts WHERE work = w.id),
    (SELECT count(*) FROM sections WHERE work = w.id),
    (SELECT count(*) FROM passages p JOIN sections s ON s.id = p.section WHERE s.work = w.id) FROM works w"""
_SECTION = "SELECT id, work, position, label, title, verse, start, end, body FROM sections"
_PASSAGE = "SELECT id, section, start, end, text, first_verse, last_verse FROM passages"


@dataclass(frozen=True)
class Added:
    """What `add` did: the work, and whether it is new or was there already."""

    work: Work
    new: bool


def default_path() -> Path:
    """`$STILNOVO_LIBRARY`, else `stilnovo/library.sqlite` in the user's data folder (XDG)."""
    if named := os.environ.get("STILNOVO_LIBRARY"):
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "stilnovo" / "library.sqlite"


class Library:
    """One library. Use `Library.open(path)` or `Library.memory()`; close it, or use it in a `with`.

    Every method may raise `StilnovoError` when the file is locked, read-only or on a full disk.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self._db, self.path = connection, path
        self._works: dict[int, Work] = {}
        self._texts: dict[int, str] = {}
        self._listed: list[Work] = []
        self._listed_at: tuple[int, int] | None = None  # the state of the file that `_listed` is of

    @classmethod
    def open(cls, path: Path) -> Library:
        """Open a library file, creating it where there is none.

        Raises:
            InputError: the file is something else, or from a newer stilnovo.
        """
        with guard(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"Cannot create the folder {path.parent}.", str(error.strerror)) from error
            library = cls(sqlite3.connect(path, timeout=30, isolation_level=None), path)
            library._prepare()
        return library

    @classmethod
    def memory(cls) -> Library:
        """A library that lives as long as the process: the built-in sample, tests."""
        library = cls(sqlite3.connect(":memory:", isolation_level=None), None)
        library._prepare()
        return library

    def _prepare(self) -> None:
        db = self._db
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        if tables and application != _APPLICATION:
            raise InputError(f"{self.path} is no stilnovo library.", "Another program made it.", "Name another file.")
        if tables and schema != _SCHEMA:
            raise InputError(f"{self.path} has format {schema}.", f"This version reads {_SCHEMA}.", "Update stilnovo.")
        db.execute("PRAGMA foreign_keys = ON")
        if not tables:
            db.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                # Another process may have been first.
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in (_TABLES + index.SCHEMA).split(";\n"):
                        db.execute(statement)
                    db.execute("INSERT INTO facts VALUES ('index', ?)", (str(index.VERSION),))
                    db.execute(f"PRAGMA application_id = {_APPLICATION}")
                    db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("SELECT value FROM facts WHERE name = 'index'").fetchone() != (str(index.VERSION),):
            self.rebuild()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open database, for the search over it."""
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with guard(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, document: Document) -> Added:
        """Store a work with its sections, passages and index rows, or find that its text is already here."""
        digest = hashlib.sha256(document.text.encode("utf-8")).hexdigest()
        if there := self._db.execute("SELECT id FROM works WHERE sha256 = ?", (digest,)).fetchone():
            return Added(self.work(there[0]), new=False)
        parts = sections.split(document.text, document.headings)
        with self._transaction():
            now = datetime.now(UTC).isoformat(timespec="seconds")
            names = document.names
            work = self._db.execute(
                "INSERT INTO works(title, author, year, source, sha256, added) VALUES (?, ?, ?, ?, ?, ?)",
                (names.title, names.author, names.year, document.source, digest, now),
            ).lastrowid
            assert work is not None
            self._db.execute("INSERT INTO texts VALUES (?, ?)", (work, document.text))
            for position, section in enumerate(parts):
                self._add_section(work, position, section, document)
        return Added(self.work(work), new=True)

    def _add_section(self, work: int, position: int, section: sections.Section, document: Document) -> None:
        number = self._db.execute(
            "INSERT INTO sections(work, position, label, title, verse, start, end, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (work, position, section.label, section.title, section.verse, section.start, section.end, section.body),
        ).lastrowid
        names = index.context(document.names.author, document.names.title, section.label, section.title)
        rows = []
        for piece in passages.cut(document.text, section):
            text = document.text[piece.start : piece.end]
            passage = self._db.execute(
                "INSERT INTO passages(section, start, end, text, first_verse, last_verse) VALUES (?, ?, ?, ?, ?, ?)",
                (number, piece.start, piece.end, text, piece.first_verse, piece.last_verse),
            ).lastrowid
            assert passage is not None
            rows.append((passage, text, names))
        index.put(self._db, rows)

    def remove(self, work: Work) -> None:
        """Take a work out, with everything derived from it."""
        with self._transaction():
            numbers = self._db.execute(
                "SELECT p.id FROM passages p JOIN sections s ON s.id = p.section WHERE s.work = ?", (work.id,)
            ).fetchall()
            index.drop(self._db, [number for (number,) in numbers])
            self._db.execute("DELETE FROM works WHERE id = ?", (work.id,))
        self._works.pop(work.id, None)
        self._texts.pop(work.id, None)

    def rebuild(self) -> None:
        """Make the index anew from the passages."""
        with self._transaction():
            self._db.execute("DROP TABLE IF EXISTS vocabulary")
            self._db.execute("DROP TABLE IF EXISTS words")
            for statement in index.SCHEMA.split(";\n"):
                self._db.execute(statement)
            index.put(self._db, self._indexed())
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('index', ?)", (str(index.VERSION),))

    def _indexed(self) -> Iterator[tuple[int, str, str]]:
        """Every passage as the index wants it: id, text, context."""
        rows = self._db.execute(
            "SELECT p.id, p.text, w.author, w.title, s.label, s.title FROM passages p "
            "JOIN sections s ON s.id = p.section JOIN works w ON w.id = s.work ORDER BY p.id"
        ).fetchall()
        return ((number, text, index.context(*names)) for number, text, *names in rows)

    def works(self) -> list[Work]:
        """All works, by author and title."""
        with guard(self.path):
            state = (self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes)
            if state != self._listed_at:
                self._listed = [Work(*row) for row in self._db.execute(f"{_WORK} ORDER BY w.author, w.title, w.id")]
                self._listed_at = state
            return list(self._listed)

    def work(self, number: int) -> Work:
        """One work by its id."""
        if number not in self._works:
            row = self._db.execute(f"{_WORK} WHERE w.id = ?", (number,)).fetchone()
            if row is None:
                raise InputError(f"There is no work {number} in the library.", "", "See: stilnovo library list")
            self._works[number] = Work(*row)
        return self._works[number]

    def text(self, work: Work) -> str:
        """The stored source of a work."""
        if work.id not in self._texts:
            while len(self._texts) >= 8:
                self._texts.pop(next(iter(self._texts)))
            self._texts[work.id] = str(
                self._db.execute("SELECT text FROM texts WHERE work = ?", (work.id,)).fetchone()[0]
            )
        return self._texts[work.id]

    def section(self, number: int) -> Chapter:
        """One section by its id."""
        return self._chapter(self._db.execute(f"{_SECTION} WHERE id = ?", (number,)).fetchone())

    def sections(self, work: Work) -> list[Chapter]:
        """The sections of a work, in order."""
        rows = self._db.execute(f"{_SECTION} WHERE work = ? ORDER BY position", (work.id,))
        return [self._chapter(row) for row in rows.fetchall()]

    def _chapter(self, row: Sequence[object]) -> Chapter:
        number, work, position, label, title, verse, start, end, body = row
        return Chapter(number, self.work(work), position, label, title, bool(verse), start, end, body)  # type: ignore[arg-type]

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Passages by their ids, in the order asked for."""
        marks = ",".join("?" * len(numbers))
        rows = self._db.execute(f"{_PASSAGE} WHERE id IN ({marks})", tuple(numbers)).fetchall()
        chapters = {row[1]: self.section(row[1]) for row in rows}
        found = {row[0]: Passage(row[0], chapters[row[1]], *row[2:]) for row in rows}
        return [found[number] for number in numbers if number in found]

    def passages_of(self, section: Chapter) -> list[Passage]:
        """The passages of a section, in order."""
        rows = self._db.execute(f"{_PASSAGE} WHERE section = ? ORDER BY start", (section.id,)).fetchall()
        return [Passage(row[0], section, *row[2:]) for row in rows]

    def check(self, progress: Callable[[str], None] = lambda _: None) -> list[str]:
        """Everything that is wrong with this library, one line each; empty when it is sound.

        Checks the file itself, that texts have their sha256, that sections tile each text, that every passage is
        exactly its span inside its section, and that the index holds exactly these passages with exactly these words.
        """
        with guard(self.path):
            found = [f"Database: {row[0]}" for row in self._db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [
                f"Database: a row of {row[0]} refers to nothing."
                for row in self._db.execute("PRAGMA foreign_key_check")
            ]
            for work in self.works():
                progress(work.title)
                found += [f"{work.title}: {problem}" for problem in self._work_problems(work)]
            return found + index.problems(self._db, self._indexed())

    def _work_problems(self, work: Work) -> Iterator[str]:
        text = self.text(work)
        if hashlib.sha256(text.encode("utf-8")).hexdigest() != work.sha256:
            yield "the stored text has changed since it was added."
        position = 0
        for section in self.sections(work):
            if section.start != position:
                yield f"text between {position} and {section.start} is in no section, or in two."
            position = section.end
            for passage in self.passages_of(section):
                inside = section.body <= passage.start < passage.end <= section.end
                if not inside or passage.text != text[passage.start : passage.end]:
                    yield f"passage {passage.id} is not its span {passage.start}-{passage.end}."
        if position != len(text):
            yield f"text from {position} on is in no section."


@contextmanager
def guard(path: Path | None) -> Iterator[None]:
    """Turn SQLite's errors into lines for a person."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = str(error)
        if "locked" in reason or "busy" in reason:
            raise StilnovoError(
                f"{path} is being written by another program.", reason, "Wait for it, then run again."
            ) from error
        if "full" in reason:
            raise StilnovoError(
                f"The disk is full: {path} was not changed.", reason, "Free some space, then run again."
            ) from error
        if "readonly" in reason or "unable to open" in reason:
            raise InputError(
                f"Cannot write the library {path}.", reason, "Check its permissions, or use --library."
            ) from error
        raise StilnovoError(f"The library {path} failed.", reason, "Run: stilnovo library check") from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path} is not a library, or is damaged.", str(error), "Name another file with --library."
        ) from error
