"""Library files of older formats, made by SQL as those versions made them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

FORMAT_2 = """
CREATE TABLE works(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT NOT NULL, year INTEGER,
    source TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, added TEXT NOT NULL);
CREATE TABLE texts(work INTEGER PRIMARY KEY REFERENCES works ON DELETE CASCADE, text TEXT NOT NULL);
CREATE TABLE sections(id INTEGER PRIMARY KEY, work INTEGER NOT NULL REFERENCES works ON DELETE CASCADE,
    position INTEGER NOT NULL, label TEXT NOT NULL, title TEXT NOT NULL, verse INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, body INTEGER NOT NULL, UNIQUE(work, position));
CREATE TABLE passages(id INTEGER PRIMARY KEY, section INTEGER NOT NULL REFERENCES sections ON DELETE CASCADE,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, first_verse INTEGER, last_verse INTEGER);
CREATE INDEX passages_of_section ON passages(section, start);
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE vectors(passage INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE, model TEXT NOT NULL,
    vector BLOB NOT NULL, PRIMARY KEY(passage, model));
CREATE TABLE conversation_facts(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE conversations(id TEXT PRIMARY KEY, title TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL);
CREATE TABLE conversation_messages(id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES
    conversations ON DELETE CASCADE, position INTEGER NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL,
    status TEXT NOT NULL, details TEXT NOT NULL, created TEXT NOT NULL, UNIQUE(conversation, position));
INSERT INTO conversation_facts VALUES ('version', '1');
PRAGMA application_id = 1400138092;
"""
PROSE = "Capitolo I\n\nAda partì di lunedì, e il gatto la seguì fino al fiume.\n\nCapitolo II\n\nTornò di notte."
POEM = (
    "Canto I\n\nNel mezzo della notte una campana\nsuonò tre volte e poi si tacque ancora;\n\n  * * *\n\n"
    "la luna era lontana\ne il gallo non cantava l'aurora.\n"
)
TEXTS = {"La barca": PROSE, "La campana": POEM}
QUOTED = "e il gatto la seguì fino al fiume"


def _sections(text: str) -> list[tuple[str, bool, int, int, int]]:
    """Label, verse, start, end and body, as a reader of that time found them."""
    if text == POEM:
        return [("Canto I", True, 0, len(POEM), len("Canto I"))]
    second = PROSE.index("Capitolo II")
    return [
        ("Capitolo I", False, 0, second, len("Capitolo I")),
        ("Capitolo II", False, second, len(PROSE), second + len("Capitolo II")),
    ]


def make_format_2(path: Path, version: int = 2) -> None:
    """A library of format 2 with two works, one vector and one conversation that quotes; or of format 1."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(FORMAT_2)
        passage = 40
        for work, (title, text) in enumerate(TEXTS.items(), 7):
            digest = hashlib.sha256(text.encode()).hexdigest()
            file = f"{title}.txt"
            db.execute(
                "INSERT INTO works VALUES (?, ?, 'Ada Rossi', 1891, ?, ?, '2026-01-01')", (work, title, file, digest)
            )
            db.execute("INSERT INTO texts VALUES (?, ?)", (work, text))
            for position, (label, verse, start, end, body) in enumerate(_sections(text)):
                section = work * 10 + position
                db.execute(
                    "INSERT INTO sections VALUES (?, ?, ?, ?, '', ?, ?, ?, ?)",
                    (section, work, position, label, verse, start, end, body),
                )
                words = text[body:end].strip()
                at = text.index(words, body)
                passage += 1
                db.execute(
                    "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (passage, section, at, at + len(words), words, *((1, 4) if verse else (None, None))),
                )
        db.execute("INSERT INTO vectors VALUES (41, 'lettere', x'0000803f')")
        for fact, value in (("revision", 3), ("work", 8), ("section", 80), ("passage", passage), ("library", "abc")):
            db.execute("INSERT INTO facts VALUES (?, ?)", (fact, str(value)))
        db.execute("INSERT INTO conversations VALUES (?, 'Il gatto', '2026-01-02', '2026-01-02')", ("a" * 32,))
        at = PROSE.index(QUOTED)
        citation = {
            "quote": QUOTED, "shown": QUOTED, "claimed": QUOTED, "status": "verified", "work": "La barca",
            "author": "Ada Rossi", "section": "Capitolo I", "verses": "", "start": at, "end": at + len(QUOTED),
            "citation": "Ada Rossi, La barca, cap. I", "sha256": hashlib.sha256(PROSE.encode()).hexdigest(),
        }  # fmt: skip
        messages = (
            ("b" * 32, 0, "user", "Chi seguì Ada?", {}),
            ("c" * 32, 1, "assistant", f"«{QUOTED}» (Ada Rossi, La barca, cap. I)", {"citations": [citation]}),
        )
        for message, position, role, text, details in messages:
            db.execute(
                "INSERT INTO conversation_messages VALUES (?, ?, ?, ?, ?, 'complete', ?, '2026-01-02')",
                (message, "a" * 32, position, role, text, json.dumps(details)),
            )
        if version == 1:
            db.executescript(
                "DROP TABLE vectors; DELETE FROM facts; INSERT INTO facts VALUES ('index', '1');"
                'CREATE VIRTUAL TABLE words USING fts5(surface, tokenize="unicode61");'
            )
        db.execute(f"PRAGMA user_version = {version}")
