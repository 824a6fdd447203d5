"""`stilnovo bundle`: a run in one file, and what another machine makes of it.

Unusual: `stilnovo bundle RUN` is `stilnovo bundle make RUN`; a folder that is called `make` or `check` is named by its path.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from stilnovo.cli.common import HELP_OPTIONS, AsJson, GroupedCommand, command_group, emit, note, show

if TYPE_CHECKING:
    from stilnovo.bundle.check import BundleCheck
    from stilnovo.bundle.repeat import BundleRepetition

_SHOWN = 24  # numbers of a repetition that the table shows; all are in --json


class RunFirst(TyperGroup):
    """Commands of which the first is meant where none is named."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; the first one for anything else, which is its argument."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "make")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as always; what is neither a command nor a question for help is what the first command works on."""
        if args and args[0] not in self.commands and args[0] not in HELP_OPTIONS["help_option_names"]:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = command_group("Pack a run into one file that others can check and repeat.", RunFirst)


@app.command("make", cls=GroupedCommand)
def make(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training, an evaluation, a comparison or a sweep.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The bundle (default: NAME.stilnovo.zip in this folder).")
    ] = None,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Pack the files that the run read, not only their hashes.")
    ] = False,
    with_adapter: Annotated[bool, typer.Option("--with-adapter", help="Pack the weights of its adapter.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pack a run: recipe or settings, hashes of data and model, environment, seeds, results, code version.

    The same run makes the same bytes. Paths, host names and keys of this machine are left out, and so are the model's weights.
    """  # fmt: skip
    from stilnovo.bundle.contents import contents_of
    from stilnovo.bundle.zip_file import write_bundle
    from stilnovo.progress import bytes_text, counted
    from stilnovo.runlog import sha256_file

    path = out or Path(f"{run.resolve().name}.stilnovo.zip")
    contents = contents_of(run, with_data=with_data, with_adapter=with_adapter)
    write_bundle(path, contents.members)
    for terms in contents.facts.get("licences", []) if with_data else ():
        note(f"Licence of what is packed: {terms['of']}: {terms['name']}")
    absent = [
        entry["use"] if entry["kind"] == "adapter" else f"{entry['use']} {entry['given']}"
        for entry in contents.facts["data"]
        if entry["kind"] != "built in" and not entry["included"]
    ]
    members = [*contents.members, "MANIFEST.json"]
    print(f"{path}: {counted(len(members), 'member')}, {bytes_text(path.stat().st_size)}")
    if absent:
        print(f"By hash only: {', '.join(absent)}")
    print(f"To check it: stilnovo bundle check {path}")
    figures = {
        "bundle": str(path),
        "kind": contents.facts["kind"],
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
    emit({**figures, "members": sorted(members), "by_hash_only": absent}, as_json)


@app.command("check", cls=GroupedCommand)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Where data and adapters are looked for, by hash (may be given several times)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model here; a hub id may be fetched (default: as recorded, if here).",
        ),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Repeat the run, and compare number by number.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of a training the first N steps only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say line by line what of a bundle can be repeated here; with `--run` repeat it.

    Exit status 0: it can be repeated, or was (to the last bit or within tolerance); 1: it cannot, or was not; 2: bad input.
    """  # fmt: skip
    from stilnovo.bundle.check import check_bundle
    from stilnovo.bundle.found_files import FoundFiles
    from stilnovo.bundle.repeat import repeat
    from stilnovo.bundle.zip_file import OpenedBundle
    from stilnovo.errors import InputError
    from stilnovo.progress import Progress
    from stilnovo.runlog import cache_folder
    from stilnovo.scoring.answer_cache import AnswerCache

    if steps is not None and not run:
        raise InputError("--steps needs --run.", next="Add --run, or leave --steps out.")
    found, bundle, repetition = FoundFiles(data or []), OpenedBundle(file), None
    try:
        with AnswerCache(cache_folder(), note) as answers:
            checked = check_bundle(bundle, found, model, answers.file_sha256)
        show(_check_text(checked, len(bundle.members)))
        if run and not checked.obstacles:
            with Progress("repeat", 1) if checked.facts["kind"] == "evaluation" else nullcontext() as bar:
                repetition = repeat(
                    checked, bundle, found, steps=steps, note=note,
                    progress=lambda what, done, total: bar.update(done / total, what) if bar else None,
                )  # fmt: skip
            show(_repetition_text(repetition, checked))
    finally:
        bundle.close()
    emit(_figures(checked, repetition), as_json)
    if checked.obstacles or (repetition is not None and repetition.outcome == "not repeated"):
        raise typer.Exit(1)


def _check_text(checked: BundleCheck, members: int) -> list[object]:
    from stilnovo.report.page import text_table

    facts = checked.facts
    title = f"{facts['name']}: {facts['kind']}, made {facts['date']}; all {members:,} members are whole"
    rows = [(line.what, line.recorded, line.here, line.state) for line in checked.lines]
    headings = ("what", "recorded", "here", "")
    parts: list[object] = [text_table(title, headings, rows, left=headings)]
    if checked.obstacles:
        parts.append(
            f"It cannot be repeated here: {'; '.join(f'{line.what}: {line.here}' for line in checked.obstacles)}"
        )
    elif checked.changed:
        parts.append(f"It can be repeated; other last digits may come of: {', '.join(checked.changed)}.")
    else:
        parts.append("It can be repeated, to the last bit as far as is known.")
    return parts


def _repetition_text(repetition: BundleRepetition, checked: BundleCheck) -> list[object]:
    from stilnovo.report.page import text_table

    numbers = list(repetition.numbers)
    worst = [number for number in numbers if number.outcome != "bit-equal"]
    shown = numbers if len(numbers) <= _SHOWN else [*numbers[: _SHOWN // 3], *worst[: _SHOWN // 3], numbers[-1]]
    rows = [
        (
            number.name, *("none" if value is None else f"{value:.10g}" for value in (number.recorded, number.here)),
            f"{number.tolerance:.2g}", number.outcome,
        )
        for number in dict.fromkeys(shown)
    ]  # fmt: skip
    equal = len(numbers) - len(worst)
    caption = f"{equal:,} of {len(numbers):,} numbers are equal to the last bit"
    headings = ("number", "recorded", "here", "tolerance", "")
    why = f" Different here: {', '.join(checked.changed)}." if worst and checked.changed else ""
    said = {
        "bit-equal": "Repeated, to the last bit.", "within tolerance": f"Repeated, within tolerance.{why}",
        "not repeated": f"Not repeated.{why}",
    }[repetition.outcome]  # fmt: skip
    return [text_table(caption, headings, rows, left=("number", "")), *repetition.notes, said]


def _figures(checked: BundleCheck, repetition: BundleRepetition | None) -> dict[str, Any]:
    from dataclasses import asdict

    figures: dict[str, Any] = {
        "kind": checked.facts["kind"], "name": checked.facts["name"], "repeatable": not checked.obstacles,
        "different": checked.changed, "lines": [asdict(line) for line in checked.lines], "outcome": None,
    }  # fmt: skip
    if repetition is not None:
        numbers = [{**asdict(number), "outcome": number.outcome} for number in repetition.numbers]
        figures |= {"outcome": repetition.outcome, "numbers": numbers, "notes": list(repetition.notes)}
    return figures
