"""`stilnovo prepare`: turn a corpus into token shards."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stilnovo.cli.common import ADVANCED, CLEANING, AsJson, Out, Seed, emit, note
from stilnovo.data import corpora
from stilnovo.errors import InputError
from stilnovo.io.streams import suffix_of


def prepare(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, `sample`, a known corpus (--list) or a hub data set owner/name[:PATTERN]."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Tokenizer: a model, a tokenizer.json or a tokenizer.model.")
    ] = "smollm2",
    out: Out = Path("prepared"),
    held_out: Annotated[float, typer.Option(min=0, max=0.5, help="Fraction of texts held out.")] = 0.0,
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: all cores).")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the known corpora and exit.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Download without asking.")] = False,
    as_json: AsJson = False,
    clean: Annotated[
        str,
        typer.Option(metavar="KIND", help="Cleaning: wikipedia, none, or auto.", rich_help_panel=CLEANING),
    ] = "auto",
    min_chars: Annotated[
        int | None,
        typer.Option(min=1, help="Drop texts shorter than this (wikipedia: 300).", rich_help_panel=CLEANING),
    ] = None,
    duplicates: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Drop near-duplicates from this Jaccard similarity on; 0: keep all.",
            rich_help_panel=CLEANING,
        ),
    ] = 0.8,
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Remove passages that contain items of these benchmarks (may be given several times).",
            rich_help_panel=CLEANING,
        ),
    ] = None,
    on_bad: Annotated[
        str,
        typer.Option(metavar="WHAT", help="Bad rows: skip (and report) or stop.", rich_help_panel=CLEANING),
    ] = "skip",
    seed: Seed = 42,
    mirror: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Local copy of hub data sets, DIR/owner/name.", rich_help_panel=ADVANCED),
    ] = None,
) -> None:
    """Turn a corpus into token shards, once; resumable.

    Cleans, removes near-duplicates and benchmark items, tokenizes, and checksums the shards.
    """
    if list_:
        for short, source in corpora.SOURCES.items():
            print(f"{short:<14}{source.repository:<38}{source.licence}\n{'':<14}{source.about}")
        emit({name: source.__dict__ for name, source in corpora.SOURCES.items()}, as_json)
        return
    if not sources:
        raise InputError(
            "No source was given.", next="Give files or a known corpus; `stilnovo prepare --list` shows them."
        )
    for value, name, allowed in (
        (clean, "--clean", ("auto", "wikipedia", "none")),
        (on_bad, "--on-bad", ("skip", "stop")),
    ):
        if value not in allowed:
            raise InputError(f"{name} {value} is unknown.", next=f"Choose {' or '.join(allowed)}.")
    paths = corpora.locate(sources, mirror=mirror, agree=lambda text: _agree(text, yes))

    from stilnovo.data.prepare import prepare as run
    from stilnovo.data.work import PreparationSettings
    from stilnovo.text.tokenizer import open_tokenizer

    encyclopaedia = _is_encyclopaedia(sources, paths) if clean == "auto" else clean == "wikipedia"
    settings = PreparationSettings(
        sources=tuple(paths), clean="wikipedia" if encyclopaedia else "none",
        min_chars=min_chars or (300 if encyclopaedia else 1), held_out=held_out, seed=seed, duplicates=duplicates or None,
        benchmarks=tuple(str(path) for path in benchmarks or ()), on_bad="stop" if on_bad == "stop" else "skip",
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    done = run(settings, open_tokenizer(model), model, out, processes=processes or cores, warn=note)
    if done.resumed:
        note(f"{done.resumed} blocks were done before.")
    print(
        f"{done.report['rows']:,} rows: {done.documents:,} texts, {done.tokens:,} tokens in {out}; "
        f"{done.held_out:,} texts held out"
    )
    _print_counts(done.report)
    emit(
        {"out": str(out), "model": model, "documents": done.documents, "tokens": done.tokens, "held_out": done.held_out, **done.report},
        as_json,
    )  # fmt: skip


def _agree(text: str, yes: bool) -> bool:
    note(text)
    return yes or (sys.stdin.isatty() and typer.confirm("Download it?", err=True))


def _is_encyclopaedia(names: list[str], paths: list[str]) -> bool:
    known = [corpora.find(name) for name in names]
    return any(source is not None and source.clean == "wikipedia" for source in known) or any(
        suffix_of(Path(path)) == ".xml" for path in paths
    )


def _print_counts(report: dict[str, Any]) -> None:
    first, places = report["left_out_first"], report.get("not_read_first", {})  # which older reports have not
    counts = {
        **{f"left out: {reason} (first: {first[reason][0]})": count for reason, count in report["left_out"].items()},
        **{
            f"rows whose `{name}` is not read (first: {places[name]})": count
            for name, count in report.get("not_read", {}).items()
        },
        **{f"lines removed: {kind}": count for kind, count in report["lines_cleaned"].items()},
        "left out: near-duplicates": report["near_duplicates"],
        **{
            f"passages removed: they contain an item of {file}": count
            for file, count in report["benchmark_passages"].items()
        },
    }
    for what, count in counts.items():
        print(f"{count:>10,}  {what}")
