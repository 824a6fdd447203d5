"""Store a library in one SQLite file: texts, works, sections and passages are the truth, the index is derived.

A work is stored in one transaction (write-ahead log), so a process killed at any moment leaves either the whole work
or none of it, and a work that replaces an older version of itself either whole; the index catches up before the next
search. The same text is never stored twice, whatever its file was called. Ids of works and passages are never given
twice, so that an index that lags behind cannot point at other words.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from stilnovo.errors import reported
from stilnovo.library import conservation, editions, passages
from stilnovo.library.database import guard, integrity, problems, transaction
from stilnovo.library.embedders import Reranker
from stilnovo.library.index import Index, Row
from stilnovo.library.records import Work, packed_lines
from stilnovo.library.schema import prepare
from stilnovo.library.vectors import StoredVectors, embedded_text
from stilnovo.reading import sections
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book

#: Passages whose vectors are made and stored at once: what a process that is killed loses, a few seconds of work.
EMBEDDED_AT_ONCE = 128
# Of zlib: files are kept at 80 MB a second rather than at 20, and take a fifth more room.
_QUICK = 1


@dataclass(frozen=True)
class Added:
    """Result of `add`: the work, and whether its text is new.

    `replaced` is the older version that it replaced; `namesake` a work of its author and title with another text.
    """

    work: Work
    new: bool
    replaced: Work | None = None
    namesake: Work | None = None


def default_path() -> Path:
    """Default library file: `$STILNOVO_LIBRARY`, else `stilnovo/library.sqlite` in the user's data folder (XDG)."""
    if named := os.environ.get("STILNOVO_LIBRARY"):
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "stilnovo" / "library.sqlite"


def _packed(given: Names) -> str:
    return json.dumps({name: value for name, value in asdict(given).items() if value}, ensure_ascii=False)


class Library(StoredVectors, AbstractContextManager["Library"]):
    """One library. Open it with `Library.open(path)`, or `Library.open(None)` in memory; close it, or use it in a `with`.

    Every method may raise `StilnovoError` when the file is locked, read-only or on a full disk.
    """

    _BEGIN = "BEGIN IMMEDIATE"

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(connection, path)
        self._indexed_at: int | None = None  # the revision that the index is of
        self.reranker: Reranker | None = None

    @classmethod
    def open(cls, path: Path | None) -> Library:
        """Open a library file, creating it where there is none; None: one in memory.

        A file of an older format is migrated, after a copy is made beside it.

        Raises:
            InputError: the file is something else, or from a newer stilnovo.
            StilnovoError: there is no room for the copy.
        """
        if path is not None:
            with reported(f"Cannot create the folder {path.parent}.", errors=OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
        with guard(path):
            library = cls(sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None), path)
            try:
                prepare(library.connection, path)
            except BaseException:
                library.close()
                raise
        return library

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @property
    def index(self) -> Index:
        """The full-text index, brought up to date."""
        return self.catch_up()

    def catch_up(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Index:
        """Bring the index up to date; `progress` is called with works done and works in all."""
        with self._guarded():
            revision = self._revision()
            if revision != self._indexed_at and self._index.sync(self._digests(), self._rows, progress):
                self._indexed_at = revision
            return self._index

    def apparatus_index(self, rows: Callable[[int], Iterable[Row]]) -> Index:
        """The index of the apparatus, apart from that of the passages, brought up to date; `rows` as in `Index.sync`."""
        with self._guarded():
            self._revision()
            self._apparatus_index.sync(self._digests(), rows)
            return self._apparatus_index

    @cached_property
    def _index(self) -> Index:
        return self._opened_index("")

    @cached_property
    def _apparatus_index(self) -> Index:
        return self._opened_index(".apparatus")

    def _opened_index(self, suffix: str) -> Index:
        folder = self.index_folder
        try:
            return Index(folder and folder.with_name(folder.name + suffix))
        except OSError:  # a library on a disk that cannot be written: its index lives in memory
            return Index(None)

    @property
    def index_folder(self) -> Path | None:
        """The folder of the index, beside the library; None for a library in memory."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.index")

    def _rows(self, work: int) -> Iterator[Row]:
        rows = self.connection.execute(
            "SELECT p.id, p.text, w.author, w.title, s.label, s.title FROM passages p "
            "JOIN sections s ON s.id = p.section JOIN works w ON w.id = s.work WHERE w.id = ? ORDER BY p.id",
            (work,),
        )
        return ((passage, text, tuple(names)) for passage, text, *names in rows)

    def _next(self, what: str, count: int = 1) -> int:
        """Reserve `count` ids that were never used before; returns the first. Call inside a transaction."""
        last = int(self._fact(what))
        self.connection.execute("UPDATE facts SET value = ? WHERE name = ?", (str(last + count), what))
        return last + 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run a transaction, all or nothing; cached rows are dropped."""
        with self._guarded(), transaction(self.connection, self._BEGIN):
            yield
            self._next("revision")
        self._revision()

    def add(self, document: Book, *, keep_both: bool = False) -> Added:
        """Store a work with its sections and passages, unless its text is stored already.

        A work of which the document is another version (see `older`) is replaced, with `keep_both` it is kept beside it.
        A text that was stored before files were kept is completed with its file.
        """
        same = self._same_text(document)
        if same and (not document.data or self.given(same) is not None):
            return Added(same, new=False)
        older = same or (None if keep_both else self.older(document))
        added = self.replace(older, document)
        namesakes = editions.namesakes(self.connection, document.names)
        others = [work for work in namesakes if added.new and work != added.work.id]
        return replace(added, namesake=self.work(others[0])) if others else added

    def older(self, document: Book) -> Work | None:
        """The stored work that the document is another version of; None: there is none, or the document's own text.

        The name of the file, or author and title, must agree, and most of the work's text must stand in the document.
        """
        if self._same_text(document):
            return None
        demanded = editions.namesakes(self.connection, document.names, document.source)
        works = [self.work(work) for work in demanded]
        alike = [(editions.likeness(self.text(work), document.text), -work.id, work) for work in works]
        return max((item for item in alike if item[0] >= demanded[item[2].id]), default=(0.0, 0, None))[2]

    def differs(self, work: Work, document: Book) -> bool:
        """Whether a document would be stored otherwise than a work is: text, sections, verses, names or apparatus."""
        names = editions.names_of(document, Names(work.title, work.author, work.year), self.given(work))
        parts = sections.split(document.text, document.headings, document.lines)
        stored = [
            (part.start, part.end, part.body, part.label, part.title, part.verse, part.lines)
            for part in self.sections(work)
        ]
        return (
            self.text(work) != document.text
            or names != Names(work.title, work.author, work.year)
            or stored != [astuple(part) for part in parts]
            or self.apparatus(work) != list(document.apparatus)
            or self.warnings(work) != list(document.warnings)
        )

    def _same_text(self, document: Book) -> Work | None:
        stored = self.connection.execute("SELECT id FROM works WHERE sha256 = ?", (document.sha256,)).fetchone()
        return self.work(stored[0]) if stored else None

    def replace(self, work: Work | None, document: Book) -> Added:
        """Store a document in the place of a work, in one transaction; in the place of none it is simply added.

        Names that a person gave to the work stay, unless others are given with the document.
        """
        parts = sections.split(document.text, document.headings, document.lines)
        if work is not None:
            before = self.given(work)
            names = editions.names_of(document, Names(work.title, work.author, work.year), before)
            document = replace(document, names=names, given=document.given.over(before or Names()))
        with self._transaction():
            known = {}
            if work is not None:
                known = self.vectors_by_text(work)
                self.connection.execute("DELETE FROM works WHERE id = ?", (work.id,))
            stored = self._same_text(document)  # another process may have been faster
            number = stored.id if stored else self._insert(document, parts)
            if known and not stored:
                self.reuse_vectors(self.work(number), known)
        new = stored is None and (work is None or work.sha256 != self.work(number).sha256)
        return Added(self.work(number), new=new, replaced=work if new else None)

    def _insert(self, document: Book, parts: Sequence[sections.Section]) -> int:
        """Insert a work with all that belongs to it; returns its id. Call inside a transaction."""
        work, now = self._next("work"), datetime.now(UTC).isoformat(timespec="seconds")
        self.connection.execute(
            "INSERT INTO works(id, title, author, year, source, sha256, added) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (work, *astuple(document.names), document.source, document.sha256, now),
        )
        self.connection.execute("INSERT INTO texts VALUES (?, ?)", (work, document.text))
        if document.data:
            self.connection.execute(
                "INSERT INTO sources(work, data, given, warnings) VALUES (?, ?, ?, ?)",
                (work, zlib.compress(document.data, _QUICK), _packed(document.given), json.dumps(document.warnings)),
            )
        self.connection.executemany(
            "INSERT INTO apparatus(work, position, kind, text, at) VALUES (?, ?, ?, ?, ?)",
            [(work, position, *astuple(item)) for position, item in enumerate(document.apparatus)],
        )
        for position, part in enumerate(parts):
            self._insert_section(work, position, part, document.text)
        return work

    def _insert_section(self, work: int, position: int, part: sections.Section, text: str) -> None:
        section = self._next("section")
        self.connection.execute(
            'INSERT INTO sections(id, work, position, label, title, verse, start, "end", body, lines) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                section, work, position, part.label, part.title, int(part.verse), part.start, part.end, part.body,
                packed_lines(part.lines),
            ),
        )  # fmt: skip
        pieces = passages.cut(text, part)
        first = self._next("passage", len(pieces))
        self.connection.executemany(
            'INSERT INTO passages(id, section, start, "end", text, first_verse, last_verse) '
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (passage, section, *piece[:2], text[piece.start : piece.end], *piece[2:])
                for passage, piece in enumerate(pieces, first)
            ],
        )

    def rename(self, work: Work, names: Names) -> Work:
        """Change author, title and year of a work; values not given stay."""
        now = names.over(Names(work.title, work.author, work.year))
        given = names.over(self.given(work) or Names())
        with self._transaction():
            self.connection.execute(
                "UPDATE works SET title = ?, author = ?, year = ? WHERE id = ?", (*astuple(now), work.id)
            )
            self.connection.execute("UPDATE sources SET given = ? WHERE work = ?", (_packed(given), work.id))
            if (now.title, now.author) != (work.title, work.author):  # they are embedded with every passage
                self.connection.execute(
                    "DELETE FROM vectors WHERE passage IN "
                    "(SELECT p.id FROM passages p JOIN sections s ON s.id = p.section WHERE s.work = ?)",
                    (work.id,),
                )
        return self.work(work.id)

    def remove(self, work: Work) -> None:
        """Remove a work and everything derived from it."""
        with self._transaction():
            self.connection.execute("DELETE FROM works WHERE id = ?", (work.id,))

    def embed(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Store vectors of all passages that have none of the embedder's yet; can be interrupted and continued.

        Works that are added meanwhile are embedded too. See `stilnovo.library.embedding` for a process beside others.

        Returns:
            How many were added.
        """
        assert self.embedder is not None, "set the embedder first"
        done = 0
        while missing := self.without_vector(self.embedder.name):
            for start in range(0, len(missing), EMBEDDED_AT_ONCE):
                batch = self.passages(missing[start : start + EMBEDDED_AT_ONCE])
                vectors = map(self._stored, self.embedder.passages([embedded_text(passage) for passage in batch]))
                rows = zip((passage.id for passage in batch), vectors, strict=True)
                with self._transaction():
                    self._insert_vectors((number, self.embedder.name, vector) for number, vector in rows)
                progress(done + min(start + EMBEDDED_AT_ONCE, len(missing)), done + len(missing))
            done += len(missing)
        return done

    def drop_vectors(self, model: str) -> None:
        """Delete the vectors of a model."""
        with self._transaction():
            self.connection.execute("DELETE FROM vectors WHERE model = ?", (model,))

    def rebuild(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Rebuild the index from the passages."""
        self._index.reset()
        self._indexed_at = None
        self.catch_up(progress)

    def check(self, progress: Callable[[str], None] = lambda _: None) -> list[str]:
        """Check the library; returns one line per problem.

        Checks the file itself, that texts have their sha256, that sections tile each text, that every passage is
        exactly its span inside its section, that the index holds exactly these passages with exactly these words, and
        that every word of the file that a work was read from is stored.
        """
        with self._guarded():
            lines = self.check_works(progress) + list(self.index.problems(self._digests(), self._rows))
            return lines + [f"{work.title}: {problem}" for work in self.works() for problem in self._unlike_file(work)]

    def _unlike_file(self, work: Work) -> list[str]:
        """Problems of a work's words, against the file that it was read from, if that is kept."""
        try:
            if (data := self.source(work)) is None:
                return []
            return conservation.compare(data, work.source, self.text(work), self.apparatus(work)).problems()
        except Exception as error:  # a kept file may be damaged in any way, and the others are to be checked
            return [f"its file {work.source} cannot be read any more ({type(error).__name__}: {str(error)[:100]})."]

    def check_works(self, progress: Callable[[str], None] = lambda _: None) -> list[str]:
        """Check the database and the works in it, neither the index nor the files they came from; returns one line per problem."""
        with self._guarded():
            lines = self._database_problems()
            for work in self.works():
                progress(work.title)
                parts = ((section, self.passages_of(section)) for section in self.sections(work))
                lines += [f"{work.title}: {problem}" for problem in problems(work, self.text(work), parts)]
            return lines

    def _database_problems(self) -> list[str]:
        return integrity(self.connection)
