"""Open a library: by path, by PostgreSQL connection string, the user's own, or the built-in sample."""

from __future__ import annotations

import re
from pathlib import Path

from stilnovo.errors import InputError
from stilnovo.io.sample import library_texts
from stilnovo.library.read import read
from stilnovo.library.store import Library, default_path

# A path object has made one slash of two.
_SERVED = re.compile(r"postgres(?:ql)?:/+")


def is_served(path: Path | str) -> bool:
    """Whether this is a PostgreSQL connection string."""
    return bool(_SERVED.match(str(path)))


def open_library(path: Path | str) -> Library:
    """Open a library, creating it where there is none.

    Raises:
        InputError: the file is something else, or the server cannot be reached.
        MissingExtra: psycopg is not installed.
    """
    if not is_served(path):
        return Library.open(Path(path))
    from stilnovo.library.postgres import PostgresLibrary

    return PostgresLibrary.connect(_SERVED.sub("postgresql://", str(path)))


def sample_library() -> Library:
    """Build the sample library, the project's own novella and poem, in memory (a fraction of a second)."""
    library = Library.open(None)
    for path in library_texts():
        library.add(read(path))
    return library


def open_or_sample(path: Path | None) -> tuple[Library, bool]:
    """Open the library at `path`, else the user's own, else the sample; also returns whether it is the sample.

    Raises:
        InputError: a library that was named does not exist.
    """
    if path is not None and is_served(path):
        return open_library(path), False
    if path is not None and not path.exists():
        raise InputError(f"There is no library {path}.", next=f"Make it: stilnovo library add FILE --library {path}")
    own = path or default_path()
    if is_served(own) or own.exists():
        library = open_library(own)
        if path is not None or library.works():
            return library, False
        library.close()
    return sample_library(), True
