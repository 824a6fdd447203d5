"""What `stilnovo data show` and `stilnovo train --dry-run` print: data as they will be learnt, and the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilnovo.cli.common import emit, show
from stilnovo.progress import bytes_text, seconds_text

if TYPE_CHECKING:
    from stilnovo.recipe import Recipe
    from stilnovo.train.dry_run import DataSeen, DryRun

BEGINS, ENDS = "⟦", "⟧"  # around what has a loss, where colours do not show
SHOWN_LETTERS = 1200  # of a run of text in an example
_BAR = 40


def data_parts(seen: DataSeen, rows: int) -> Iterator[object]:
    """Lines and texts for the terminal."""
    about = "about " if seen.scale > 1 else ""
    if seen.scale > 1:
        part = f"; of {', '.join(seen.beginnings[:3])} the beginning alone" if seen.beginnings else ""
        yield (
            f"A sample: {bytes_text(seen.excerpt_bytes)} of about {bytes_text(seen.total_bytes)} were read{part}. "
            "Totals are extrapolated; rows are numbered as in the sample."
        )
    for rows_seen in seen.rows:
        yield f"{rows_seen.file}: rows of the shape {rows_seen.shape}; columns {', '.join(rows_seen.columns)}"
    yield from seen.corpus.prepared
    yield from _examples(seen, rows)
    own = len(seen.lengths)
    mean = sum(seen.lengths) / max(1, own)
    read = f" ({len(seen.corpus.packed.documents):,} read)" if seen.scale > 1 else ""
    yield (
        f"train.task {seen.recipe.train.task}: {about}{seen.documents:,} documents{read}, {about}{seen.tokens:,} tokens in "
        f"{about}{seen.packs:,} packs of {seen.recipe.data.pack_tokens:,}; {about}{seen.held_out:,} held out."
    )
    yield (
        f"Loss tokens: {100 * seen.loss_share:.1f} %. Length in tokens: mean {mean:,.0f}, longest {max(seen.lengths, default=0):,}; "
        f"{about}{seen.longer:,} documents longer than a pack. Exact duplicates: {seen.duplicates:,} of those read."
    )
    yield from histogram(seen.lengths)


def _examples(seen: DataSeen, rows: int) -> Iterator[object]:
    from rich.table import Table
    from rich.text import Text

    texts = []
    for runs in seen.rendered(rows):
        text = Text()
        for run, learnt in runs:
            half = SHOWN_LETTERS // 2
            cut = run if len(run) <= SHOWN_LETTERS else f"{run[:half]} […] {run[-half:]}"
            text.append(f"{BEGINS}{cut}{ENDS}" if learnt else cut, style="bold green" if learnt else "")
        texts.append(text)
    if texts:
        yield f"Examples; tokens with a loss stand in {BEGINS} {ENDS}:"
    if seen.recipe.train.task != "dpo":
        for number, text in enumerate(texts, 1):
            yield f"--- example {number}"
            yield text
        return
    for chosen, rejected in zip(texts[::2], texts[1::2], strict=True):
        table = Table("chosen", "rejected", show_lines=True)
        table.add_row(chosen, rejected)
        yield table


def buckets(lengths: Any) -> dict[int, int]:
    """Number of documents by the next power of two of their length in tokens, in order, gaps filled."""
    counts = Counter(1 << max(0, int(length) - 1).bit_length() for length in lengths)
    if not counts:
        return {}
    top, bottom = max(counts).bit_length(), min(counts).bit_length()
    return {1 << bit: counts[1 << bit] for bit in range(bottom - 1, top)}


def histogram(lengths: Any) -> Iterator[str]:
    """A bar for each power of two."""
    counts = buckets(lengths)
    most = max(counts.values(), default=1)
    for limit, count in counts.items():
        yield f"  ≤ {limit:>9,} tokens {count:>9,} {'█' * -(-_BAR * count // most)}"


def data_facts(seen: DataSeen, rows: int) -> dict[str, Any]:
    """The same as plain data."""
    packed = seen.corpus.packed
    return {
        "model": seen.recipe.model.name, "task": seen.recipe.train.task, "sample": seen.scale > 1, "scale": seen.scale,
        "read_bytes": seen.excerpt_bytes, "total_bytes": seen.total_bytes, "read_documents": len(packed.documents),
        "documents": seen.documents, "held_out_documents": seen.held_out, "tokens_per_epoch": seen.tokens,
        "packs": seen.packs, "loss_share": seen.loss_share, "longest": max(seen.lengths, default=0), "longer_than_a_pack": seen.longer,
        "duplicates": seen.duplicates, "lengths": {str(limit): count for limit, count in buckets(seen.lengths).items()},
        "rows": [asdict(each) for each in seen.rows], "remarks": list(seen.corpus.remarks),
        "prepared": list(seen.corpus.prepared),
        "examples": [[{"text": text, "loss": learnt} for text, learnt in runs] for runs in seen.rendered(rows)],
    }  # fmt: skip


def print_dry_run(recipe: Recipe, out: Path, *, resume: bool, rows: int, as_json: bool) -> None:
    """Prepare the training, and print what it would do.

    Raises:
        InputError: where the training would.
    """
    from stilnovo.train.dry_run import dry_run

    run = dry_run(recipe, out, resume=resume)
    show(data_parts(run.data, rows))
    show(_plan_lines(run))
    plan = run.plan
    emit(
        {
            **data_facts(run.data, rows), "steps": run.steps, "warmup_steps": run.warmup, "tokens_per_step": run.tokens_per_step,
            "evaluation_steps": run.schedule.due if run.schedule else [],
            "seconds": run.seconds, "predicted_peak_bytes": run.step.peak,
            "levers": None if plan is None else asdict(plan.levers), "sha256": run.data.corpus.sha256,
        },
        as_json,
    )  # fmt: skip


def _evaluation_lines(run: DryRun) -> Iterator[str]:
    schedule, train = run.schedule, run.data.recipe.train
    if schedule is None:
        yield "Evaluation: none" + ("." if train.evaluate_every == 0 else "; no row is held out.")
        return
    times = (
        f"every {schedule.every:,} steps, {len(schedule.due):,} times"
        if schedule.every < run.steps
        else "after the last step"
    )
    about = "" if run.data.scale == 1 else "about "
    what = [f"the loss on {about}{schedule.tokens:,} held-out tokens"] if schedule.tokens else []
    what += [f"{len(train.samples):,} prompts answered"] if train.samples else []
    stops = "" if train.patience is None else f"; it ends early after {train.patience:,} of them without a lower loss"
    yield f"Evaluation: {times}: {' and '.join(what)}{stops}."


def _plan_lines(run: DryRun) -> Iterator[str]:
    from stilnovo.train.optimizer import warmup_note

    train, about = run.data.recipe.train, "about " if run.data.scale > 1 and run.data.recipe.train.steps is None else ""
    yield (
        f"Training: {about}{run.steps:,} steps of about {run.tokens_per_step:,} tokens ({train.batch_packs} packs × {train.accumulation}), "
        f"{run.warmup:,} of them warm-up; a checkpoint every {train.checkpoint_every:,} steps."
    )
    yield from _evaluation_lines(run)
    if said := warmup_note(run.steps, train):
        yield said
    ledger, by = run.step.ledger, "" if run.plan else "; torch's autograd does the step"
    yield f"Memory: predicted peak {bytes_text(run.step.peak)}; host {bytes_text(ledger.host)}{by}."
    yield from (f"  {item.name:<28}{bytes_text(item.size):>12}  {item.note}" for item in ledger.items)
    if run.seconds is not None:
        yield f"Time: about {seconds_text(run.seconds)}, a forecast from the card's data sheet."
    else:
        yield "Time: not known for this device; a run of a few steps (--steps 3, another --out) tells it."
    if run.data.recipe.guard.every is not None:
        yield f"Guard: an evaluation every {run.data.recipe.guard.every:,} steps."
    yield "A dry run: nothing was written. The same command without --dry-run trains."
