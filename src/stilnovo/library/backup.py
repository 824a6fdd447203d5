"""Back a library up into one file, and restore it, while a service runs on it.

The file holds works, the files they were read from, vectors and conversations; the index is left out, because it makes
itself anew. A restore replaces all of that in one transaction of the library's own file, so that programs which have it
open see the old state or the new one and need not be started again. What is replaced is copied first.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError, StilnovoError, reported
from stilnovo.library.copies import copy_beside, copy_database, publish, remove_database
from stilnovo.library.database import guard, integrity, transaction
from stilnovo.library.schema import check_identity, prepare
from stilnovo.library.store import Library

Counted = Callable[[int, int], None]
_ABANDONED_SECONDS = 3600


@dataclass(frozen=True)
class Backup:
    """What a backup file holds: its format, and how many works and conversations."""

    path: Path
    format: int
    works: int
    conversations: int


def _silent(_done: int, _total: int) -> None:
    pass


def _read(copy: Path, path: Path) -> Backup:
    """Check a copy of a backup file, that nobody has open, and count what it holds; errors name the file itself."""
    bad = reported(f"{path} is no stilnovo library, or is damaged.", "Take another file.", errors=sqlite3.Error)
    with bad, closing(sqlite3.connect(copy, isolation_level=None)) as db:
        tables, version = check_identity(db, path)
        if not tables:
            raise InputError(f"{path} is empty.", "It holds no library.", "Take another file.")
        if problems := integrity(db):
            raise InputError(f"{path} is damaged.", problems[0], "Take another file.")
        return Backup(path, version, _rows(db, "works"), _rows(db, "conversations"))


def _rows(db: sqlite3.Connection, table: str) -> int:
    """Rows of a table that may not be there."""
    if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]:
        return 0
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def back_up(path: Path, target: Path, progress: Counted = _silent) -> Backup:
    """Copy a library to a new file, checked after it is written; others may read and write the library meanwhile.

    Args:
        path: The library's file.
        target: The backup's.
        progress: Told how many pages of how many are copied.

    Raises:
        InputError: `target` exists, or its folder does not.
        StilnovoError: the disk is full.
    """
    taken = InputError(f"{target} exists already.", "Backups are never overwritten.", "Name another file.")
    if target.exists():
        raise taken
    if not target.parent.is_dir():
        raise InputError(f"There is no folder {target.parent}.", "", "Make it, or name another file.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with reported(
        f"The backup {target} could not be written.", "Free some space, or name another file; the library is as it was.",
        errors=(sqlite3.Error, OSError), kind=StilnovoError,
    ):  # fmt: skip
        try:
            copy_database(path, part, progress)
            held = _read(part, target)
            publish(part, target)
        except FileExistsError as error:
            raise taken from error
        finally:
            remove_database(part)
    return held


def restore(
    source: Path, target: Path, finish: Callable[[Library], None], progress: Counted = _silent
) -> tuple[Backup, Path | None]:
    """Replace all that a library holds by what a backup holds; others may read and write the library meanwhile.

    Args:
        source: The backup, of this format or an older one; it is not changed.
        target: The library's file; created where there is none.
        finish: Brings the tables up to date that other parts of the program keep in the file.
        progress: Told how many tables of how many are written.

    Returns:
        What the backup held, and the copy of what was replaced; None where that was empty.

    Raises:
        InputError: the backup is absent, damaged or of a newer format, or the library's file is damaged.
        StilnovoError: no room, or the library is locked; it is then as it was.
    """
    if not source.is_file():
        raise InputError(f"There is no file {source}.", "", "Name a file that `stilnovo library backup` wrote.")
    if target.exists() and source.samefile(target):
        raise InputError(f"{source} is the library itself.", "", "Name a backup of it.")
    with reported(f"Cannot write beside {target}.", "Check the folder's permissions.", errors=OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}.restore-"
        for left in target.parent.glob(f"{prefix}*"):  # of a restore that was killed
            if left.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix)
    room = reported(
        f"{source} could not be copied to {target.parent}.",
        "Make room there.",
        errors=sqlite3.OperationalError,
        kind=StilnovoError,
    )
    with folder as name:
        staged = Path(name) / "library.sqlite"
        with (
            reported(f"{source} is no stilnovo library, or is damaged.", "Take another file.", errors=sqlite3.Error),
            room,
        ):
            copy_database(source, staged)
        held = _read(staged, source)
        with Library(sqlite3.connect(staged, isolation_level=None), source) as library:
            prepare(library.connection, None)
            finish(library)
            if problems := library.check_works():
                raise InputError(f"{source} is damaged.", problems[0], "Take another file.")
        return held, _replace(staged, target, progress)


def _replace(staged: Path, target: Path, progress: Counted) -> Path | None:
    """Replace all tables of a library by those of another file, in one transaction; returns the copy made before."""
    try:
        return _replaced(staged, target, progress)
    except InputError as error:
        damaged = type(error.__cause__) is sqlite3.DatabaseError
        advice = f"Stop the service and move {target.name}* away from {target.parent}, then restore again."
        raise InputError(
            f"{error.what} Nothing was restored.", error.found, advice if damaged else error.next
        ) from error


def _replaced(staged: Path, target: Path, progress: Counted) -> Path | None:
    with Library.open(target) as library, guard(target):
        db = library.connection
        db.execute("PRAGMA foreign_keys = OFF")  # tables refer to each other; the backup's rows were checked
        db.execute("ATTACH ? AS backup", (str(staged),))
        with transaction(db):
            empty = not _rows(db, "works") and not _rows(db, "conversations")
            copy = None if empty else copy_beside(target, "before-restore")
            given = {fact: _fact(db, fact) for fact in _COUNTERS}
            for (table,) in db.execute(f"SELECT name FROM main.sqlite_master WHERE {_TABLE}").fetchall():
                db.execute(f'DROP TABLE main."{table}"')
            made = db.execute(
                f"SELECT sql, name FROM backup.sqlite_master WHERE {_TABLE} "
                "UNION ALL SELECT sql, NULL FROM backup.sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            ).fetchall()
            for done, (statement, table) in enumerate(made, start=1):
                db.execute(statement)
                if table:
                    db.execute(f'INSERT INTO main."{table}" SELECT * FROM backup."{table}"')
                progress(done, len(made))
            # No id and no revision that programs may still hold is given again.
            for fact, value in given.items():
                highest = max(value, _fact(db, fact)) + (fact == "revision")
                db.execute("UPDATE main.facts SET value = ? WHERE name = ?", (str(highest), fact))
    return copy


_COUNTERS = ("work", "section", "passage", "revision")
_TABLE = "type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND sql NOT LIKE 'CREATE VIRTUAL%'"


def _fact(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute("SELECT value FROM main.facts WHERE name = ?", (name,)).fetchone()[0])
