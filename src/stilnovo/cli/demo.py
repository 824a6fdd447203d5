"""`stilnovo demo`: the whole workflow on the embedded model and the built-in sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, Device, Model, Out, RecipeName, Steps, emit, note, show


def demo(
    model: Model = "smollm2",
    out: Out = Path("runs/demo"),
    recipe: RecipeName = "demo",
    steps: Steps = None,
    prompts: Annotated[int, typer.Option(min=0, help="Prompts to answer before and after training.")] = 4,
    new_tokens: Annotated[int, typer.Option(min=1, help="Maximum new tokens of each answer.")] = 64,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run the whole workflow once, on a small model; writes a report.

    Trains, evaluates before and after, compares, and answers from a library; writes report.html.
    """
    from stilnovo import recipe as recipes

    given = {"model.name": model, "model.device": device, "train.steps": steps}
    chosen = recipes.load(recipe).changed({key: value for key, value in given.items() if value is not None})
    note("Loading PyTorch and the model …")

    from stilnovo.demo.job import run, written
    from stilnovo.report.demo import demo_figures, demo_page, demo_text
    from stilnovo.runlog import RunFolder, write_atomic

    result = run(chosen, out, prompt_count=prompts, new_tokens=new_tokens, questions=3)
    page = out / "report.html"
    figures = demo_figures(result, str(page))
    write_atomic(page, demo_page(result))
    RunFolder(out).write_json("demo.json", {"finished": True, **figures, **written(result)})
    show([demo_text(result), f"Report: {page}"])
    emit(figures, as_json)
