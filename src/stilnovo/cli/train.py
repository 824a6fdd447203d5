"""`stilnovo train`: fine-tune a model by a recipe into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilnovo.cli.common import (
    ADVANCED,
    AsJson,
    FrozenAdapter,
    OptionalDevice,
    OptionalModel,
    OptionalQuantization,
    OptionalRecipe,
    Out,
    RecipeKeys,
    ShownRows,
    Steps,
    emit,
    note,
    recipe_changes,
)
from stilnovo.errors import StilnovoError
from stilnovo.progress import bytes_text, rate_text, seconds_text

if TYPE_CHECKING:
    from stilnovo.plan.ledger import MemoryItem
    from stilnovo.train.outcome import TrainResult
    from stilnovo.train.run import TrainingRun


def train(
    recipe: OptionalRecipe = None,
    model: OptionalModel = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Training data: file, folder, `sample`, `sample-chat` or `sample-pairs` (may be given several times).",
        ),
    ] = None,
    out: Out = Path("runs/train"),
    steps: Steps = None,
    epochs: Annotated[
        float | None, typer.Option(help="Epochs (default: the recipe's).", rich_help_panel=ADVANCED)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=ADVANCED)] = None,
    quantization: OptionalQuantization = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also log to tensorboard, wandb, mlflow or trackio; offline (may be given several times).",
        ),
    ] = None,
    adapter: FrozenAdapter = None,
    set_: RecipeKeys = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be learnt and how, in seconds; writes nothing, opens no weights."
        ),
    ] = False,
    rows: ShownRows = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint in --out.")] = False,
    as_json: AsJson = False,
    device: OptionalDevice = None,
) -> None:
    """Fine-tune a model with LoRA on a quantized base; resumable.

    Writes a run folder with the adapter (PEFT format), checkpoints, metrics and the recipe.
    """
    from stilnovo.api import chosen_recipe, open_training
    from stilnovo.data.shards import HELD_OUT

    given = {
        "model.name": model, "model.quantization": quantization, "model.device": device,
        "model.adapter": None if adapter is None else str(adapter), "data.paths": data or None,
        "train.steps": steps, "train.epochs": epochs, "train.learning_rate": learning_rate,
        "train.trackers": tracker or None,
    }  # fmt: skip
    chosen = chosen_recipe(recipe, out, resume=resume).changed(recipe_changes(given, set_ or []))
    if dry_run:
        from stilnovo.cli.data_common import print_dry_run

        return print_dry_run(chosen, out, resume=resume, rows=rows, as_json=as_json)
    run = open_training(chosen, out, resume=resume, note=note)
    total, packed = run.model.config.parameters(), run.corpus.packed
    note(
        f"{chosen.model.name} in {chosen.model.quantization}: {run.trainable:,} of {total:,} parameters trainable "
        f"({100 * run.trainable / total:.2f} %). {len(packed.documents):,} documents, {packed.tokens:,} tokens in "
        f"{len(packed.packs):,} packs; {run.trainer.steps} steps; {len(run.corpus.held_out):,} held out."
    )
    try:
        result, memory = run.train()
    except (KeyboardInterrupt, StilnovoError):
        note(f"To go on: stilnovo train --resume --out {out}")
        raise
    held_out_file = str(out / HELD_OUT) if run.corpus.held_out else None
    _print(run, result, memory, out, held_out_file)
    emit(
        {
            **run.figures(result), "model": chosen.model.name, "run": str(out), "adapter": str(out / "adapter"),
            "trainable_parameters": run.trainable, "total_parameters": total, "held_out_file": held_out_file,
            "report": str(out / "report.html"),
        },
        as_json,
    )  # fmt: skip


def _print(
    run: TrainingRun, result: TrainResult, memory: list[MemoryItem], out: Path, held_out_file: str | None
) -> None:
    from stilnovo.train.outcome import LAST_STEPS

    whole = "" if run.model.device.type == "cuda" else ", the program itself not counted"
    predicted = f" (predicted: {bytes_text(run.step.peak)}{whole})"
    for line in memory:
        measured = bytes_text(line.measured) if line.measured is not None else ""
        print(f"{line.name:<24}{bytes_text(line.size):>12} {measured:>12}  {line.note}")
    if guard := run.trainer.guard_summary():
        whose = "" if guard["adapter_step"] == result.steps else f"; the adapter is step {guard['adapter_step']}'s"
        verdict = f"ended the training at step {guard['step']}" if guard["ended"] else "let the training pass"
        print(
            f"The guard {verdict}: {guard['why']}{whose}. {guard['evaluations']} evaluations took "
            f"{seconds_text(guard['seconds'])} beside {seconds_text(result.seconds)} of training."
        )
    if early := run.trainer.held_out.summary(run.trainer.adapter_step):
        ended = (
            f"Stopped early at step {result.steps}"
            if early["ended"] and result.steps < run.trainer.steps
            else "Not stopped early"
        )
        print(f"{ended}; the adapter is step {early['adapter_step']}'s, with the lowest held-out loss.")
    if result.skipped_steps:
        print(
            f"{result.skipped_steps} of {result.steps} steps overflowed fp16 and changed nothing; the loss scale followed."
        )
    if result.metrics:
        means = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
        print(f"Training metrics, mean of the last {min(LAST_STEPS, result.steps)} steps: {means}")
    if run.measured is not None:
        print(f"Held-out, {run.measured[1]}")
    if held_out_file:
        print(f"Held-out set: {held_out_file}")
    print(
        f"{result.steps} steps, {result.tokens:,} tokens in {seconds_text(result.seconds)} ({rate_text(result.tokens_per_second)} tok/s); "
        f"loss {result.first_loss:.3f} → {result.last_loss:.3f}; peak memory {bytes_text(result.peak_memory_bytes)}"
        f"{predicted}\n"
        f"Adapter: {out / 'adapter'}\nReport: {out / 'report.html'}"
    )
