"""The tables of a library file, and how a file of an older format becomes one of this.

Works, texts, sections and passages are the truth; vectors can be made anew. `facts` holds the highest ids ever given,
and a revision that grows whenever works come, go or are renamed. The service's conversations lie in the same file, with
a version of their own.

A file of an older format is copied first, then changed in one transaction: a process killed at any moment leaves the
old file or the new one, and the copy. Rules of older formats are repeated here as they were, so that ids, places and
verse numbers in use since then stay what they are whatever the readers do today.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.library.copies import copy_beside
from stilnovo.library.database import guard, transaction
from stilnovo.library.records import packed_lines
from stilnovo.reading.text_builder import VerseLine

log = logging.getLogger("stilnovo.library")
APPLICATION, SCHEMA = 0x5374696C, 3  # "Stil"
# `data` is the file, compressed; `given` the names that a person gave with it, a JSON object; `warnings` what the reader
# could not read in it, a JSON list.
_KEPT = """
CREATE TABLE sources(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, data BLOB NOT NULL,
    given TEXT NOT NULL, warnings TEXT NOT NULL);
CREATE TABLE apparatus(work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE, position INTEGER NOT NULL,
    kind TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(work, position));
"""
_VECTORS = """
CREATE TABLE vectors(passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE, model TEXT NOT NULL,
    vector BLOB NOT NULL, PRIMARY KEY(passage, model));
"""
TABLES = f"""
CREATE TABLE works(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL, year INTEGER,
    source TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, added TEXT NOT NULL);
CREATE TABLE texts(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, text TEXT NOT NULL);
CREATE TABLE sections(id INTEGER PRIMARY KEY, work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE,
    position INTEGER NOT NULL, label TEXT NOT NULL, title TEXT NOT NULL, verse INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, body INTEGER NOT NULL, lines TEXT NOT NULL DEFAULT '[]',
    UNIQUE(work, position));
CREATE TABLE passages(id INTEGER PRIMARY KEY, section INTEGER NOT NULL REFERENCES sections ON DELETE CASCADE,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, first_verse INTEGER, last_verse INTEGER);
CREATE INDEX passages_of_section ON passages(section, start);
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL);
{_VECTORS}{_KEPT}
INSERT INTO facts VALUES ('revision', '0');
INSERT INTO facts VALUES ('work', '0');
INSERT INTO facts VALUES ('section', '0');
INSERT INTO facts VALUES ('passage', '0');
"""
# Format 1 kept its index in the same file and let ids be given again.
_FROM_1 = f"""
DROP TABLE IF EXISTS vocabulary;
DROP TABLE IF EXISTS words;
DELETE FROM facts WHERE name = 'index';
{_VECTORS}
INSERT INTO facts VALUES ('revision', '0');
INSERT INTO facts SELECT 'work', coalesce(max(id), 0) FROM works;
INSERT INTO facts SELECT 'section', coalesce(max(id), 0) FROM sections;
INSERT INTO facts SELECT 'passage', coalesce(max(id), 0) FROM passages;
"""
# Format 2 kept neither the files nor the lines of verse.
_FROM_2 = f"""
ALTER TABLE sections ADD COLUMN lines TEXT NOT NULL DEFAULT '[]';
{_KEPT}
"""


def run_script(db: Any, script: str) -> None:
    """Execute the statements of a script inside the running transaction (`executescript` would commit it)."""
    for statement in filter(str.strip, script.split(";\n")):
        db.execute(statement)


def prepare(db: sqlite3.Connection, path: Path | None) -> None:
    """Create the tables in an empty file, or migrate an older format after a copy is made.

    Raises:
        InputError: the file is something else, or from a newer stilnovo.
        StilnovoError: there is no room for the copy; nothing was changed.
    """
    tables, _ = check_identity(db, path)
    db.execute("PRAGMA foreign_keys = ON")
    if not tables:
        db.execute("PRAGMA journal_mode = WAL")
    if not tables or _format(db) != SCHEMA:
        with guard(path), transaction(db):
            version = _format(db)  # another process may have been first
            if not version:
                run_script(db, TABLES)
                _identify(db)
            elif version != SCHEMA:
                copy = copy_beside(path, f"format{version}") if path else None
                upgrade(db, version)
                if copy:
                    log.info("%s had format %s and has %s now. A copy as it was: %s", path, version, SCHEMA, copy)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("PRAGMA synchronous = NORMAL")


def check_identity(db: sqlite3.Connection, path: Path | None) -> tuple[int, int]:
    """Check that a database is empty or a library of a known format; returns how many tables it has, and its format.

    Raises:
        InputError: the file is something else, or from a newer stilnovo.
    """
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    version = _format(db)
    if tables and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise InputError(f"{path} is no stilnovo library.", "Another program made it.", "Name another file.")
    if tables and not 1 <= version <= SCHEMA:
        raise InputError(
            f"{path} has format {version}, of a newer stilnovo.", f"This version reads {SCHEMA}.", "Update stilnovo."
        )
    return tables, version


def _format(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _identify(db: Any) -> None:
    db.execute("INSERT INTO facts VALUES ('library', ?)", (uuid.uuid4().hex,))


def upgrade(db: Any, version: int, adapted: Callable[[str], str] = str) -> None:
    """Bring the tables of an older format up to date, inside the caller's transaction.

    Args:
        db: SQLite's connection, or one with its methods.
        version: The format that they have.
        adapted: Adapts a script to another database.
    """
    if version == 1:
        run_script(db, adapted(_FROM_1))
        _identify(db)
    run_script(db, adapted(_FROM_2))
    _number_lines(db)


def _number_lines(db: Any) -> None:
    """Store the lines of verse, which format 2 counted from the text: all lines of a poem, from 1."""
    works = db.execute("SELECT DISTINCT work FROM sections WHERE verse = 1").fetchall()
    for (work,) in works:
        text = str(db.execute("SELECT text FROM texts WHERE work = ?", (work,)).fetchone()[0])
        poems = db.execute('SELECT id, body, "end" FROM sections WHERE work = ? AND verse = 1', (work,)).fetchall()
        for section, body, end in poems:
            spans = [
                (body + match.start(), body + match.end())
                for match in re.finditer(r"[^\s][^\n]*[^\s]|[^\s]", text[body:end])
                if any(char.isalnum() for char in match.group())
            ]
            lines = packed_lines(VerseLine(*span, number) for number, span in enumerate(spans, 1))
            db.execute("UPDATE sections SET lines = ? WHERE id = ?", (lines, section))
