"""Documents of a corpus: rows with a `text`, and maybe `id` and `title`, as `wikimedia/wikipedia` has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stilnovo.data.wikitext import plain_text
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import refuse_if, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import blocks, files_of, parsed

_NO_TEXT = ("empty row", "not an article", "redirect")


@dataclass(frozen=True)
class Document:
    """One text of a corpus."""

    id: str
    title: str
    text: str


def document(row: Row, number: int) -> Document:
    """A row with a `text`, or a page of a MediaWiki dump.

    Raises:
        BadRow: when it holds no text, or none that is learnt.
    """
    if "wikitext" in row:
        refuse_if(row["namespace"] != 0, "not an article", row["title"])
        refuse_if(row["redirect"], "redirect", row["title"])
        return Document(row["id"], row["title"], plain_text(row["wikitext"]))
    refuse_if("text" not in row, "missing columns", f"no `text`; has {', '.join(row)}")
    text, title, identity = row["text"], row.get("title"), row.get("id")
    refuse_if(text is None or (isinstance(text, str) and not text.strip()), "empty row", "no text")
    refuse_if(not isinstance(text, str), "not text", f"`text` is {type(text).__name__}")
    return Document(str(number if identity is None else identity), "" if title is None else str(title), text)


def read_documents(paths: Sequence[str | Path], max_documents: int | None = None) -> list[Document]:
    """Every document of the files, in order; `sample` is the project's encyclopaedia. Rows without text are passed over.

    Raises:
        InputError: for a file that is missing, empty or broken, or a row that cannot be used, with its place.
    """
    return list(islice((document for path in files_of(paths) for document in _read_file(path)), max_documents))


def _read_file(path: Path) -> Iterator[Document]:
    documents = parsed(
        blocks([path]), document, lambda place, bad: None if bad.reason in _NO_TEXT else stop(place, bad)
    )
    first = next(documents, None)
    if first is None:
        raise InputError(f"{path} holds no text.", "It is empty, or every text in it is.", "Take it out of --data.")
    yield first
    yield from documents


def training_text(document: Document) -> str:
    """What is learnt of a document: its title as the first line when it has one, then its text."""
    text = document.text.strip()
    return f"{document.title}\n\n{text}" if document.title and not text.startswith(document.title) else text
