"""`stilnovo compare`: two evaluations of the same items, one verdict a task in plain words, and where they differ."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.options import AsJson, DataDir
from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.benchmarks.task import Item
    from stilnovo.compare.paired import Comparison
    from stilnovo.compare.verdict import Verdict
    from stilnovo.scoring.result import EvaluationResult, TaskResult


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

    Each task has improved, regressed, or is inconclusive; reasons and intervals are printed.
    """
    from stilnovo.compare.paired import compare as pair_up
    from stilnovo.scoring.result import finite, load_result

    first, second = load_result(before), load_result(after)
    comparison = pair_up(first, second)
    print(f"before: {_name(first)}\nafter:  {_name(second)}\n")
    for what, was, became in comparison.differences[:8]:
        note(f"differs: {what}: {was} / {became}")
    for name, verdict in comparison.verdicts.items():
        print(f"{name}: {verdict.sentence}")
    for pairs in comparison.pairs.values():
        if pairs.note:
            print(pairs.note)
    for name, reason in comparison.refused.items():
        print(f"{name}: not compared. {reason}")
    _print(comparison.verdicts)
    result: dict[str, Any] = finite({"before": str(before), "after": str(after), **_figures(comparison)})
    if out is not None:
        result["report"] = str(_write(out, first, second, comparison, data_dir, result))
        print(f"Report: {result['report']}")
    emit(result, as_json)


def _figures(comparison: Comparison) -> dict[str, Any]:
    return {
        "tasks": {
            name: {
                "n": verdict.n, "metric": verdict.metric, "before": verdict.before, "after": verdict.after,
                "difference": verdict.difference, "interval": list(verdict.interval), "p_value": verdict.p,
                "p_corrected": verdict.p_corrected, "correction": "Holm", "comparisons": verdict.comparisons,
                "test": verdict.test, "clusters": verdict.clusters, "gained": verdict.gained, "lost": verdict.lost,
                "outcome": verdict.outcome, "verdict": verdict.sentence,
                "smallest_visible_difference": verdict.smallest_visible,
                **_left_out(comparison, name),
            }
            for name, verdict in comparison.verdicts.items()
        },
        "refused": comparison.refused,
        "differences": [list(row) for row in comparison.differences],
    }  # fmt: skip


def _left_out(comparison: Comparison, name: str) -> dict[str, int]:
    pairs = comparison.pairs.get(name)
    return {} if pairs is None else {"only_before": pairs.only_before, "only_after": pairs.only_after}


def _write(
    folder: Path,
    before: EvaluationResult,
    after: EvaluationResult,
    comparison: Comparison,
    data_dir: Path | None,
    result: dict[str, Any],
) -> Path:
    from stilnovo.report.differences import render_comparison
    from stilnovo.report.evaluation_pages import comparison_page
    from stilnovo.runlog import RunFolder, environment, write_atomic

    kept = data_dir or (Path(before.settings["data_dir"]) if before.settings.get("data_dir") else None)
    own_files = before.settings.get("task_files") or {}
    page = comparison_page(before, after, comparison, lambda task: _texts(task, kept, own_files), sys.argv)
    write_atomic(folder / "report.html", render_comparison(page))
    RunFolder(folder).write_json("comparison.json", {"command": sys.argv, **environment(), **result})
    return folder / "report.html"


def _texts(task: TaskResult, data_dir: Path | None, own_files: Mapping[str, str]) -> Mapping[str, Item]:
    """The questions of a task by id, read again from their data; none where they are not at hand."""
    from stilnovo.benchmarks.task import select
    from stilnovo.benchmarks.task_file import reopen_task_file
    from stilnovo.benchmarks.tasks import OLDER, TASKS
    from stilnovo.errors import InputError

    known = OLDER.get(f"{task.name}@{task.version}") or TASKS.get(task.name)
    try:
        if task.files:
            known = reopen_task_file(Path(own_files.get(task.name, "")), task.files)
        if known is None:
            return {}
        selection = select(known, data_dir, task.split, shots=task.shots if known.shots_rule else None)
    except InputError as error:
        note(f"{task.name}: the page shows no texts. {error.what} {error.found}")
        return {}
    return {item.id: item for item in selection.items}


def _name(result: EvaluationResult) -> str:
    return f"{result.model} in {result.quantization}, {result.adapter or 'no adapter'}"


def _print(found: Mapping[str, Verdict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    caption = (
        "shares in %, differences in points; 95 % intervals; p corrected for the number of comparisons (Holm); "
        "visible: the smallest difference with 80 % power"
    )
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("task", no_wrap=True)
    for heading in ("n", "before", "after", "difference", "interval", "gained, lost", "p", "visible"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for name, verdict in found.items():
        scale, digits = (1, 4) if verdict.metric == "bits per byte" else (100, 1)
        low, high = (f"{scale * end:+.{digits}f}" for end in verdict.interval)
        p = verdict.p if verdict.p_corrected is None else verdict.p_corrected
        changed = "–" if verdict.gained is None else f"{verdict.gained:,}, {verdict.lost:,}"
        table.add_row(
            name, f"{verdict.n:,}", f"{scale * verdict.before:.{digits}f}",
            f"{scale * verdict.after:.{digits}f}", f"{scale * verdict.difference:+.{digits}f}", f"{low} to {high}",
            changed, f"{p:.3f}", f"{scale * verdict.smallest_visible:.{digits}f}", verdict.outcome,
        )  # fmt: skip
    console.print(table)
