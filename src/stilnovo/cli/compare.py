"""`stilnovo compare`: two evaluations of the same items, one verdict a task in plain words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit


def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder or evaluation.json of the first run.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder or evaluation.json of the second run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Say whether RUN_B is better or worse than RUN_A, and whether chance would do the same."""
    from rich.console import Console
    from rich.table import Table

    from stilnovo.evaluate.paired import verdicts
    from stilnovo.evaluate.result import finite, load_result

    first, second = load_result(before), load_result(after)
    found = verdicts(first, second)
    table = Table(title=f"{before} → {after}")
    for column in ("measure", "before", "after", "difference", "95 % interval", "p", "n", "verdict"):
        table.add_column(column, justify="left" if column in ("measure", "verdict") else "right")
    for name, v in found.items():
        low, high = v.interval
        table.add_row(
            name, f"{v.before:.3f}", f"{v.after:.3f}", f"{v.difference:+.3f}", f"{low:+.3f} … {high:+.3f}",
            f"{v.p:.3g}", str(v.n), v.outcome,
        )  # fmt: skip
    Console().print(table)
    for name, v in found.items():
        print(f"{name}: {v.sentence}")
    emit(finite({"before": str(before), "after": str(after), "verdicts": {n: asdict(v) for n, v in found.items()}}), as_json)
