"""Transactions, checks, and SQLite's errors in words for a person."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.records import Chapter, Passage, Work

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
