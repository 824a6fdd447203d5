"""Files as streams of bytes, decompressed on the way, and as UTF-8 text; a file that is neither is refused with the place."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, stop

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow

    stream: Any = pyarrow.input_stream(path, compression="zstd")
    return BufferedReader(stream)


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd,
}  # fmt: skip
COMPRESSIONS = tuple(_OPENERS)


def uncompressed_name(path: Path) -> str:
    """The file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def suffix_of(path: Path) -> str:
    """The suffix that tells a file's kind, in lower case, looking through that of its compression."""
    return Path(uncompressed_name(path)).suffix.lower()


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """A file for reading, decompressed on the way; errors while it is read are its errors.

    Raises:
        InputError: when it cannot be opened, is damaged, ends too early, or as a whole is a `BadRow`.
    """
    opener = _OPENERS.get(path.suffix.lower(), partial(open, mode="rb"))
    try:
        with opener(path) as stream:
            yield stream
    except BadRow as bad:
        stop(str(path), bad)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path} cannot be opened.", error.strerror or type(error).__name__) from error
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that ends too early or is damaged."""
    why = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return InputError(f"{path} is damaged or not whole.", why, "Get it again.")


def bad_bytes(byte: int, place: str, encoding: str, name: str) -> BadRow:
    """What is said of bytes that are not UTF-8."""
    advice = f"If it is {encoding}: iconv -f {encoding} -t utf-8 {name} > utf8-{name}"
    return BadRow("invalid UTF-8", f"byte 0x{byte:02x} at {place}", advice)


def head_fault(head: bytes, path: Path) -> BadRow | None:
    """What the first bytes of a file say against it: UTF-16, UTF-32 or binary content."""
    encoding = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)
    if encoding:
        return bad_bytes(head[0], "offset 0, line 1", encoding, uncompressed_name(path))
    at = head.find(b"\0")
    return None if at < 0 else BadRow("binary file", f"a zero byte at offset {at}", "Take it out of the list.")


def decode(raw: bytes, path: Path) -> str:
    """A file's UTF-8 text, with or without BOM, line ends as `\\n`.

    Raises:
        BadRow: for a binary file or another encoding, with the place of the byte.
    """
    if fault := head_fault(raw, path):
        raise fault
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + len(raw) - len(error.object)  # the codec counts from behind the BOM
        line = raw.count(b"\n", 0, at) + 1
        raise bad_bytes(raw[at], f"offset {at}, line {line}", "latin1", uncompressed_name(path)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file one by one, line ends as `\\n`.

    Raises:
        BadRow: for a binary file or another encoding, with the place of the byte.
    """
    offset = 0
    for number, line in enumerate(stream, 1):
        if number == 1 and (fault := head_fault(line, path)):
            raise fault
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            place = f"offset {offset + line.index(error.object) + error.start}, line {number}"
            raise bad_bytes(error.object[error.start], place, "latin1", uncompressed_name(path)) from error
        offset += len(line)
