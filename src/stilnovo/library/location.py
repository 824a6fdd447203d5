"""Open a library by path or by PostgreSQL connection string."""

from __future__ import annotations

import re
from pathlib import Path

from stilnovo.library.store import Library

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
