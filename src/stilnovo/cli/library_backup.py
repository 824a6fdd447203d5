"""`stilnovo library backup` and `restore`: a library with its conversations in one file, while a service runs on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from stilnovo.cli.common import AsJson, LibraryPath, emit
from stilnovo.cli.library_common import open_store
from stilnovo.errors import InputError, MissingExtra
from stilnovo.library.backup import back_up
from stilnovo.library.backup import restore as restore_library
from stilnovo.library.location import is_served
from stilnovo.library.store import Library, default_path
from stilnovo.progress import Progress, counted


def _file(library: Path | None, advice: str) -> Path:
    path = library or default_path()
    if is_served(path):
        raise InputError("A library on a PostgreSQL server is backed up and restored by the server.", "", advice)
    return path


def _new_file(library: Path) -> Path:
    """A file in this folder that does not exist, called by the library and the date."""
    stem = f"{library.stem}-{datetime.now(UTC).date().isoformat()}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.sqlite" for number in count(1))
    return next(path for path in map(Path, names) if not path.exists())


def _with_conversations(staged: Library) -> None:
    """Bring the conversations in a backup up to date, so that a running service finds its tables."""
    try:
        from stilnovo.serve.history import Conversations
    except MissingExtra:
        return  # no service is installed; one that is does so when it starts
    Conversations(staged).prepare()


def _shown(bar: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(done / max(total, 1), f"{done} of {total} {what}")


def backup(
    file: Annotated[
        Path | None, typer.Argument(help="The backup's file (default: named by the date, in this folder).")
    ] = None,
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Copy works and conversations to one file.

    A service may go on running on the library meanwhile. The index is left out, because it makes itself anew.
    """
    path = _file(library, "Run: pg_dump -Fc -f library.dump CONNECTION")
    open_store(path).close()  # an older format is migrated first
    target = file or _new_file(path)
    with Progress("backup", 1) as bar:
        held = back_up(path, target, _shown(bar, "pages"))
    size = target.stat().st_size
    print(
        f"Backup: {target} ({counted(held.works, 'work')}, {counted(held.conversations, 'conversation')}, {size / 2**20:.1f} MiB)"
    )
    emit(
        {
            "library": str(path), "backup": str(target), "bytes": size, "format": held.format, "works": held.works,
            "conversations": held.conversations,
        },
        as_json,
    )  # fmt: skip


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    library: LibraryPath = None,
    as_json: AsJson = False,
) -> None:
    """Replace works and conversations by those of a backup.

    What is replaced is copied beside the library first. A service may go on running on it and shows the new state.
    """
    path = _file(library, "Run: pg_restore -c -d CONNECTION library.dump")
    with Progress("restore", 1) as bar:
        held, copy = restore_library(file, path, _with_conversations, _shown(bar, "tables"))
    with Library.open(path) as store, Progress("index", 1) as bar:
        store.catch_up(_shown(bar, "works"))
    print(f"Restored: {counted(held.works, 'work')}, {counted(held.conversations, 'conversation')}, from {file}")
    if copy:
        print(f"What was there before: {copy}")
    emit(
        {
            "library": str(path), "restored": str(file), "copy": str(copy) if copy else None, "format": held.format,
            "works": held.works, "conversations": held.conversations,
        },
        as_json,
    )  # fmt: skip
