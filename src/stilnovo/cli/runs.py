"""`stilnovo runs`: the runs under a folder, with their status and losses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, emit, note, show


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds the runs, or one run.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """List the runs under a folder: status, steps, losses, model.

    Reads the run folders' files, up to three folders deep; nothing is loaded or changed. Trainings and evaluations, the newest first.
    """
    from stilnovo.report.runs import find_runs, runs_text

    found = find_runs(folder)
    if not found:
        note(f"There are no runs in {folder}.")
    show(runs_text(found))
    emit({"folder": str(folder), "runs": [asdict(run) for run in found]}, as_json)
