"""`stilnovo evaluate`: a model through tasks and held-out text, with intervals; first, what the items could show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.output import emit, note


def evaluate(
    model: Annotated[str, typer.Option(help="Short name, local path or Hugging Face id.")] = "smollm2",
    adapter: Annotated[Path | None, typer.Option(help="A run's adapter folder.")] = None,
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8, int4 or none.")] = "nf4",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    tasks: Annotated[str, typer.Option(help="Names, with commas between.")] = "sample_questions,sample_completions",
    text: Annotated[list[Path] | None, typer.Option(help="Held-out text for bits per byte; repeat it.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with one folder a benchmark.")] = None,
    split: Annotated[str | None, typer.Option(help="Instead of each task's own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items of each task, drawn by seed; never the first ones.")] = None,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/evaluate"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Score a model; says beforehand which differences the items could show."""
    from rich.console import Console
    from rich.table import Table

    from stilnovo.evaluate.heldout import held_out_texts
    from stilnovo.evaluate.run import TEXT, expectation
    from stilnovo.evaluate.run import evaluate as run
    from stilnovo.evaluate.task import select
    from stilnovo.evaluate.tasks import find_tasks
    from stilnovo.model.load import open_model
    from stilnovo.model.quantize import checked_scheme
    from stilnovo.progress import Progress

    scheme = checked_scheme(quantization)
    selections = [select(task, data_dir, split, limit) for task in find_tasks(tasks.split(","))] if tasks else []
    texts = held_out_texts(text, limit) if text else []
    for selection in selections:
        note(expectation(selection))
    llama, tokenizer = open_model(model, quantization=scheme, adapter=adapter, device=device)
    names = [selection.task.name for selection in selections]
    with Progress("evaluate", len(names) + bool(texts)) as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.update((names.index(name) if name in names else len(names)) + done / total, f"{name} {done}/{total}")

        result = run(
            llama, tokenizer, selections, texts=texts, text_name=TEXT if texts else None, model_name=model,
            quantization=scheme, adapter=str(adapter) if adapter else None,
            settings={"limit": limit, "data_dir": str(data_dir) if data_dir else None}, progress=progress,
        )  # fmt: skip
    path = result.save(out)
    table = Table(title=f"{model} · {scheme}" + (f" · {adapter}" if adapter else ""))
    for column in ("task", "n", "acc", "acc_norm", "chance"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, task in result.tasks.items():
        shown = [
            f"{100 * e.value:.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]"
            for e in (task.accuracy("acc"), task.accuracy("acc_norm"))
        ]
        table.add_row(f"{name} {task.version} ({task.split})", str(task.n), *shown, f"{100 * task.chance:.1f} %")
    Console().print(table)
    if result.text is not None:
        bits = result.text.bits_per_byte()
        print(f"Held-out text: {bits.value:.3f} bits per byte [{bits.low:.3f}, {bits.high:.3f}], {bits.n} documents.")
    print(f"Result: {path}")
    emit({**result.summary(), "result": str(path)}, as_json)
