"""`stilnovo compare`: paired tests of two evaluations of the same items, a verdict for every task."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from stilnovo.cli.common import AsJson, DataDir, emit, note, show


def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder or evaluation.json of the first run.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder or evaluation.json of the second run.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder for report.html, with every item that differs."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations item by item, with paired tests.

    Prints a verdict for each task with its interval: improved, regressed or inconclusive.
    """
    from stilnovo.compare.paired import compare as pair_up
    from stilnovo.errors import InputError
    from stilnovo.folderlock import locked
    from stilnovo.report.comparison import comparison_figures, comparison_page, comparison_text
    from stilnovo.runlog import RunFolder, environment, write_atomic
    from stilnovo.scoring.questions import questions_of
    from stilnovo.scoring.result import load_result

    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"There is no folder {data_dir}.", next="Give the folder of the benchmarks with --data-dir.")
    first, second = load_result(before), load_result(after)
    comparison = pair_up(first, second)
    for what, was, became in comparison.differences[:8]:
        note(f"differs: {what}: {was} / {became}")
    result: dict[str, Any] = {"before": str(before), "after": str(after), **comparison_figures(comparison)}
    with nullcontext() if out is None else locked(out, "a comparison"):
        show(comparison_text(first, second, comparison))
        if out is not None:
            page = comparison_page(
                first, second, comparison, lambda task: questions_of(task, first.settings, data_dir, note), sys.argv
            )
            write_atomic(out / "report.html", page)
            RunFolder(out).write_json("comparison.json", {"command": sys.argv, **environment(), **result})
            result["report"] = str(out / "report.html")
            print(f"Report: {result['report']}")
    emit(result, as_json)
