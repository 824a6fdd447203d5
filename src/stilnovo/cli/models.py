"""`stilnovo models`: the models that have a short name, which of them are installed, and the quantised bases that are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.common import AsJson, emit, show
from stilnovo.errors import InputError
from stilnovo.hub import SHORT_NAMES, smollm2_path
from stilnovo.progress import bytes_text

if TYPE_CHECKING:
    from stilnovo.model.kept_bases import KeptBase, KeptBases

ShowCache = Annotated[bool, typer.Option("--cache", help="List the quantised bases that are kept, with their sizes.")]
Check = Annotated[bool, typer.Option("--check", help="Read each of them and compare its checksum.")]
Prune = Annotated[bool, typer.Option("--prune", help="Remove them; what is opened again is quantised again.")]
UnusedDays = Annotated[
    int, typer.Option("--unused-days", min=0, metavar="N", help="With --prune: only those not opened for N days.")
]


def models(
    cache: ShowCache = False, check: Check = False, prune: Prune = False, unused_days: UnusedDays = 0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List models with a short name, or the quantised bases that are kept.

    Any local GGUF file, Hugging Face folder or Hugging Face id can be given to `--model` as well.

    A big model is quantised when it is first opened; the result is kept in `$STILNOVO_BASES` (default: `bases` in
    `$STILNOVO_CACHE` or the user's cache folder; `none`: nowhere) and opened in seconds from then on.
    """
    if cache or check or prune:
        _bases(check, prune, unused_days, as_json)
        return
    path = smollm2_path()
    for name, what in SHORT_NAMES.items():
        print(f"{name:<12}{what}" + (f"\n{'':<12}here: {path}" if name == "smollm2" and path else ""))
    print("Also: any local GGUF file, local Hugging Face folder, or Hugging Face id of a Llama, Mistral or Qwen2.")
    emit({"models": {**SHORT_NAMES}, "smollm2_path": str(path) if path else None}, as_json)


def _bases(check: bool, prune: bool, unused_days: int, as_json: bool) -> None:
    from stilnovo.model.kept_bases import KeptBases, bases_folder

    folder = bases_folder()
    if folder is None:
        print("No quantised bases are kept: $STILNOVO_BASES is none.")
        emit({"folder": None, "bases": []}, as_json)
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder} is a file, and no folder of kept bases.",
            "It is where $STILNOVO_BASES or the cache folder says that they lie.",
            "Name a folder in $STILNOVO_BASES, or none.",
        )
    kept = KeptBases(folder)
    if prune:
        removed = kept.prune(unused_days * 86_400)
        for path, size in removed:
            print(f"Removed {path.name} ({bytes_text(size)}).")
        print(f"{bytes_text(sum(size for _, size in removed))} freed in {folder}.")
        emit(
            {"folder": str(folder), "removed": [{"file": str(path), "bytes": size} for path, size in removed]}, as_json
        )
        return
    rows = [_row(base, kept, check) for base in kept.bases()]
    _show(rows, str(folder))
    emit({"folder": str(folder), "bases": rows}, as_json)


def _row(base: KeptBase, kept: KeptBases, check: bool) -> dict[str, Any]:
    from datetime import datetime

    row = {
        "model": base.record.model, "scheme": base.record.scheme, "bytes": base.path.stat().st_size, "file": str(base.path),
        "written": base.record.written, "used": datetime.fromtimestamp(base.used).astimezone().isoformat(timespec="seconds"),
        "current": base.current,
    }  # fmt: skip
    return {**row, "whole": kept.whole(base)} if check else row


def _show(rows: list[dict[str, Any]], folder: str) -> None:
    from rich.table import Table

    if not rows:
        print(f"No quantised bases are kept in {folder}.")
        return
    table = Table("model", "scheme", "size", "last opened", "state")
    for row in rows:
        state = "current" if row["current"] else "its model changed or is gone"
        if "whole" in row:
            state += ", checksum right" if row["whole"] else ", damaged: the next opening writes it anew"
        table.add_row(row["model"], row["scheme"], bytes_text(row["bytes"]), row["used"][:16].replace("T", " "), state)
    show([table, f"{bytes_text(sum(row['bytes'] for row in rows))} in {folder}"])
