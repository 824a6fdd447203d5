"""Conversations in the library's own file: three tables of the service's, beside the library's and apart from them.

A message of the person is stored before anything is answered, an answer as it grows: whatever breaks, what was said and
what had arrived stay. One conversation's trouble never touches another's rows.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from stilnovo.errors import InputError
from stilnovo.library.database import guard
from stilnovo.library.store import Library
from stilnovo.serve.faults import not_found

_VERSION = "1"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS conversation_facts(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS conversations(id TEXT PRIMARY KEY, title TEXT NOT NULL, created TEXT NOT NULL, "
    "updated TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS conversation_messages(id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES "
    "conversations ON DELETE CASCADE, position INTEGER NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, "
    "status TEXT NOT NULL, details TEXT NOT NULL, created TEXT NOT NULL, UNIQUE(conversation, position))",
    f"INSERT OR IGNORE INTO conversation_facts VALUES ('version', '{_VERSION}')",
)
#: Where an answer that is being written anew keeps the one it is to replace.
PREVIOUS = "previous"
TITLE_CHARACTERS, LONGEST_TITLE = 60, 200


@dataclass(frozen=True)
class ConversationSummary:
    """A conversation in the list; times are UTC, ISO 8601."""

    id: str
    title: str
    created: str
    updated: str
    messages: int


@dataclass(frozen=True)
class Stored:
    """A stored message. `status`: complete, writing, stopped (by the person), failed, interrupted (service ended)."""

    id: str
    role: str
    text: str
    status: str
    created: str
    details: dict[str, Any] = field(default_factory=dict)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def title_of(message: str) -> str:
    """A conversation's first name: the beginning of its first message, cut between words."""
    line = " ".join(message.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    return line[:TITLE_CHARACTERS].rsplit(" ", 1)[0].rstrip(",;:.") + " …"


class Conversations:
    """The conversations of one library file, through one connection of it."""

    def __init__(self, library: Library) -> None:
        self._db, self._path = library.connection, library.path

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with guard(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def prepare(self) -> None:
        """Make the tables where they are absent; mark answers that a dead service was writing as interrupted.

        Raises:
            InputError: the tables are from a newer stilnovo.
        """
        with self._transaction() as db:
            for statement in _TABLES:
                db.execute(statement)
            db.execute("UPDATE conversation_messages SET status = 'interrupted' WHERE status = 'writing'")
            version = db.execute("SELECT value FROM conversation_facts WHERE name = 'version'").fetchone()[0]
            if version != _VERSION:
                raise InputError(
                    f"The conversations in {self._path} have format {version}.",
                    f"This version reads {_VERSION}.",
                    "Update stilnovo.",
                )

    def all(self) -> list[ConversationSummary]:
        """All, the last used first."""
        with guard(self._path):
            rows = self._db.execute(
                "SELECT c.id, c.title, c.created, c.updated, (SELECT count(*) FROM conversation_messages m "
                "WHERE m.conversation = c.id) FROM conversations c ORDER BY c.updated DESC, c.id"
            )
            return [ConversationSummary(*row) for row in rows]

    def heading(self, number: str) -> ConversationSummary:
        """One conversation.

        Raises:
            Fault: 404.
        """
        with guard(self._path):
            row = self._db.execute(
                "SELECT c.id, c.title, c.created, c.updated, (SELECT count(*) FROM conversation_messages m "
                "WHERE m.conversation = c.id) FROM conversations c WHERE c.id = ?",
                (number,),
            ).fetchone()
        if row is None:
            raise not_found("This conversation")
        return ConversationSummary(*row)

    def messages(self, number: str) -> list[Stored]:
        """The messages of a conversation, oldest first."""
        with guard(self._path):
            rows = self._db.execute(
                "SELECT id, role, text, status, created, details FROM conversation_messages WHERE conversation = ? "
                "ORDER BY position",
                (number,),
            )
            return [Stored(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]

    def create(self, title: str = "") -> ConversationSummary:
        """A new, empty conversation."""
        number, now = uuid.uuid4().hex, _now()
        with self._transaction() as db:
            db.execute("INSERT INTO conversations VALUES (?, ?, ?, ?)", (number, title[:LONGEST_TITLE], now, now))
        return ConversationSummary(number, title[:LONGEST_TITLE], now, now, 0)

    def rename(self, number: str, title: str) -> ConversationSummary:
        """Give a conversation another title."""
        with self._transaction() as db:
            db.execute("UPDATE conversations SET title = ? WHERE id = ?", (title[:LONGEST_TITLE], number))
        return self.heading(number)

    def delete(self, number: str) -> None:
        """Delete a conversation and all its messages."""
        self.heading(number)
        with self._transaction() as db:
            db.execute("DELETE FROM conversations WHERE id = ?", (number,))

    def begin(self, number: str, message: str | None, details: dict[str, Any]) -> tuple[Stored, Stored]:
        """A new question and the empty answer to it; without a message, the last answer is begun anew.

        Returns:
            The person's message and the answer to be written.

        Raises:
            Fault: 404, when there is no such conversation or nothing to answer anew.
        """
        self.heading(number)
        past = self.messages(number)
        with self._transaction() as db:
            if message is None:
                while past and past[-1].role == "assistant":
                    gone = past.pop()
                    attempt = max(details["attempt"], gone.details.get("attempt", 0) + 1)
                    details = {**details, "attempt": attempt}
                    if gone.text:
                        details[PREVIOUS] = {"text": gone.text, "status": gone.status, "details": gone.details}
                    db.execute("DELETE FROM conversation_messages WHERE id = ?", (gone.id,))
                if not past:
                    raise not_found("A question to answer anew")
                question = past[-1]
            else:
                question = self._insert(db, number, "user", message, "complete", {})
                if not past:
                    db.execute(
                        "UPDATE conversations SET title = ? WHERE id = ? AND title = ''", (title_of(message), number)
                    )
            answer = self._insert(db, number, "assistant", "", "writing", details)
            db.execute("UPDATE conversations SET updated = ? WHERE id = ?", (_now(), number))
        return question, answer

    @staticmethod
    def _insert(
        db: sqlite3.Connection, number: str, role: str, text: str, status: str, details: dict[str, Any]
    ) -> Stored:
        message = Stored(uuid.uuid4().hex, role, text, status, _now(), details)
        db.execute(
            "INSERT INTO conversation_messages SELECT ?, ?, coalesce(max(position), -1) + 1, ?, ?, ?, ?, ? "
            "FROM conversation_messages WHERE conversation = ?",
            (message.id, number, role, text, status, json.dumps(details), message.created, number),
        )
        return message

    def write(self, message: str, text: str, status: str, details: dict[str, Any]) -> None:
        """An answer as far as it has come; nothing happens when it was deleted meanwhile.

        An answer begun anew puts the one before away only when it has a word of its own: see `settled`.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE conversation_messages SET text = ?, status = ?, details = ? WHERE id = ?",
                (text, status, json.dumps(details, ensure_ascii=False), message),
            )


def settled(text: str, status: str, details: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """What is stored of an answer that has ended: itself, or, where it has not a word, the one it was to replace."""
    previous = details.get(PREVIOUS)
    if previous and not text and status != "complete":
        back = {**previous["details"], "attempt": details["attempt"]}
        return previous["text"], previous["status"], {**back, **({"error": e} if (e := details.get("error")) else {})}
    return text, status, {name: value for name, value in details.items() if name != PREVIOUS}


def turns(messages: Sequence[Stored]) -> tuple[tuple[str, str], ...]:
    """Questions with their answers, as far as both are there: what the next answer may lean on."""
    found = []
    for question, answer in pairwise(messages):
        if question.role == "user" and answer.role == "assistant" and answer.text and answer.status != "writing":
            found.append((question.text, answer.text))
    return tuple(found)
