"""The tables of a library, its creation and migration, transactions, checks, and SQLite's errors in words for a person.

Works, texts, sections and passages are the truth; vectors can be made anew. `facts` holds the highest ids ever given,
and a revision that grows whenever works come, go or are renamed.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.records import Chapter, Passage, Work

APPLICATION, SCHEMA = 0x5374696C, 3  # "Stil"
TABLES = """
CREATE TABLE works(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL, year INTEGER,
    source TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, added TEXT NOT NULL);
CREATE TABLE texts(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, text TEXT NOT NULL);
CREATE TABLE sections(id INTEGER PRIMARY KEY, work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE,
    position INTEGER NOT NULL, label TEXT NOT NULL, title TEXT NOT NULL, verse INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, body INTEGER NOT NULL, lines TEXT NOT NULL DEFAULT '[]',
    UNIQUE(work, position));
CREATE TABLE sources(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE apparatus(work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE, position INTEGER NOT NULL,
    kind TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(work, position));
CREATE TABLE passages(id INTEGER PRIMARY KEY, section INTEGER NOT NULL REFERENCES sections ON DELETE CASCADE,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, first_verse INTEGER, last_verse INTEGER);
CREATE INDEX passages_of_section ON passages(section, start);
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE vectors(passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE, model TEXT NOT NULL,
    vector BLOB NOT NULL, PRIMARY KEY(passage, model));
INSERT INTO facts VALUES ('revision', '0');
INSERT INTO facts VALUES ('work', '0');
INSERT INTO facts VALUES ('section', '0');
INSERT INTO facts VALUES ('passage', '0');
"""
# Format 2 kept neither the files nor the lines of verse.
FROM_2 = """ALTER TABLE sections ADD COLUMN lines TEXT NOT NULL DEFAULT '[]';
CREATE TABLE sources(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE apparatus(work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE, position INTEGER NOT NULL,
    kind TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(work, position));
"""
# Format 1 kept its index in the same file and let ids be given again.
FROM_1 = """DROP TABLE IF EXISTS vocabulary;
DROP TABLE IF EXISTS words;
DELETE FROM facts WHERE name = 'index';
CREATE TABLE vectors(passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE, model TEXT NOT NULL,
    vector BLOB NOT NULL, PRIMARY KEY(passage, model));
INSERT INTO facts VALUES ('revision', '0');
INSERT INTO facts SELECT 'work', coalesce(max(id), 0) FROM works;
INSERT INTO facts SELECT 'section', coalesce(max(id), 0) FROM sections;
INSERT INTO facts SELECT 'passage', coalesce(max(id), 0) FROM passages;
"""


# What SQLite's operational errors say, and what that means to a person.
_REASONS: tuple[tuple[str, type[StilnovoError], str, str], ...] = (
    ("locked|busy", StilnovoError, "{} is being written by another program.", "Wait for it, then run again."),
    ("full", StilnovoError, "The disk is full: {} was not changed.", "Free some space, then run again."),
    ("readonly|unable to open", InputError, "Cannot write the library {}.", "Check its permissions, or use --library."),
    ("", StilnovoError, "The library {} failed.", "Run: stilnovo library check"),
)


@contextmanager
def guard(path: Path | None) -> Iterator[None]:
    """Raise SQLite's errors as errors with advice."""
    try:
        yield
    except sqlite3.OperationalError as error:
        _, kind, what, advice = next(reason for reason in _REASONS if re.search(reason[0], str(error)))
        raise kind(what.format(path), str(error), advice) from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path} is not a library, or is damaged.", str(error), "Name another file with --library."
        ) from error


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Run a transaction: commit at the end, roll back on any exception."""
    try:
        db.execute(begin)
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(Exception):  # it may not have begun
            db.execute("ROLLBACK")
        raise


def prepare(db: sqlite3.Connection, path: Path | None) -> None:
    """Create the tables in an empty file, or migrate an older format.

    Raises:
        InputError: the file is something else, or from a newer stilnovo.
    """
    asked = ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
    tables, application, schema = (db.execute(question).fetchone()[0] for question in asked)
    if tables and application != APPLICATION:
        raise InputError(f"{path} is no stilnovo library.", "Another program made it.", "Name another file.")
    if tables and schema not in (1, 2, SCHEMA):
        raise InputError(f"{path} has format {schema}.", f"This version reads {SCHEMA}.", "Update stilnovo.")
    db.execute("PRAGMA foreign_keys = ON")
    if not tables:
        db.execute("PRAGMA journal_mode = WAL")
    if not tables or schema != SCHEMA:
        with guard(path), transaction(db):
            schema = db.execute("PRAGMA user_version").fetchone()[0]
            if schema != SCHEMA:  # another process may have been first
                for statement in {1: FROM_1 + FROM_2, 2: FROM_2}.get(schema, TABLES).split(";\n"):
                    db.execute(statement)
                if schema != 2:
                    db.execute("INSERT INTO facts VALUES ('library', ?)", (uuid.uuid4().hex,))
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("PRAGMA synchronous = NORMAL")


def integrity(db: sqlite3.Connection) -> list[str]:
    """Problems that SQLite's integrity and foreign-key checks report."""
    broken = [f"Database: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    lost = db.execute("PRAGMA foreign_key_check")
    return broken + [f"Database: a row of {row[0]} refers to nothing." for row in lost]


def problems(work: Work, text: str, parts: Iterable[tuple[Chapter, Sequence[Passage]]]) -> Iterator[str]:
    """Problems of one work, given its stored text and its sections in order, each with its passages."""
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != work.sha256:
        yield "the stored text has changed since it was added."
    position = 0
    for section, passages in parts:
        if section.start != position:
            yield f"text between {position} and {section.start} is in no section, or in two."
        position = section.end
        for passage in passages:
            if (
                not section.body <= passage.start < passage.end <= section.end
                or passage.text != text[passage.start : passage.end]
            ):
                yield f"passage {passage.id} is not its span {passage.start}-{passage.end}."
    if position != len(text):
        yield f"text from {position} on is in no section."
