"""On-disk cache of answers: an interrupted evaluation resumes, an unchanged model is not asked twice.

One SQLite file for all models and tasks. An answer is found again only under the hash of everything it depends on
(`identity.py`), the task, its version and the hash of the question, so that a changed adapter cannot be served another's
answers. Write-ahead logging and one transaction a pass make it safe to kill the process at any moment and to run two
evaluations at once. A row carries a checksum over its key and value, because SQLite has none.

The cache is a convenience and never a reason to fail: a file that is locked, read-only, damaged or on a full disk gives
one line of warning, and the evaluation goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilnovo import dist
from stilnovo.errors import NonFiniteScore
from stilnovo.progress import bytes_text
from stilnovo.runlog import file_state, sha256_file
from stilnovo.scoring.boundary import check_finite, numbers_in
from stilnovo.scoring.identity import Identity

FILE_NAME = "answers-2.sqlite"  # the number is the layout's: another layout is another file

_BUSY_SECONDS = 5.0  # how long another process may hold the file before we go on without it
_RETRY_SECONDS = 30.0
_LARGE = 2**30  # bytes; hashing more takes seconds, and is said
_MOST_PENDING = 20_000  # answers held in memory while the file is locked
_LAYOUT = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS answers (
  identity TEXT NOT NULL, task TEXT NOT NULL, version TEXT NOT NULL, item TEXT NOT NULL,
  answer TEXT NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (identity, task, version, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS speeds (setting TEXT NOT NULL, task TEXT NOT NULL, items_per_second REAL NOT NULL,
  PRIMARY KEY (setting, task));
"""

Answer = dict[str, Any]  # as JSON values
Progress = Callable[[str, int, int], None]  # (what, done, in all)


class AnswerCache(contextlib.AbstractContextManager["AnswerCache"]):
    """SQLite cache of answers, a context manager: `find` looks up, `keep` saves.

    Args:
        folder: Where the file lies or is made; None for a cache that holds nothing.
        warn: Called with one line when the file cannot be used (further).
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], None]) -> None:
        self.path = None if folder is None else folder / FILE_NAME
        self._warn = warn
        self._connection: sqlite3.Connection | None = None
        self._writable = True
        self._pending: list[tuple[str, str, str, str, str, int]] = []
        self._retry_at = 0.0
        self._hashes: dict[tuple[str, str], str] = {}
        if self.path is not None:
            self._open(self.path)

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def usable(self) -> bool:
        """Whether the cache can be read (and, unless it is read-only, written)."""
        return self._connection is not None

    def close(self) -> None:
        """Write pending answers and close the file."""
        self._retry_at = 0.0
        self._flush()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def find(self, identity: Identity, task: str, version: str, items: Iterable[str]) -> Iterator[Answer | None]:
        """Look up the cached answer to each item hash, in order, or None; one row in memory at a time."""
        query = "SELECT answer, checksum FROM answers WHERE identity = ? AND task = ? AND version = ? AND item = ?"
        sha256 = identity.sha256()
        for item in items:
            key = (sha256, task, version, item)
            rows = self._read(query, key)
            found = next((json.loads(answer) for answer, checksum in rows if checksum == _checksum(*key, answer)), None)
            yield found if all(map(math.isfinite, numbers_in(found))) else None  # of an older version: asked again

    def keep(self, identity: Identity, task: str, version: str, rows: Iterable[tuple[str, Answer]]) -> None:
        """Save (item hash, answer as JSON values) pairs in one transaction."""
        if self._connection is None or not self._writable:
            return
        sha256 = identity.sha256()
        keys = ((sha256, task, version, item, json.dumps(answer, allow_nan=False)) for item, answer in rows)
        self._pending += [(*key, _checksum(*key)) for key in keys]
        self._flush()

    def forget(self, identity: Identity) -> None:
        """Remove every answer of a model: it gave something that is no number, so none of them is to be believed."""
        sha256 = identity.sha256()
        self._pending = [row for row in self._pending if row[0] != sha256]
        self._write("DELETE FROM answers WHERE identity = ?", (sha256,))

    def file_sha256(self, path: Path) -> str:
        """Hash a file's content, cached while size, times and inode are unchanged.

        Without a file to remember it in, it is remembered as long as this object lives.
        """
        place, state = path.resolve(), file_state(path)
        if (str(place), state) in self._hashes:
            return self._hashes[str(place), state]
        rows = self._read("SELECT sha256 FROM files WHERE path = ? AND state = ?", (str(place), state))
        if rows:
            return str(rows[0][0])
        if (size := path.stat().st_size) > _LARGE:
            self._warn(f"{place.name} is identified by its content: {bytes_text(size)} to read, once.")
        sha256 = self._hashes[str(place), state] = sha256_file(place)
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (str(place), state, sha256))
        return sha256

    def speed(self, setting: str, task: str) -> float | None:
        """Last measured items per second of a setting (model, quantisation, machine) on a task."""
        query = "SELECT items_per_second FROM speeds WHERE setting = ? AND task = ?"
        return next((float(speed) for (speed,) in self._read(query, (setting, task))), None)

    def keep_speed(self, setting: str, task: str, items_per_second: float) -> None:
        """Save a speed for the estimate before the next run."""
        self._write("INSERT OR REPLACE INTO speeds VALUES (?, ?, ?)", (setting, task, items_per_second))

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.executescript(_LAYOUT)
        except (sqlite3.Error, OSError) as error:
            unwritable = any(words in str(error) for words in ("readonly", "unable to open"))
            if not (unwritable and self._read_only(path)):
                self._give_up(error)

    def _read_only(self, path: Path) -> bool:
        """Open a read-only file, with a warning."""
        try:
            self._disconnect()
            # immutable: no side files are needed, which a read-only folder could not hold
            uri = f"{path.resolve().as_uri()}?immutable=1"
            self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("SELECT count(*) FROM answers").fetchone()
        except sqlite3.Error:
            return False
        self._writable = False
        self._warn(f"The answer cache is read-only: what it holds is used, nothing new is kept ({path}).")
        return True

    def _flush(self) -> None:
        """Write the pending answers, or leave them pending while another process holds the file."""
        connection = self._connection
        if connection is None or not self._pending or time.monotonic() < self._retry_at:
            return
        try:
            with connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", self._pending)
        except sqlite3.Error as error:
            if _busy(error) and len(self._pending) < _MOST_PENDING:
                if self._retry_at == 0.0:
                    self._warn(f"The answer cache is locked by another process; answers wait in memory ({self.path}).")
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                return
            self._writable = False
            self._warn(f"Answers are no longer kept: {error} ({self.path}). The evaluation goes on.")
        self._pending.clear()

    def _read(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _write(self, query: str, values: tuple[Any, ...]) -> None:
        if self._connection is not None and self._writable:
            with contextlib.suppress(sqlite3.Error):  # a hash or a speed that is not remembered costs only time
                self._connection.execute(query, values)

    def _give_up(self, error: Exception) -> None:
        self._disconnect()
        advice = "" if isinstance(error, OSError) or _busy(error) else " Remove it if it stays damaged."
        self._warn(
            f"The answer cache cannot be used: {error} ({self.path}). The evaluation goes on without it.{advice}"
        )


@dataclass(frozen=True)
class ModelCache:
    """The cached answers of one model, by its identity; `setting` names model and machine for speeds."""

    answers: AnswerCache
    identity: Identity
    setting: str = ""


def answered(
    cache: ModelCache | None,
    name: str,
    version: str,
    hashes: Sequence[str],
    places: Callable[[int], str],
    ask: Callable[[list[int]], Iterable[tuple[Sequence[int], Sequence[Answer]]]],
    progress: Progress | None = None,
    *,
    shared: bool = False,
) -> list[Answer]:
    """Answer all items, in order: from the cache, or computed in groups and saved after each.

    Args:
        cache: Where answers are looked up and kept; None: nowhere.
        name: What the items are, in the cache and in progress.
        version: How they are read.
        hashes: One each, of everything about the item that its answer depends on.
        places: From an item's number to how an error calls it.
        ask: From the numbers of the items that are missing to groups of them with their answers.
        progress: Called with (`name`, items done, items in all) after every group.
        shared: Whether all processes of `torchrun` call this, each asking its share of the missing items.

    Raises:
        NonFiniteScore: an answer holds something that is no finite number; nothing of the model stays in the cache.
    """
    looked_up = cache.answers.find(cache.identity, name, version, hashes) if cache is not None else ()
    answers = {index: answer for index, answer in enumerate(looked_up) if answer is not None}
    processes = dist.world_size() if shared else 1
    if shared:
        answers = dist.same(answers)  # all must see the same ones missing
    missing, cached = [index for index in range(len(hashes)) if index not in answers], len(answers)
    own: dict[int, Answer] = {}
    try:
        for group, asked in ask(dist.share(missing) if shared else missing) if missing else ():
            for index, answer in zip(group, asked, strict=True):
                check_finite(places(index), answer)
                own[index] = answer
            if cache is not None:
                rows = zip([hashes[index] for index in group], asked, strict=True)
                cache.answers.keep(cache.identity, name, version, rows)
            if progress is not None and group:
                progress(name, min(cached + len(own) * processes, len(hashes)), len(hashes))
    except NonFiniteScore:
        if cache is not None:
            cache.answers.forget(cache.identity)
        raise
    if not missing and progress is not None:
        progress(name, len(hashes), len(hashes))
    for part in dist.gather(own) if shared else [own]:
        answers |= part
    return [answers[index] for index in range(len(hashes))]


def _checksum(*parts: str) -> int:
    return zlib.crc32("\0".join(parts).encode())


def _busy(error: Exception) -> bool:
    return "locked" in str(error) or "busy" in str(error)
