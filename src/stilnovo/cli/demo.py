"""`stilnovo demo`: the main job in one go, on the embedded model and the project's own sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stilnovo.cli.options import AsJson, Device, Model, Out, RecipeName, Steps
from stilnovo.cli.output import emit, note


def demo(
    model: Model = "smollm2",
    out: Out = Path("runs/demo"),
    recipe: RecipeName = "demo",
    steps: Steps = None,
    prompts: Annotated[int, typer.Option(help="Prompts to answer before and after training.")] = 4,
    new_tokens: Annotated[int, typer.Option(help="Maximum new tokens of each answer.")] = 64,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run the whole workflow once, on a small model; writes a report.

    Trains, evaluates before and after, compares, and answers from a library; writes report.html.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from stilnovo import recipe as recipes
    from stilnovo.report.terminal import summary_table

    changes: dict[str, Any] = {"model.name": model, "model.device": device}
    if steps is not None:
        changes["train.steps"] = steps
    chosen = recipes.load(recipe).changed(changes)
    note("Loading PyTorch and the model …")

    from stilnovo import report
    from stilnovo.demo.demo_page import report_data, summary
    from stilnovo.demo.job import run
    from stilnovo.runlog import write_atomic
    from stilnovo.scoring.result import finite

    result = run(chosen, out, prompt_count=prompts, new_tokens=new_tokens, questions=3)
    page = out / "report.html"
    data = report_data(result)
    figures = summary(result, str(page))
    write_atomic(page, report.render(data))
    write_atomic(out / "report.json", json.dumps(finite(asdict(data)), ensure_ascii=False, indent=1) + "\n")
    write_atomic(
        out / "demo.json", json.dumps({"finished": True, **finite(figures)}, ensure_ascii=False, indent=1) + "\n"
    )
    Console().print(summary_table(data))
    print(f"Report: {page}")
    emit(finite(figures), as_json)
