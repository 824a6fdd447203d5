"""`stilnovo compare`: two evaluations of the same items, one verdict a task in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.output import emit

if TYPE_CHECKING:
    from stilnovo.evaluate.result import EvaluationResult
    from stilnovo.evaluate.verdict import Verdict


def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder or evaluation.json of the first run.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder or evaluation.json of the second run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Say whether RUN_B is better or worse than RUN_A, and whether chance would do the same."""
    from stilnovo.evaluate.paired import verdicts
    from stilnovo.evaluate.result import finite, load_result

    first, second = load_result(before), load_result(after)
    found = verdicts(first, second)
    print(f"before: {_name(first)}\nafter:  {_name(second)}\n")
    for name, verdict in found.items():
        print(f"{name}: {verdict.sentence}")
    _print(found)
    figures: dict[str, Any] = {
        name: {
            "n": verdict.n, "metric": verdict.metric, "before": verdict.before, "after": verdict.after,
            "difference": verdict.difference, "interval": list(verdict.interval), "p_value": verdict.p,
            "test": verdict.test, "outcome": verdict.outcome, "verdict": verdict.sentence,
            "smallest_visible_difference": verdict.smallest_visible,
        }
        for name, verdict in found.items()
    }  # fmt: skip
    emit(finite({"before": str(before), "after": str(after), "tasks": figures}), as_json)


def _name(result: EvaluationResult) -> str:
    return f"{result.model} in {result.quantization}, {result.adapter or 'no adapter'}"


def _print(found: dict[str, Verdict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    caption = "shares in %, differences in points; 95 % intervals; smallest visible: with 80 % power"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("task")
    for heading in ("n", "before", "after", "difference", "interval", "p", "smallest visible"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for name, verdict in found.items():
        scale, digits = (1, 4) if verdict.metric == "bits per byte" else (100, 1)
        low, high = (f"{scale * end:+.{digits}f}" for end in verdict.interval)
        table.add_row(
            name, f"{verdict.n:,}", f"{scale * verdict.before:.{digits}f}",
            f"{scale * verdict.after:.{digits}f}", f"{scale * verdict.difference:+.{digits}f}", f"{low} to {high}",
            f"{verdict.p:.3f}", f"{scale * verdict.smallest_visible:.{digits}f}", verdict.outcome,
        )  # fmt: skip
    console.print(table)
