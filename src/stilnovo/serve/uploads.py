"""Staged uploads: previewed first, added to the library on confirmation.

A file lies under a generated name until then; what it was called is data, shown and stored but never a path. Everything
staged is gone after an hour, after the decision, or at the service's next start.
"""

from __future__ import annotations

import contextlib
import re
import time
import unicodedata
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile

from stilnovo.library import passages
from stilnovo.library.apparatus import words_by_kind
from stilnovo.library.read import understand
from stilnovo.library.records import Work
from stilnovo.library.store import Added, Library
from stilnovo.reading import sections
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.runlog import write_atomic
from stilnovo.serve.faults import Fault, not_found

KEPT_SECONDS, STAGED_AT_MOST = 3600, 50
#: Characters of a file's name, of a title or author given by hand, and of the beginning that is shown.
NAME_CHARACTERS, BEGINNING_CHARACTERS = 160, 600
SECTIONS_SHOWN = 400
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def clean_name(raw: str) -> str:
    """Make a file name displayable: the part after the last slash, without invisible characters."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", raw))[-1]
    name = "".join(char for char in name if unicodedata.category(char) not in _UNSEEN).strip()
    if len(name) > NAME_CHARACTERS:
        stem, dot, suffix = name.rpartition(".")
        tail = f"…{dot}{suffix}" if dot and len(suffix) < 10 else "…"
        name = (stem if dot else name)[: NAME_CHARACTERS - len(tail)] + tail
    return name if name.strip(".") else "senza nome"


def sent_file(form: FormData) -> UploadFile:
    """The file of a form.

    Raises:
        Fault: there is none.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Fault(422, "unusable", "The form has no file in the field 'file'.", "file")
    return file


def read_within(content: IO[bytes], limit: int) -> bytes:
    """Read a file that was sent.

    Raises:
        Fault: empty, or larger than `limit` bytes.
    """
    data = content.read(limit + 1)
    if len(data) > limit:
        raise Fault(413, "too_large", f"The file is larger than {limit >> 20} MB.", param="file")
    if not data:
        raise Fault(422, "unusable", "The file is empty.", param="file")
    return data


@dataclass(frozen=True)
class Staged:
    """A staged file waiting for confirmation."""

    id: str
    name: str
    path: Path
    at: float

    def read(self, given: Names | None = None) -> Book:
        """The file as the library reads it, under the name it was sent with."""
        return understand(self.path.read_bytes(), self.name, given)


class Uploads:
    """The staging folder of one service, beside its library file."""

    def __init__(self, library: Path, limit: int) -> None:
        self.folder, self.limit = library.with_name(library.name + ".uploads"), limit
        self._staged: dict[str, Staged] = {}

    def clear(self) -> None:
        """Delete this service's staged files and those of dead services; other running services' files stay."""
        for upload_id in list(self._staged):
            self.drop(upload_id)
        with contextlib.suppress(OSError):
            for left in list(self.folder.iterdir()):
                if time.time() - left.stat().st_mtime > KEPT_SECONDS:
                    left.unlink()
            self.folder.rmdir()

    def put(self, name: str, content: IO[bytes]) -> Staged:
        """Stage a file.

        Raises:
            Fault: empty, too large, or too many wait already.
        """
        for staged in list(self._staged.values()):
            if staged.at < time.monotonic() - KEPT_SECONDS:
                self.drop(staged.id)
        if len(self._staged) >= STAGED_AT_MOST:
            raise Fault(503, "busy", f"{STAGED_AT_MOST} uploads wait to be confirmed or dropped.", retry_after=60)
        data = read_within(content, self.limit)
        shown, upload_id = clean_name(name), uuid.uuid4().hex
        suffix = "".join(re.findall(r"\.[A-Za-z0-9]{1,8}$", shown)).lower()
        staged = Staged(upload_id, shown, self.folder / (upload_id + suffix), time.monotonic())
        write_atomic(staged.path, data)
        self._staged[upload_id] = staged
        return staged

    def get(self, upload_id: str) -> Staged:
        """Get a staged file by its id.

        Raises:
            Fault: 404.
        """
        if upload_id not in self._staged:
            raise not_found("This upload")
        return self._staged[upload_id]

    def drop(self, upload_id: str) -> None:
        """Delete a staged file."""
        if staged := self._staged.pop(upload_id, None):
            with contextlib.suppress(OSError):
                staged.path.unlink()


def work_dict(work: Work) -> dict[str, Any]:
    """A work as a JSON object; its public id is its text's sha256, which is never used twice."""
    return {
        "sha256": work.sha256, "title": work.title, "author": work.author, "year": work.year, "source": work.source,
        "characters": work.characters, "sections": work.sections, "passages": work.passages,
    }  # fmt: skip


def preview(staged: Staged, library: Library) -> dict[str, Any]:
    """Preview a staged file: what the library reads in it.

    Raises:
        InputError: it cannot be read.
    """
    source = staged.read()
    parts = sections.split(source.text, source.headings, source.lines)
    same = [
        work for work in library.works() if work.characters == len(source.text) and library.text(work) == source.text
    ]
    older = library.older(source)
    return {
        "id": staged.id,
        "name": staged.name,
        "title": source.names.title,
        "author": source.names.author,
        "year": source.names.year,
        "characters": len(source.text),
        "words": len(source.text.split()),
        "passages": sum(len(passages.cut(source.text, part)) for part in parts),
        "verse": any(part.verse for part in parts),
        "sections": [
            {"label": part.label, "title": part.title, "verse": part.verse, "characters": part.end - part.start}
            for part in parts[:SECTIONS_SHOWN]
        ],
        "section_count": len(parts),
        "beginning": source.text[parts[0].body if parts else 0 :][:BEGINNING_CHARACTERS],
        "apparatus": words_by_kind(source.apparatus),
        "warnings": list(source.warnings),
        "there_already": same[0].title if same else None,
        "replaces": work_dict(older) if older else None,
    }


def confirm(staged: Staged, names: Names, library: Library, *, keep_both: bool = False) -> Added:
    """Add a staged file to the library; an older version of the same work is replaced unless both are kept."""
    added = library.add(staged.read(names), keep_both=keep_both)
    if not added.new:  # a text that is there already takes the names that were typed for it now
        added = replace(added, work=library.rename(added.work, names))
    library.catch_up()
    return added
