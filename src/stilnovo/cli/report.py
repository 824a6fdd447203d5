"""`stilnovo report`: what a run's page shows, as files that a paper takes in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, emit


class ReportFormat(StrEnum):
    """Formats of tables and of figures."""

    csv = "csv"
    latex = "latex"
    markdown = "markdown"
    svg = "svg"
    png = "png"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its report.html.")],
    format: Annotated[
        list[ReportFormat] | None,
        typer.Option(
            metavar="NAME", help="csv, latex, markdown, svg or png (may be given several times; default: all but png)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output folder (default: RUN/paper).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write tables and figures of a run's page as files for papers.

    CSV has every digit; LaTeX (booktabs) and Markdown are as shown. The page itself offers the same under Download. PNG needs
    Chromium, Inkscape or rsvg-convert.
    """  # fmt: skip
    from stilnovo.errors import InputError
    from stilnovo.progress import counted
    from stilnovo.report.drawn import find_drawing_program
    from stilnovo.report.exports import read_exports
    from stilnovo.report.paper import file_suffix
    from stilnovo.runlog import write_atomic

    page = run / "report.html" if run.is_dir() else run
    if not page.is_file():
        raise InputError(f"There is no page {page}.", next="Name the folder of a run; `stilnovo runs` lists them.")
    formats = list(format or [ReportFormat.csv, ReportFormat.latex, ReportFormat.markdown, ReportFormat.svg])
    draw = find_drawing_program() if ReportFormat.png in formats else None
    held = read_exports(page.read_text(encoding="utf-8", errors="replace"))
    folder, files = out or page.parent / "paper", list[str]()
    for form in formats:
        if form in (ReportFormat.svg, ReportFormat.png):
            for name, svg in held.figures.items():
                path = folder / f"{name}.{form}"
                write_atomic(path, draw(svg) if draw is not None and form is ReportFormat.png else svg)
                files.append(str(path))
        else:
            for name, texts in held.tables.items():
                path = folder / f"{name}{file_suffix(form)}"
                write_atomic(path, texts[form])
                files.append(str(path))
    print(f"{folder}: {counted(len(files), 'file')}" + "".join(f"\n  {Path(name).name}" for name in files))
    emit({"page": str(page), "out": str(folder), "files": files}, as_json)
