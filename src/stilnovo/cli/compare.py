"""`stilnovo compare`: paired tests of two evaluations of the same items, a verdict for every task."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.common import AsJson, DataDir, emit, note, show

if TYPE_CHECKING:
    from stilnovo.benchmarks.task import Item
    from stilnovo.scoring.result import TaskResult


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
            folder = data_dir or (Path(first.settings["data_dir"]) if first.settings.get("data_dir") else None)
            own_files = first.settings.get("task_files") or {}
            page = comparison_page(first, second, comparison, lambda task: _texts(task, folder, own_files), sys.argv)
            write_atomic(out / "report.html", page)
            RunFolder(out).write_json("comparison.json", {"command": sys.argv, **environment(), **result})
            result["report"] = str(out / "report.html")
            print(f"Report: {result['report']}")
    emit(result, as_json)


def _texts(task: TaskResult, data_dir: Path | None, own_files: Mapping[str, str]) -> Mapping[str, Item]:
    """Load the questions of a task by id, from its data; empty where the data are missing."""
    from stilnovo.benchmarks.task import Draw, select
    from stilnovo.benchmarks.task_file import reopen_task_file
    from stilnovo.benchmarks.tasks import OLDER, TASKS
    from stilnovo.errors import InputError

    known = OLDER.get(f"{task.name}@{task.version}") or TASKS.get(task.name)
    try:
        if task.name in own_files:
            known = reopen_task_file(Path(own_files.get(task.name, "")), task.files)
        if known is None:
            return {}
        prompt = next(iter(task.prompts), "")
        selection = select(known, data_dir, task.split, Draw(seed=task.seed), shots=task.shots, prompt=prompt)
    except InputError as error:
        note(f"{task.name}: the page shows no texts. {error.what} {error.found}")
        return {}
    return {item.id: item for item in selection.items}
