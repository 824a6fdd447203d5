"""`stilnovo evaluate`: a model, some tasks, a held-out text; figures with their intervals, and what they cannot show."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.options import (
    BENCHMARKS,
    Adapter,
    AsJson,
    Cache,
    DataDir,
    Device,
    Limit,
    Model,
    NoCache,
    OptionalQuantization,
    Seed,
    Split,
    Tasks,
)
from stilnovo.cli.output import emit, note

if TYPE_CHECKING:
    from stilnovo.scoring.result import EvaluationResult


def evaluate(
    model: Model = "smollm2",
    adapter: Adapter = None,
    quantization: OptionalQuantization = None,
    tasks: Tasks = None,
    task_file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Your own benchmark, a YAML file or Python that is run (may be given several times)."
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Held-out text for bits per byte: file or folder (may be given several times)."
        ),
    ] = None,
    limit: Limit = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output folder (default: runs/evaluate-…).")] = None,
    as_json: AsJson = False,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="stilnovo; report2024 or anita2024: the conditions of published figures.",
            rich_help_panel=BENCHMARKS,
        ),
    ] = "stilnovo",
    shots: Annotated[
        int | None,
        typer.Option(min=0, help="Few-shot examples (default: the task's).", rich_help_panel=BENCHMARKS),
    ] = None,
    split: Split = None,
    data_dir: DataDir = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download missing benchmarks from the hub.", rich_help_panel=BENCHMARKS)
    ] = False,
    device: Device = "auto",
    seed: Seed = 42,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Evaluate a model on Italian benchmarks and held-out text.

    Every score has a 95 % interval; the smallest difference that could be seen is printed first.
    """
    if tasks == "list":
        _list_tasks(as_json)
        return
    from stilnovo import api, dist
    from stilnovo.benchmarks.protocol import find_protocol
    from stilnovo.progress import Progress
    from stilnovo.spec import spec_of

    spec = spec_of(model, adapter, quantization or find_protocol(protocol).quantization, device)
    files = [str(path) for path in task_file or []]
    names = None if tasks is None and not files else [*(tasks.split(",") if tasks is not None else []), *files]
    with Progress("evaluate", 1) as bar:
        result = api.evaluate_model(
            spec, names, text or (), draw=api.Draw(limit, seed, protocol),
            split=split, shots=shots, data_dir=data_dir, download=download, cache=cache, use_cache=not no_cache, note=note,
            progress=lambda what, done, total: bar.update(done / total, what),
        )  # fmt: skip
    if not dist.is_first():  # all have the result, one writes it
        return
    folder = out or Path("runs") / f"evaluate-{Path(model).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    written = _write(result, folder, f"{model} in {spec.quantization}, this run" if protocol == "report2024" else None)
    emit({**result.summary(), "protocol": result.settings["protocol"], **written}, as_json)


def _write(result: EvaluationResult, folder: Path, beside_report: str | None) -> dict[str, str]:
    """Write and print a result, and where it lies; `beside_report` names it in the report of 2024's own tables."""
    from stilnovo.report.evaluation_pages import score_page
    from stilnovo.report.report2024 import tables
    from stilnovo.report.report2024 import text as tables_text
    from stilnovo.report.scores import render_scores
    from stilnovo.runlog import write_atomic

    path = result.save(folder)
    page = path.with_name("report.html")
    write_atomic(page, render_scores(score_page(result)))
    _print(result)
    if beside_report is not None:
        print(tables_text(tables(result, beside_report)))
    print(f"Result: {path}\nReport: {page}")
    return {"result": str(path), "report": str(page)}


def _print(result: EvaluationResult) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from stilnovo.statistics.estimates import Estimate, smallest_visible_difference

    def share(estimate: Estimate) -> str:
        return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if result.tasks:
        caption = "95 % intervals; a verdict is about the first score of a task"
        table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
        table.add_column("task")
        for heading in ("items", "score", "guessing", "smallest visible", "items/s"):
            table.add_column(heading, justify="right")
        for task in result.tasks.values():
            scores = "\n".join(f"{metric} {share(task.score(metric))}" for metric in task.metrics)
            chance = f"{100 * task.chance:.1f} %" if task.chance else "–"
            visible = f"{100 * smallest_visible_difference(task.n):.1f} points"
            speed = f"{task.items_per_second:.2f}" if task.items_per_second else "kept"
            table.add_row(task.name, f"{task.n:,}", scores, chance, visible, speed)
        console.print(table)
        kept = sum(task.cached for task in result.tasks.values())
        if kept:
            print(f"{kept:,} answers were kept from an earlier run of the same model (--no-cache asks anew).")
        cut = sum(task.truncated for task in result.tasks.values())
        if cut:
            print(f"{cut:,} items were longer than the model can read and were cut on the left.")
    if result.text is not None:
        bits = result.text.bits_per_byte()
        print(
            f"{result.text_name}: {bits.value:.4f} bits per byte {bits.between(4)}, "
            f"{bits.n:,} documents, {sum(result.text.sizes):,} bytes, {sum(result.text.tokens):,} tokens"
        )
        if (short := result.text.perplexity_of_short_windows()) is not None:
            print(
                f"{result.text_name}, as the report of 2024 read it (64 tokens at a time): perplexity {short.value:.2f} "
                f"{short.between(2)}"
            )


def _list_tasks(as_json: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from stilnovo.benchmarks.tasks import OLDER, TASKS

    table = Table(
        box=box.SIMPLE_HEAD,
        caption="reference: lm-evaluation-harness' task with the same prompts (gsm8k: examples aside)",
    )
    for heading in ("task", "version", "splits", "metrics", "shots", "licence", "reference"):
        table.add_column(heading, overflow="fold")
    named = TASKS | OLDER
    for name, task in named.items():
        shots, metrics = str(task.shots), ", ".join(task.metrics)
        table.add_row(name, task.version, ", ".join(task.splits), metrics, shots, task.licence, task.reference or "—")
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)
    emit(
        {
            name: {
                "version": task.version, "splits": task.splits, "metrics": task.metrics, "shots": task.shots,
                "shots_rule": task.shots_rule, "licence": task.licence, "source": task.source,
                "reference": task.reference,
            }
            for name, task in named.items()
        },
        as_json,
    )  # fmt: skip
