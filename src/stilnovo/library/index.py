"""The lexical index: derived from the stored passages, rebuilt from them at any time, never the truth.

SQLite's FTS5 gets text that is already analysed, in two fields that are searched together and whose BM25 scores add up:
`surface` (folded words as they stand, elided articles included: for quotations) and `stem` (Italian stems: for
questions). Measured on Italian, summing the two beats either alone and beats fusing their ranks. A third field, of
little weight, holds the names of work and chapter.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence

from stilnovo.text.italian import stem, tokens

#: Changes whenever the analysis does; an index made by another version is rebuilt when the library is opened.
VERSION = 1
#: BM25 weights of surface, stem and context.
WEIGHTS = (1.0, 1.0, 0.4)

SCHEMA = """
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(surface, stem, context, tokenize="unicode61 remove_diacritics 0");
CREATE VIRTUAL TABLE IF NOT EXISTS vocabulary USING fts5vocab(words, col);
"""


def analyse(text: str) -> tuple[str, str]:
    """What is indexed of a passage: its folded words, and the stems of those that are not elided articles."""
    found = tokens(text)
    return " ".join(t.form for t in found), " ".join(stem(t.form) for t in found if not t.elided)


def context(*names: str) -> str:
    """Stems of the names of author, work and section."""
    return " ".join(stem(t.form) for name in names for t in tokens(name) if not t.elided)


def put(connection: sqlite3.Connection, rows: Iterable[tuple[int, str, str]]) -> None:
    """Index passages given as (id, text, context)."""
    connection.executemany(
        "INSERT INTO words(rowid, surface, stem, context) VALUES (?, ?, ?, ?)",
        ((number, *analyse(text), names) for number, text, names in rows),
    )


def drop(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Take passages out of the index."""
    connection.executemany("DELETE FROM words WHERE rowid = ?", ((number,) for number in numbers))


def match(
    connection: sqlite3.Connection, expression: str, limit: int, works: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """Passage ids and scores for an FTS5 expression, best first, higher is better; within some works, if given."""
    within = ""
    if works:
        marks = ",".join("?" * len(works))
        within = (
            f"AND rowid IN (SELECT p.id FROM passages p JOIN sections s ON s.id = p.section WHERE s.work IN ({marks}))"
        )
    rows = connection.execute(
        f"SELECT rowid, bm25(words, {WEIGHTS[0]}, {WEIGHTS[1]}, {WEIGHTS[2]}) AS score FROM words WHERE words MATCH ? "
        f"{within} ORDER BY score, rowid LIMIT ?",
        (expression, *works, limit),
    )
    return [(int(number), -float(score)) for number, score in rows]


def mentions(connection: sqlite3.Connection, form: str) -> dict[int, list[int]]:
    """Work → ids of its passages that have a folded word, in reading order."""
    rows = connection.execute(
        "SELECT s.work, p.id FROM words JOIN passages p ON p.id = words.rowid JOIN sections s ON s.id = p.section "
        "WHERE words MATCH ? ORDER BY p.id",
        (f'surface : "{form}"',),
    )
    found: dict[int, list[int]] = {}
    for work, number in rows:
        found.setdefault(int(work), []).append(int(number))
    return found


def rarity(connection: sqlite3.Connection, stems: Iterable[str]) -> dict[str, float]:
    """Inverse document frequency of stems: ln(1 + (N - n + 0.5) / (n + 0.5)), Robertson's, kept above 0."""
    total = int(connection.execute("SELECT count(*) FROM passages").fetchone()[0])
    found = {}
    for form in stems:
        row = connection.execute("SELECT doc FROM vocabulary WHERE term = ? AND col = 'stem'", (form,)).fetchone()
        n = int(row[0]) if row else 0
        found[form] = math.log(1 + (total - n + 0.5) / (n + 0.5))
    return found


def occurs(connection: sqlite3.Connection, form: str) -> bool:
    """Whether any passage has a stem."""
    sql = "SELECT 1 FROM vocabulary WHERE term = ? AND col = 'stem'"
    return connection.execute(sql, (form,)).fetchone() is not None


def problems(connection: sqlite3.Connection, passages: Iterable[tuple[int, str, str]]) -> list[str]:
    """Where the index disagrees with the passages (id, text, context); empty when it is sound."""
    found = []
    try:
        connection.execute("INSERT INTO words(words) VALUES ('integrity-check')")
    except sqlite3.DatabaseError as error:
        found.append(f"The index is damaged: {error}.")
    indexed = 0
    for number, text, names in passages:
        indexed += 1
        row = connection.execute("SELECT surface, stem, context FROM words WHERE rowid = ?", (number,)).fetchone()
        if row is None:
            found.append(f"Passage {number} is not in the index.")
        elif tuple(row) != (*analyse(text), names):
            found.append(f"Passage {number} is indexed with other words than it has.")
    extra = int(connection.execute("SELECT count(*) FROM words").fetchone()[0]) - indexed
    if extra > 0:
        found.append(f"The index holds {extra} passages that are not in the library.")
    return found
