"""The files that a run reads, by size and hash, so that another machine can tell whether it has the same ones.

A path may be gone or hold other rows by the time somebody asks; what was read is known by what is written down then. Names
are below the path that was given, never the path itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stilnovo.data.corpora import locate
from stilnovo.data.shards import is_prepared
from stilnovo.io.rows import files_of
from stilnovo.io.sample import NAMED
from stilnovo.recipe import Recipe
from stilnovo.runlog import sha256_file


def input_files(names: Iterable[str | Path], use: str) -> list[dict[str, Any]]:
    """List what each name of a run's inputs stands for.

    Args:
        names: Files, folders, prepared corpora, known corpora or samples, as a recipe names them.
        use: What they are read for.

    Returns:
        One entry a name, in order: `use`, `given` (its last part), `kind` (`built in`, `prepared corpus` or `files`) and
        `files`, each with `name` below it, `bytes` and `sha256`; none for what is a part of the program.

    Raises:
        InputError: one of them is not there, or is of a kind that is not read.
    """
    return [_entry(str(name), use) for name in names]


def recipe_inputs(recipe: Recipe) -> list[dict[str, Any]]:
    """List what a training by this recipe reads: data, rehearsal, and texts that its guard protects."""
    uses = (
        (recipe.data.paths, "training data"),
        (recipe.data.rehearsal, "rehearsal"),
        (recipe.guard.texts if recipe.guard.every else (), "protected text"),
    )
    return [entry for names, use in uses for entry in input_files(names, use)]


def _entry(name: str, use: str) -> dict[str, Any]:
    known: dict[str, Any] = {"use": use, "given": Path(name).name or name}
    if name in NAMED:
        return {**known, "kind": "built in", "files": []}
    path = Path(name).expanduser()
    if is_prepared(path):
        whole = sorted(part for part in path.rglob("*") if part.is_file() and not part.name.startswith("."))
        return {**known, "kind": "prepared corpus", "files": [file_entry(part, path) for part in whole]}
    files = files_of(locate([name], agree=None))
    return {**known, "kind": "files", "files": [file_entry(part, path if path.is_dir() else None) for part in files]}


def file_entry(path: Path, below: Path | None = None) -> dict[str, Any]:
    """Name, size and hash of one file."""
    name = path.relative_to(below).as_posix() if below is not None and path.is_relative_to(below) else path.name
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
