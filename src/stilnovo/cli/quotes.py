"""`stilnovo quotes`: check the quotations of any text against the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.chat.essay import CheckedQuotation, check_text, counts
from stilnovo.chat.essay_text import EssayText, read_essay
from stilnovo.chat.nearest import Step
from stilnovo.cli.common import AsJson, LibraryPath, emit, note
from stilnovo.cli.library_common import work_named
from stilnovo.errors import InputError, reported
from stilnovo.library.location import open_or_sample
from stilnovo.library.read import MAXIMUM_BYTES

#: Characters of a quotation that are shown.
_SHOWN = 160


def quotes(
    text: Annotated[
        Path, typer.Argument(help="Text, Markdown, Word, PDF, HTML or other file; `-` reads standard input.")
    ],
    library: LibraryPath = None,
    work: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Look only in this work: its number or title (may be given several times)."),
    ] = None,
    allow_inexact: Annotated[
        bool, typer.Option("--allow-inexact", help="Exit with 0 also when quotations are inexact.")
    ] = False,
    service: Annotated[
        str, typer.Option("--service", metavar="URL", help="Address of `stilnovo serve`: print links into its reader.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check the quotations of any text against the library.

    Each is verified, inexact (the difference is shown), misattributed (it stands in another work than the text says) or not
    found. Exit status: 0 when all are verified, 1 when one is not, 2 for bad input.
    """
    essay = _read(text)
    store, is_sample = open_or_sample(library)
    with store:
        if is_sample:
            note(
                "Your library is empty: the built-in sample is looked through. Add works with: stilnovo library add FILE …"
            )
        checked = check_text(store, essay.text, essay.notes, [work_named(store, name).id for name in work or ()])
        for warning in essay.warnings:
            note(warning)
        for quotation in checked:
            print("\n".join(_lines(quotation, service)))
        tally = counts(checked)
        said = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in tally.items() if count)
        print(f"{len(checked)} quotations{': ' if said else ''}{said}.")
        result = {
            "file": essay.name or None, "library": "sample" if is_sample else str(store.path), "counts": tally,
            "quotations": [{**quotation.as_dict(), "link": _link(quotation, service)} for quotation in checked],
            "notes": [item._asdict() for item in essay.notes], "warnings": list(essay.warnings),
        }  # fmt: skip
    emit(result, as_json)
    accepted = {"verified", "inexact"} if allow_inexact else {"verified"}
    if any(quotation.status not in accepted for quotation in checked):
        raise typer.Exit(1)


def _read(path: Path) -> EssayText:
    if str(path) == "-":
        data, name = sys.stdin.buffer.read(MAXIMUM_BYTES + 1), ""
    else:
        with reported(f"Cannot read {path}.", "Check the path.", errors=OSError), path.open("rb") as file:
            data, name = file.read(MAXIMUM_BYTES + 1), path.name
    if len(data) > MAXIMUM_BYTES:
        raise InputError(
            f"{name or 'The text'} is too large.", f"The limit is {MAXIMUM_BYTES >> 20} MiB.", "Check it in parts."
        )
    return read_essay(data, name)


def _lines(quotation: CheckedQuotation, service: str) -> list[str]:
    """A quotation as lines for a person."""
    words = " ".join(quotation.claimed.split())
    words = words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"
    place = f"paragraph {quotation.paragraph}" + (f", note {quotation.note}" if quotation.note else "")
    lines = [f"{quotation.status.replace('_', ' '):<14}{place}: «{words}»"]
    if quotation.attribution and (quotation.place_differs or quotation.status in ("misattributed", "not_found")):
        lines.append(f"{'':<14}the text says: {quotation.attribution}")
    if quotation.source:
        if any(step.op != "equal" for step in quotation.difference):
            lines.append(f"{'':<14}the source has: {marked(quotation.difference)}")
        elif quotation.status == "inexact" or quotation.source.before or quotation.source.after:
            lines.append(f"{'':<14}the source has: {quotation.source.shown}")
        lines.append(f"{'':<14}{quotation.source.citation}")
        if link := _link(quotation, service):
            lines.append(f"{'':<14}{link}")
    return lines


def marked(steps: Sequence[Step]) -> str:
    """A difference on one line: [-words of the quotation-] {+words of the source+}."""
    pieces = []
    for step in steps:
        if step.op == "equal":
            pieces.append(step.source)
        else:
            pieces += [f"[-{step.quoted}-]"] * bool(step.quoted) + [f"{{+{step.source}+}}"] * bool(step.source)
    return " ".join(pieces)


def _link(quotation: CheckedQuotation, service: str) -> str:
    """The place of a quotation in the reader of a service; empty without a place or a service."""
    source = quotation.source
    if not service or source is None or source.section is None:
        return ""
    return f"{service.rstrip('/')}/#/biblioteca/{source.section.work.sha256}/{source.start}-{source.end}"
