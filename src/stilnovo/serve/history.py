"""Conversation storage: three tables in the library's SQLite file, separate from the library's own.

A message of the person is stored before anything is answered, an answer as it grows: whatever breaks, what was said and
what had arrived stay. One conversation's trouble never touches another's rows.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from stilnovo.chat.events import Turn
from stilnovo.errors import InputError
from stilnovo.library.database import guard, transaction
from stilnovo.library.records import Work
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
#: Where an answer that is being regenerated keeps the one it is to replace.
PREVIOUS = "previous"
TITLE_CHARACTERS, LONGEST_TITLE = 60, 200
#: States of an answer that was not finished.
STATES = ("stopped", "failed", "interrupted")


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
    """Make a conversation's default title: the beginning of its first message, cut between words."""
    line = " ".join(message.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    return line[:TITLE_CHARACTERS].rsplit(" ", 1)[0].rstrip(",;:.") + " …"


class Conversations:
    """Stores the conversations of one library file over one connection."""

    def __init__(self, library: Library) -> None:
        self._db, self._path = library.connection, library.path

    def prepare(self) -> None:
        """Create missing tables; mark answers left unfinished by a stopped service as interrupted.

        Raises:
            InputError: the tables are from a newer stilnovo.
        """
        with guard(self._path), transaction(self._db):
            for statement in _TABLES:
                self._db.execute(statement)
            self._db.execute("UPDATE conversation_messages SET status = 'interrupted' WHERE status = 'writing'")
            version = self._db.execute("SELECT value FROM conversation_facts WHERE name = 'version'").fetchone()[0]
            if version != _VERSION:
                raise InputError(
                    f"The conversations in {self._path} have format {version}.",
                    f"This version reads {_VERSION}.",
                    "Update stilnovo.",
                )

    def all(self, where: str = "", *values: str) -> list[ConversationSummary]:
        """List the conversations, or those that a condition selects, the last used first."""
        query = (
            "SELECT c.id, c.title, c.created, c.updated, (SELECT count(*) FROM conversation_messages m "
            f"WHERE m.conversation = c.id) FROM conversations c {where} ORDER BY c.updated DESC, c.id"
        )
        with guard(self._path):
            return [ConversationSummary(*row) for row in self._db.execute(query, values)]

    def heading(self, conversation_id: str) -> ConversationSummary:
        """Get a conversation's summary.

        Raises:
            Fault: 404.
        """
        rows = self.all("WHERE c.id = ?", conversation_id)
        if not rows:
            raise not_found("This conversation")
        return rows[0]

    def messages(self, conversation_id: str) -> list[Stored]:
        """List the messages of a conversation, oldest first."""
        with guard(self._path):
            rows = self._db.execute(
                "SELECT id, role, text, status, created, details FROM conversation_messages WHERE conversation = ? "
                "ORDER BY position",
                (conversation_id,),
            )
            return [_upgraded(Stored(r[0], r[1], r[2], r[3], r[4], json.loads(r[5]))) for r in rows]

    def whole(self, conversation_id: str) -> tuple[ConversationSummary, list[Stored]]:
        """Get a conversation's summary and its messages.

        Raises:
            Fault: 404.
        """
        return self.heading(conversation_id), self.messages(conversation_id)

    def create(self, title: str = "") -> ConversationSummary:
        """Create an empty conversation."""
        conversation_id, now = uuid.uuid4().hex, _now()
        with guard(self._path), transaction(self._db):
            self._db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?)", (conversation_id, title[:LONGEST_TITLE], now, now)
            )
        return ConversationSummary(conversation_id, title[:LONGEST_TITLE], now, now, 0)

    def rename(self, conversation_id: str, title: str) -> ConversationSummary:
        """Rename a conversation."""
        with guard(self._path), transaction(self._db):
            self._db.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (title[:LONGEST_TITLE], conversation_id)
            )
        return self.heading(conversation_id)

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation and all its messages."""
        self.heading(conversation_id)
        with guard(self._path), transaction(self._db):
            self._db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

    def begin(
        self, conversation_id: str, message: str | None, details: dict[str, Any]
    ) -> tuple[list[Stored], Stored, Stored]:
        """Insert a new question and the empty answer to it; without a message, the last answer is regenerated.

        Returns:
            The messages before, the person's message, and the answer to be written.

        Raises:
            Fault: 404, when there is no such conversation or no answer to regenerate.
        """
        self.heading(conversation_id)
        past = self.messages(conversation_id)
        with guard(self._path), transaction(self._db):
            if message is None:
                while past and past[-1].role == "assistant":
                    gone = past.pop()
                    details |= {"attempt": max(details["attempt"], gone.details.get("attempt", 0) + 1)}
                    if gone.text:
                        details[PREVIOUS] = {"text": gone.text, "status": gone.status, "details": gone.details}
                    self._db.execute("DELETE FROM conversation_messages WHERE id = ?", (gone.id,))
                if not past:
                    raise not_found("An answer to regenerate")
                question = past.pop()
            else:
                question = self._insert(conversation_id, "user", message, "complete", {})
            answer = self._insert(conversation_id, "assistant", "", "writing", details)
            self._db.execute(
                "UPDATE conversations SET updated = ?, title = iif(title = '', ?, title) WHERE id = ?",
                (answer.created, title_of(question.text), conversation_id),
            )
        return past, question, answer

    def _insert(self, conversation_id: str, role: str, text: str, status: str, details: dict[str, Any]) -> Stored:
        message = Stored(uuid.uuid4().hex, role, text, status, _now(), details)
        self._db.execute(
            "INSERT INTO conversation_messages SELECT ?, ?, coalesce(max(position), -1) + 1, ?, ?, ?, ?, ? "
            "FROM conversation_messages WHERE conversation = ?",
            (message.id, conversation_id, role, text, status, json.dumps(details), message.created, conversation_id),
        )
        return message

    def write(self, message: Stored) -> None:
        """Update a stored answer; does nothing when it was deleted meanwhile.

        An answer that is regenerated replaces the one before only when it has a word of its own: see `settled`.
        """
        with guard(self._path), transaction(self._db):
            self._db.execute(
                "UPDATE conversation_messages SET text = ?, status = ?, details = ? WHERE id = ?",
                (message.text, message.status, json.dumps(message.details, ensure_ascii=False), message.id),
            )


def settled(answer: Stored) -> Stored:
    """Final state of an answer: itself or, if it is empty, the answer it was to replace."""
    details = dict(answer.details)
    previous = details.pop(PREVIOUS, None)
    if previous and not answer.text and answer.status != "complete":
        now = {key: details[key] for key in ("attempt", "error") if key in details}
        return replace(answer, **{**previous, "details": previous["details"] | now})
    return replace(answer, details=details)


def turns(messages: Sequence[Stored], library: Library) -> tuple[Turn, ...]:
    """Convert stored messages to question–answer turns, the history for the next answer."""
    works = {work.sha256: work for work in library.works()}

    def work_of(details: dict[str, Any]) -> Work | None:
        quoted = [citation for citation in details.get("citations", ()) if citation["sha256"] in works]
        if quoted:
            return works[max(quoted, key=lambda citation: citation["answer_start"])["sha256"]]
        records = [record for record in details.get("records", ()) if record["sha256"] in works]
        return works[records[0]["sha256"]] if len(records) == 1 else None

    return tuple(
        Turn(question.text, answer.text, (), answer.details.get("searched") or None, work_of(answer.details))
        for question, answer in pairwise(messages)
        if question.role == "user" and answer.role == "assistant" and answer.text and answer.status != "writing"
    )


def _upgraded(message: Stored) -> Stored:
    """Upgrade a message of an older version, stored without the offsets of its quotations and the details of its notices."""
    end = 0
    for citation in message.details.get("citations", ()):
        if "answer_end" not in citation:
            source = rf"(?: \({re.escape(citation['citation'])}\)| \[citazione non verificata\])?"
            place = re.compile(rf"[«“\"]?(?:… )?{re.escape(citation['shown'])}[»”\"]?{source}").search(
                message.text, end
            )
            start, end = place.span() if place else (end, end)
            citation |= {"answer_start": start, "answer_end": end}
    for notice in message.details.get("notices", ()):
        notice.setdefault("detail", notice["text"].partition(": ")[2])
    return message


def as_dict(heading: ConversationSummary, messages: Sequence[Stored]) -> dict[str, Any]:
    """A conversation with its messages, as a JSON object."""
    return {**asdict(heading), "messages": [asdict(message) for message in messages]}
