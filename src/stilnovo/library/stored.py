"""What can be read in a library: works, texts, sections, passages, apparatus. `store.py` writes them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.library.database import guard
from stilnovo.library.records import Chapter, Passage, Work, unpacked_lines
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Apparatus

_WORK = """SELECT w.id, w.title, w.author, w.year, w.source, w.sha256,
    (SELECT length(text) FROM texts WHERE work = w.id),
    (SELECT count(*) FROM sections WHERE work = w.id),
    (SELECT count(*) FROM passages p JOIN sections s ON s.id = p.section WHERE s.work = w.id) FROM works w"""
_SECTION = 'SELECT id, work, position, label, title, verse, start, "end", body, lines FROM sections'
_PASSAGE = 'SELECT id, section, start, "end", text, first_verse, last_verse FROM passages'


class StoredWorks:
    """The works of one library, over one connection, which is open to other tables in the same file."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self.connection, self.path = connection, path
        self._seen = -1
        self._works: dict[int, Work] = {}
        self._texts: dict[int, str] = {}
        self._listed: list[Work] | None = None
        self._first_lines: list[tuple[int, str]] | None = None
        self._headings: list[tuple[int, int, str, str, bool]] | None = None

    def _guarded(self) -> AbstractContextManager[None]:
        return guard(self.path)

    def _fact(self, name: str) -> str:
        return str(self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def _revision(self) -> int:
        """Revision number, raised by every change of this or another process; on a change, cached rows are dropped."""
        with self._guarded():
            revision = int(self._fact("revision"))
        if revision != self._seen:
            self._works, self._texts, self._seen = {}, {}, revision
            self._listed, self._headings, self._first_lines = None, None, None
        return revision

    def _digests(self) -> dict[int, str]:
        """Digest of everything indexed of each work."""
        library = self._fact("library")
        rows = self.connection.execute("SELECT id, sha256, author, title FROM works ORDER BY id")
        return {work: hashlib.sha256(repr((library, *rest)).encode()).hexdigest()[:24] for work, *rest in rows}

    def works(self) -> list[Work]:
        """All works, by author and title."""
        with self._guarded():
            self._revision()
            if self._listed is None:
                self._listed = [
                    Work(*row) for row in self.connection.execute(f"{_WORK} ORDER BY w.author, w.title, w.id")
                ]
            return list(self._listed)

    def work(self, work_id: int) -> Work:
        """One work by its id."""
        if work_id not in self._works:
            row = self.connection.execute(f"{_WORK} WHERE w.id = ?", (work_id,)).fetchone()
            if row is None:
                raise InputError(f"There is no work {work_id} in the library.", "", "See: stilnovo library list")
            self._works[work_id] = Work(*row)
        return self._works[work_id]

    def text(self, work: Work) -> str:
        """The stored source of a work."""
        if work.id not in self._texts:
            if len(self._texts) >= 8:
                self._texts.pop(next(iter(self._texts)))
            self._texts[work.id] = str(
                self.connection.execute("SELECT text FROM texts WHERE work = ?", (work.id,)).fetchone()[0]
            )
        return self._texts[work.id]

    def source(self, work: Work) -> bytes | None:
        """The bytes of the file that a work was read from; None: added before files were kept, or not from a file."""
        row = self.connection.execute("SELECT data FROM sources WHERE work = ?", (work.id,)).fetchone()
        return None if row is None else zlib.decompress(row[0])

    def without_file(self) -> list[Work]:
        """Works whose file is not kept: added before files were kept, or not from a file."""
        rows = self.connection.execute("SELECT id FROM works WHERE id NOT IN (SELECT work FROM sources) ORDER BY id")
        return [self.work(work) for (work,) in rows.fetchall()]

    def given(self, work: Work) -> Names | None:
        """The names of a work that a person gave, not the reader; None: that is not recorded."""
        row = self.connection.execute("SELECT given FROM sources WHERE work = ?", (work.id,)).fetchone()
        return None if row is None else Names(**json.loads(row[0]))

    def warnings(self, work: Work) -> list[str]:
        """What the reader could not read in a work's file, in words for a person."""
        row = self.connection.execute("SELECT warnings FROM sources WHERE work = ?", (work.id,)).fetchone()
        return [] if row is None else [str(line) for line in json.loads(row[0])]

    def apparatus(self, work: Work) -> list[Apparatus]:
        """Notes, speakers, stage directions and the like of a work, in the order in which they stood."""
        rows = self.connection.execute(
            "SELECT kind, text, at FROM apparatus WHERE work = ? ORDER BY position", (work.id,)
        )
        return [Apparatus(*row) for row in rows.fetchall()]

    def section(self, section_id: int) -> Chapter:
        """One section by its id."""
        return self._chapter(self.connection.execute(f"{_SECTION} WHERE id = ?", (section_id,)).fetchone())

    def sections(self, work: Work) -> list[Chapter]:
        """The sections of a work, in order."""
        rows = self.connection.execute(f"{_SECTION} WHERE work = ? ORDER BY position", (work.id,))
        return [self._chapter(row) for row in rows.fetchall()]

    def headings(self) -> list[tuple[int, int, str, str, bool]]:
        """Every section without its text, quickly: work, id, label, title, whether it is verse; in order."""
        with self._guarded():
            self._revision()
            if self._headings is None:
                rows = self.connection.execute(
                    "SELECT work, id, label, title, verse FROM sections ORDER BY work, position"
                ).fetchall()
                self._headings = [
                    (work, section, label, title, bool(verse)) for work, section, label, title, verse in rows
                ]
            return list(self._headings)

    def first_lines(self) -> list[tuple[int, str]]:
        """The first line of every section in verse: id of the section, line."""
        with self._guarded():
            self._revision()
            if self._first_lines is None:
                rows = self.connection.execute(
                    "SELECT s.id, p.text, min(p.start) FROM sections s JOIN passages p ON p.section = s.id "
                    "WHERE s.verse GROUP BY s.id ORDER BY s.id"
                ).fetchall()
                self._first_lines = [(section, text.strip().partition("\n")[0]) for section, text, _ in rows]
            return list(self._first_lines)

    def _chapter(self, row: Sequence[object]) -> Chapter:
        section, work, position, label, title, verse, start, end, body, lines = row
        verses = unpacked_lines(str(lines))
        return Chapter(section, self.work(work), position, label, title, bool(verse), start, end, body, verses)  # type: ignore[arg-type]

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """Passages by id, in the order of the ids."""
        if not ids:
            return []
        marks = ",".join("?" * len(ids))
        rows = self.connection.execute(f"{_PASSAGE} WHERE id IN ({marks})", tuple(ids)).fetchall()
        chapters = {row[1]: self.section(row[1]) for row in rows}
        by_id = {row[0]: Passage(row[0], chapters[row[1]], *row[2:]) for row in rows}
        return [by_id[passage] for passage in ids if passage in by_id]

    def passages_of(self, section: Chapter) -> list[Passage]:
        """The passages of a section, in order."""
        rows = self.connection.execute(f"{_PASSAGE} WHERE section = ? ORDER BY start", (section.id,)).fetchall()
        return [Passage(row[0], section, *row[2:]) for row in rows]

    def around(self, passage: Passage, count: int = 1) -> list[Passage]:
        """A passage with up to `count` neighbours on each side, within its section, in order."""
        inside = self.passages_of(passage.section)
        at = next(i for i, other in enumerate(inside) if other.id == passage.id)
        return inside[max(0, at - count) : at + count + 1]
