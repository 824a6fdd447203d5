"""Make the vectors of a library while other things go on: one process at a time, to be continued at any point.

`python -m stilnovo.library.embedding FILE` is the process that `stilnovo library add` leaves behind. It has the lowest
priority but one, takes what is added meanwhile, and writes what went wrong, if anything, to `FILE.embedding.log`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stilnovo.folderlock import is_held, locked
from stilnovo.library.embedders import default_embedder
from stilnovo.library.store import Library

#: Seconds between two looks at the progress of another process.
_LOOK = 0.5
_NICE = 18


def _folder(path: Path) -> Path:
    """The folder that is locked by who makes vectors; it is there no longer than that."""
    return path.with_name(f"{path.name}.embedding")


def log_file(path: Path) -> Path:
    """What a process left to itself wrote when it failed."""
    return path.with_name(f"{path.name}.embedding.log")


def is_running(path: Path | None) -> bool:
    """Whether a process makes the vectors of a library just now."""
    return path is not None and bool(is_held(_folder(path)))


def embed(library: Library, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
    """Make the missing vectors of the library's embedder; returns how many were made here.

    While another process makes them, its progress is told. An exception that `progress` raises ends it; what is made is
    stored.
    """
    assert library.embedder is not None, "set the embedder first"
    if library.path is None:
        return library.embed(progress)
    while is_running(library.path):
        progress(*library.embedded(library.embedder.name))
        time.sleep(_LOOK)
    with locked(_folder(library.path), "the making of vectors"):
        return library.embed(progress)


def start(path: Path) -> None:
    """Start a process that makes the missing vectors of a library; it outlives this one. Only one runs at a time."""
    if is_running(path):
        return  # it takes what was added, too
    command = [sys.executable, "-m", "stilnovo.library.embedding", str(path)]
    with log_file(path).open("wb") as log:
        _STARTED.append(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=path.parent
            )
        )


#: Kept, or Python would warn that nobody waits for them.
_STARTED: list[subprocess.Popen[bytes]] = []


def main(path: Path) -> None:
    """Make the missing vectors of the default embedding model."""
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such thing
        os.nice(_NICE)
    with Library.open(path) as library:
        library.embedder = default_embedder()
        embed(library)
    log_file(path).unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
