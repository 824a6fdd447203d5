"""Copy a SQLite database while others read and write it: whole or not at all, never over another file.

SQLite's backup API copies one state of the database, whatever other connections do meanwhile. The copy grows under a
hidden name, is flushed to disk and appears under its own name at once, as a single file without write-ahead log.
"""

from __future__ import annotations

import filecmp
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from stilnovo.errors import StilnovoError, reported

#: Pages copied between two calls of `progress`.
PAGES_AT_ONCE = 2048


def copy_database(source: Path, part: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
    """Copy the database at `source`, which may be in use, to `part`; what is there is deleted.

    `progress` is told how many pages of how many are copied. A copy that fails leaves nothing behind.
    """
    remove_database(part)
    try:
        mode = stat.S_IMODE(source.stat().st_mode)  # who may not read the library may not read its copies
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        with closing(sqlite3.connect(source, timeout=30, isolation_level=None)) as reader:
            reader.execute("BEGIN")  # one state of the file: no writer can make the copy begin again
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                reader.backup(copy, pages=PAGES_AT_ONCE, progress=lambda _, left, total: progress(total - left, total))
                copy.execute("PRAGMA journal_mode = DELETE")
        with part.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        remove_database(part)
        raise


def remove_database(path: Path) -> None:
    """Delete a database that nobody has open, with its journals."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def publish(part: Path, target: Path) -> None:
    """Give a finished file its name.

    Raises:
        FileExistsError: there is a file of that name.
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without links
        if target.exists():
            raise FileExistsError(target) from error
        part.rename(target)
    part.unlink(missing_ok=True)
    with suppress(OSError):  # a system on which a folder cannot be flushed
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def copy_beside(path: Path, what: str) -> Path:
    """Copy a database to a new file beside it, called by `what` and the date; returns the copy's path.

    The caller holds the write lock of `path`, so that the copy is of the state that the caller will change. Where an
    earlier copy is the same to the byte, that one is returned: attempts that fail do not fill the disk.

    Raises:
        StilnovoError: there is no room, or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.copy")
    size = path.stat().st_size / 2**20
    with reported(
        f"No copy of {path} could be made, so it was not changed.",
        f"Make room for {size:.0f} MiB beside it and see that its folder can be written, then run again.",
        errors=(sqlite3.Error, OSError), kind=StilnovoError,
    ):  # fmt: skip
        copy_database(path, part)
        try:
            for earlier in sorted(path.parent.glob(f"{path.name}.{what}-*.bak")):
                if filecmp.cmp(part, earlier, shallow=False):
                    return earlier
            dated = f"{path.name}.{what}-{datetime.now(UTC).date().isoformat()}"
            for number in count(1):
                copy = path.with_name(f"{dated}{'' if number == 1 else f'-{number}'}.bak")
                with suppress(FileExistsError):
                    publish(part, copy)
                    return copy
        finally:
            remove_database(part)
    raise AssertionError("numbers do not end")
