"""How works are printed, before and after they are stored, and which names to add by hand."""

from __future__ import annotations

import shlex
from pathlib import Path

from stilnovo.cli.output import note
from stilnovo.library import passages, sections
from stilnovo.library.read import SourceWork
from stilnovo.library.records import Work

#: Of a preview, how many sections are named; of works without author or year, how many.
_SHOWN = 6


def understood(document: SourceWork) -> tuple[str, dict[str, object]]:
    """What was understood of a file, for a person and as data, before anything is stored."""
    parts = sections.split(document.text, document.headings)
    names = document.names
    who = ", ".join((names.author or "(author unknown: give --author)", names.title or "(no title: give --title)"))
    labels = [part.label or "(without heading)" for part in parts]
    more = f" … {labels[-1]}" if len(labels) > _SHOWN + 1 else ""
    verse = sum(part.verse for part in parts)
    kind = "verse" if verse * 2 > len(parts) else "prose"
    count = sum(len(passages.cut(document.text, part)) for part in parts)
    line = (
        f"{document.source}: {who} ({names.year or 'year unknown'}), {kind}, {len(document.text)} characters, "
        f"{len(parts)} sections, {count} passages\n    {'; '.join(labels[:_SHOWN])}{more}"
    )
    sections_found = [
        {"label": p.label, "title": p.title, "verse": p.verse, "start": p.start, "end": p.end} for p in parts
    ]
    facts: dict[str, object] = {
        "source": document.source, "author": names.author, "title": names.title, "year": names.year,
        "characters": len(document.text), "passages": count, "sections": sections_found,
    }  # fmt: skip
    return line, facts


def described(work: Work) -> str:
    """A work on one line, for a person."""
    names = ", ".join(part for part in (work.author or "(author unknown: give --author)", work.title) if part)
    year = f" ({work.year})" if work.year else ""
    return f"{names}{year}: {work.sections} sections, {work.passages} passages"


def ask_for_names(incomplete: list[tuple[Path, Work]]) -> None:
    """Say which works lack an author or a year, and how to give them; the text itself is not stored twice."""
    for file, work in incomplete[:_SHOWN]:
        missing = [*([] if work.author else ["author"]), *([] if work.year else ["year"])]
        options = " ".join(f"--{name} {'1895' if name == 'year' else repr('Name Surname')}" for name in missing)
        note(
            f"«{work.title}»: {' and '.join(missing)} not recognised. "
            f"Give what you know: stilnovo library add {shlex.quote(str(file))} {options} (and --title, if it is another)"
        )
    if len(incomplete) > _SHOWN:
        note(f"… and {len(incomplete) - _SHOWN} more works without author or year: stilnovo library list")
