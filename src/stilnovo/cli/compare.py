"""`stilnovo compare`: two evaluations of the same items, one verdict a task in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.output import emit

if TYPE_CHECKING:
    from stilnovo.evaluate.result import EvaluationResult


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
