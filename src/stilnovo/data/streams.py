"""Files as streams of bytes, packed or not, and the error for one that is not whole."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import IO, cast

from stilnovo.errors import InputError


def open_stream(path: Path) -> IO[bytes]:
    """A file for reading, unpacked on the way when it is `.gz` or `.bz2`."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return cast("IO[bytes]", bz2.open(path, "rb")) if path.suffix == ".bz2" else path.open("rb")


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that ends too early or is damaged."""
    why = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return InputError(f"{path} is damaged or not whole.", why, "Fetch it again.")
