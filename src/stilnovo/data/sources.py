"""Documents of a corpus: rows with a `text`, and maybe `id` and `title`, as `wikimedia/wikipedia` has them.

Every other column that holds something is said to be not read, but what data sets say of themselves (`METADATA`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from stilnovo.data.conversations import SHAPES, shape_of
from stilnovo.data.turns import METADATA, is_blank
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, Tally, refuse_if, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import RowBlock, blocks, files_of, parsed, rows_of

_LOOKED_AT = 20  # rows of a file whose columns are not known
_READ = METADATA | {"text", "title", "group", "path"}
_ORIGINS = ("group", "path", "source")  # columns that say what a row is a piece of
_NO_TEXT = ("empty row", "not text", "missing columns", "not an article", "redirect")  # what `document` finds
_DROPPED_TAGS = frozenset(
    {"ref", "references", "gallery", "table", "math", "score", "timeline", "imagemap", "syntaxhighlight"}
)
_DROPPED_LINKS = re.compile(r"(?i)^:?(file|image|immagine|categoria|category|portale|progetto|[a-z-]{2,12}):")


@dataclass(frozen=True)
class Document:
    """One text of a corpus; `origins` say what it is a piece of, `unread` what of its row was not read."""

    id: str
    title: str
    text: str
    unread: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


def document(row: Row, row_number: int) -> Document:
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
    refuse_if(is_blank(text), "empty row", "no text")
    refuse_if(not isinstance(text, str), "not text", f"`text` is {type(text).__name__}")
    unread = frozenset(name for name in row.keys() - _READ if not is_blank(row[name]))
    origins = {name: str(row[name]) for name in _ORIGINS if not is_blank(row.get(name))}
    return Document(
        str(row_number if identity is None else identity), "" if title is None else str(title), text, unread, origins
    )


def groups_of(documents: Sequence[Document]) -> list[str]:
    """Name what each document is a piece of: its `group`, else its `path`, `source` or title, else itself.

    A `source` that all documents share (the name of the data set) is passed over where their titles tell them apart.
    """
    titles = {document.title for document in documents}
    for column in _ORIGINS:
        names = [document.origins.get(column, "") for document in documents]
        if any(names) and (column != "source" or len(set(names)) > 1 or len(titles) == 1):
            break
    else:
        names = [document.title for document in documents]
    return [name or f"document {number}" for number, name in enumerate(names, start=1)]


def read_documents(
    paths: Sequence[str | Path], max_documents: int | None = None, tally: Tally | None = None
) -> list[Document]:
    """Every document of the files, in order; `sample` is the project's encyclopaedia.

    Args:
        paths: Files and folders.
        max_documents: Read no more than these.
        tally: Where rows without a text are counted as left out, and columns that are not read; both are logged.

    Raises:
        InputError: for a file that is missing, without any text, or damaged, with the place.
    """
    tally = Tally() if tally is None else tally
    documents = (document for path in files_of(paths) for document in _read_file(path, tally))
    taken = list(islice(documents, max_documents))
    tally.taken += len(taken)
    tally.warn()
    return taken


def check_columns(block: RowBlock, *, conversations: bool) -> None:
    """Refuse a file by its first rows.

    Raises:
        InputError: when they have no `text`, and are not `conversations` either where these are read.
    """
    rows = [row for _, row in islice(rows_of(block), _LOOKED_AT) if isinstance(row, dict)]
    row = next(iter(rows), None)
    if row is None or "text" in row or "wikitext" in row:
        return
    shape, name = shape_of(row), Path(block.source).name
    if shape == "preference":
        raise InputError(
            f"{name} holds preference pairs.",
            "They are learnt with DPO.",
            "Add --set train.task=dpo, or --recipe anita-dpo.",
        )
    if shape is None or not conversations:
        others = (
            f"; or {SHAPES}"
            if conversations
            else " (conversations are learnt with --set train.task=sft, pairs with --set train.task=dpo)"
        )
        advice = (
            f" If {likely} is the text, rename it to text." if shape is None and (likely := _likely_text(rows)) else ""
        )
        raise InputError(
            f"{name} has no columns that can be read here.", f"Found: {', '.join(row) or 'none'}",
            f"Expected: text{others}.{advice}",
        )  # fmt: skip


def _likely_text(rows: Sequence[Row]) -> str | None:
    """The column that holds the most text, which is probably what is to be learnt."""
    sizes = Counter[str]()
    for row in rows:
        sizes.update({name: len(cell) for name, cell in row.items() if isinstance(cell, str) and name not in _READ})
    return max(sizes, key=lambda name: sizes[name], default=None)


def _read_file(path: Path, tally: Tally) -> Iterator[Document]:
    parts, of_file = blocks([path]), Tally()

    def leave(place: str, bad: BadRow) -> None:
        if bad.reason not in _NO_TEXT:  # the file is damaged
            stop(place, bad)
        of_file.leave(place, bad)
        tally.leave(place, bad)

    opening = next(parts)
    check_columns(opening, conversations=False)
    documents = parsed(chain([opening], parts), document, leave, tally)
    first = next(documents, None)
    if first is None:
        found, advice = of_file.lines(), of_file.advice.values()
        raise InputError(
            f"{path} holds no text.", found[0] if found else "It is empty.", next(iter(advice), "Leave it out.")
        )
    yield first
    yield from documents


def training_text(document: Document) -> str:
    """The text to train on: the title as the first line where there is one, then the document's text."""
    text = document.text.strip()
    return f"{document.title}\n\n{text}" if document.title and not text.startswith(document.title) else text


def plain_text(wikitext: str) -> str:
    """Plain text of a page of wikitext, parsed by mwparserfromhell.

    Templates, tables, references, files and categories go, links and formatting leave their words, and a heading becomes
    a line of its own between blank lines, as in `wikimedia/wikipedia`.
    """
    import mwparserfromhell
    from mwparserfromhell.nodes import Heading, Tag, Wikilink

    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    parts: list[str] = []
    for node in code.nodes:
        if isinstance(node, Heading):
            parts.append(f"\n\n{node.title.strip_code().strip()}\n\n")
        elif isinstance(node, Tag):
            parts.append(_tag(node))
        elif isinstance(node, Wikilink):
            parts.append(_link(node))
        else:
            parts.append(str(node.__strip__(normalize=True, collapse=True, keep_template_params=False) or ""))
    text = re.sub(r"__[A-Z]+__", "", "".join(parts)).replace("'''", "").replace("''", "")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


def _tag(node: Any) -> str:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return ""
    if name in ("li", "dt", "dd"):  # a list's mark: its words follow as text
        return str(node.wiki_markup or "* ")
    if name in ("br", "hr"):
        return "\n"
    return plain_text(str(node.contents)) if node.contents is not None else ""


def _link(node: Any) -> str:
    title = str(node.title).strip()
    if _DROPPED_LINKS.match(title):
        return ""
    return str((node.text if node.text is not None else node.title).strip_code()).strip(":")
