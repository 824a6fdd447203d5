"""How a place of the library is referred to: a bibliography entry, a note, and a permanent link.

The entry is of the work as the library has it, in the Italian order (author, title, year, file), in BibTeX and in CSL-JSON, which
Zotero reads. The link holds the digest of the stored text and the place in it, so that it stays right when works are added or
removed, and leads nowhere rather than elsewhere when the text is another.
"""

from __future__ import annotations

import re
from typing import Any

from stilnovo.library.records import Chapter, Work, citation
from stilnovo.text.italian import fold, words


def link(work: Work, start: int, end: int, service: str = "") -> str:
    """The place `text[start:end]` of a work in the reader of `stilnovo serve` at the address `service`."""
    return f"{service.rstrip('/')}/#/biblioteca/{work.sha256}/{start}-{end}"


def entry(work: Work) -> str:
    """*Verga, Giovanni, I Malavoglia, 1881 [malavoglia.epub].*"""
    source = f" [{work.source}]" if work.source else ""
    return (
        ", ".join(part for part in (inverted(work.author), work.title, str(work.year or "s.d.")) if part) + f"{source}."
    )


def note(section: Chapter, verses: str = "") -> str:
    """A note on a place: *G. Verga, I Malavoglia, 1881, cap. I.*"""
    work = section.work
    surname, _, given = inverted(work.author).partition(", ")
    initials = " ".join(f"{name[0]}." for name in given.split())
    place = citation(section, verses).removeprefix(", ".join(part for part in (work.author, work.title) if part))
    year = f", {work.year}" if work.year else ""
    return f"{' '.join(part for part in (initials, surname) if part)}{', ' if work.author else ''}{work.title}{year}{place}."


def inverted(author: str) -> str:
    """*Edmondo De Amicis* → *De Amicis, Edmondo*; one name as it is."""
    names = author.split()
    first = next(
        (i for i, name in enumerate(names) if i and fold(name) in ("de", "di", "da", "del", "della", "dei")),
        len(names) - 1,
    )
    if len(names) < 2 or names[first][0].islower():  # Caterina da Siena
        return author
    return f"{' '.join(names[first:])}, {' '.join(names[:first])}"


def key(work: Work) -> str:
    """A key for BibTeX: *verga1881malavoglia*."""
    surname = (words(inverted(work.author).partition(",")[0]) or ["anonimo"])[-1]
    title = [form for form in words(work.title) if len(form) > 3] or words(work.title) or ["opera"]
    return re.sub(r"[^a-z0-9]", "", f"{surname}{work.year or ''}{title[0]}")


def bibtex(work: Work) -> str:
    """A BibTeX entry."""
    fields = {"author": inverted(work.author), "title": work.title, "year": work.year, "note": work.source}
    lines = [f"  {name} = {{{_braced(str(value))}}}," for name, value in fields.items() if value]
    return "\n".join([f"@book{{{key(work)},", *lines, "}"])


def _braced(text: str) -> str:
    return re.sub(r"([{}%#&_$])", r"\\\1", text.replace("\\", ""))


def csl(work: Work) -> dict[str, Any]:
    """A CSL-JSON item."""
    family, _, given = inverted(work.author).partition(", ")
    person = {"family": family, "given": given} if given else {"literal": family}
    return {
        "id": key(work), "type": "book", "title": work.title, **({"author": [person]} if family else {}),
        **({"issued": {"date-parts": [[work.year]]}} if work.year else {}), "source": work.source, "language": "it",
    }  # fmt: skip
