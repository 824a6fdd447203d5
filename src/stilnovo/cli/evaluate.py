"""`stilnovo evaluate`: score a model on benchmarks and held-out text, with confidence intervals."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.common import (
    BENCHMARKS,
    Adapter,
    AsJson,
    Cache,
    Concurrency,
    DataDir,
    Device,
    Limit,
    NoCache,
    ProtocolQuantization,
    ScoredModel,
    ScoredServer,
    Seed,
    ServerContext,
    Split,
    System,
    SystemFile,
    Tasks,
    emit,
    memory_text,
    note,
    show,
    system_of,
)
from stilnovo.errors import InputError

if TYPE_CHECKING:
    from stilnovo.scoring.served import Served

SMALLEST = "smollm2"  # the model that is evaluated where none is named


def evaluate(
    model: ScoredModel = None,
    adapter: Adapter = None,
    quantization: ProtocolQuantization = None,
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
    chat_template: Annotated[
        bool | None,
        typer.Option(
            "--chat-template/--no-chat-template",
            help="Ask through the model's chat template (instruct models).",
            rich_help_panel=BENCHMARKS,
            show_default=False,
        ),
    ] = None,
    single_turn: Annotated[
        bool,
        typer.Option(
            "--single-turn",
            help="Few-shot examples in the user's one turn (default: turns of their own).",
            rich_help_panel=BENCHMARKS,
        ),
    ] = False,
    system: System = None,
    system_file: SystemFile = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Prompts of tasks that have several: default, all, or names.",
            rich_help_panel=BENCHMARKS,
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="K", help="Written answers drawn for each item.", rich_help_panel=BENCHMARKS)
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="Temperature of written answers (default: the task's).", rich_help_panel=BENCHMARKS),
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
    server: ScoredServer = None,
    server_context: ServerContext = None,
    concurrency: Concurrency = None,
) -> None:
    """Evaluate a model on Italian benchmarks and held-out text.

    Every score has a 95 % interval; the smallest difference that could be seen is printed first.
    """
    if tasks == "list":
        return _list_tasks(as_json)
    from stilnovo import api, dist
    from stilnovo.folderlock import locked
    from stilnovo.progress import Progress
    from stilnovo.report.evaluation import evaluation_page, evaluation_text
    from stilnovo.runlog import write_atomic
    from stilnovo.scoring.questions import questions_of

    form = api.ChatForm(system_of(system, system_file) if system or system_file else "", single_turn)
    served = _served(server, model, server_context, concurrency, adapter, quantization, device)
    spec = served or api.evaluation_spec(model or SMALLEST, adapter, quantization, device, protocol=protocol, note=note)
    files = [str(path) for path in task_file or []]
    names = None if tasks is None and not files else [*(tasks.split(",") if tasks is not None else []), *files]
    name = Path(model or ("server" if served else SMALLEST)).stem
    folder = out or Path("runs") / f"evaluate-{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    # Of several processes all have the result, one writes it.
    with locked(folder, "an evaluation") if dist.is_first() else nullcontext(), Progress("evaluate", 1) as bar:
        result = api.evaluate_model(
            spec, names, text or (), draw=api.Draw(limit, seed, protocol), split=split, data_dir=data_dir,
            download=download, cache=cache, use_cache=not no_cache, note=note,
            prompting=api.Prompting(shots, prompts, repeats, temperature, chat_template, form),
            progress=lambda what, done, total: bar.update(done / total, what),
        )  # fmt: skip
        if not dist.is_first():
            return
        path, page = str(result.save(folder)), str(folder / "report.html")
        html = evaluation_page(result, lambda task: questions_of(task, result.settings, None, note))
        write_atomic(folder / "report.html", html)
    beside_report = f"{result.model} in {result.quantization}, this run" if protocol == "report2024" else None
    memory = f"{memory_text(result.memory)}\n" if result.memory else ""
    show([*evaluation_text(result, beside_report), f"{memory}Result: {path}\nReport: {page}"])
    asked = {"server": result.settings["server"]} if server is not None else {}
    emit(
        {**result.summary(), **asked, "protocol": result.settings["protocol"], "result": path, "report": page}, as_json
    )


def _served(
    server: str | None, model: str | None, context: int | None, concurrency: int | None, adapter: Path | None,
    quantization: str | None, device: str,
) -> Served | None:  # fmt: skip
    """The model on a server that the options name; None where they name no server.

    Raises:
        InputError: an option makes no sense with a server, or only with one.
    """
    if server is None:
        if context is not None or concurrency is not None:
            raise InputError("--server-context and --concurrency need a server.", next="Add --server URL.")
        return None
    own = {"--adapter": adapter, "--quantization": quantization, "--device": None if device == "auto" else device}
    if given := [name for name, value in own.items() if value is not None]:
        raise InputError(
            f"{given[0]} makes no sense with --server.",
            "The server decides how its model is loaded and where it runs.",
            f"Leave {given[0]} out, or load the model so in the server.",
        )
    from stilnovo.scoring.served import Served

    return Served(server, model, context, concurrency or 4)


def _list_tasks(as_json: bool) -> None:
    from stilnovo.benchmarks.groups import GROUPS
    from stilnovo.benchmarks.tasks import OLDER, TASKS
    from stilnovo.report.page import text_table

    named = TASKS | OLDER
    headings = ("task", "version", "splits", "metrics", "shots", "prompts", "licence", "reference")
    rows = [
        (
            name + " *" * task.untried, task.version, ", ".join(task.splits), ", ".join(task.metrics), str(task.shots),
            str(len(task.prompts) or 1), task.licence, task.reference or "—",
        )
        for name, task in named.items()
    ]  # fmt: skip
    show([
        text_table(
            "reference: lm-evaluation-harness' task with the same prompts (gsm8k: examples aside); * untried on real rows, which "
            "were not at hand: run on made-up rows in their form",
            headings, rows,
            left=headings,
        ),
        text_table(
            "groups, with a macro average: every task weighs the same; one's own is NAME=TASK+TASK", ("group", "tasks"),
            [(name, ", ".join(members)) for name, members in GROUPS.items()], left=("group", "tasks"),
        ),
    ])  # fmt: skip
    emit(
        {
            name: {
                "version": task.version, "splits": task.splits, "metrics": task.metrics, "shots": task.shots,
                "shots_rule": task.shots_rule, "licence": task.licence, "source": task.source,
                "reference": task.reference, "prompts": task.prompts, "untried": task.untried,
                "groups": [group for group, members in GROUPS.items() if name in members],
            }
            for name, task in named.items()
        },
        as_json,
    )  # fmt: skip
