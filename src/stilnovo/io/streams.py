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
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any

from stilnovo.errors import reported
from stilnovo.io.bad_rows import BadRow, stop

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def _zstd(source: Path | IO[bytes]) -> IO[bytes]:
    import pyarrow

    return BufferedReader(pyarrow.input_stream(source, compression="zstd"))


_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd,
}  # fmt: skip
COMPRESSIONS = tuple(_OPENERS)


def uncompressed_name(path: Path) -> str:
    """The file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def suffix_of(path: Path) -> str:
    """Suffix that decides a file's format, in lower case, without that of its compression."""
    return Path(uncompressed_name(path)).suffix.lower()


def decompressed(raw: IO[bytes], path: Path) -> Any:
    """Decompress an open file as its name says; as it is where the name says nothing."""
    opener = _OPENERS.get(path.suffix.lower())
    return raw if opener is None else opener(raw)


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """Open a file for reading, decompressed; errors while reading are reported as errors of that file.

    Raises:
        InputError: when it cannot be opened, is damaged, ends too early, or as a whole is a `BadRow`.
    """
    opener = _OPENERS.get(path.suffix.lower(), partial(open, mode="rb"))
    try:
        with (
            reported(
                f"{path} is damaged or not whole.", "Get it again.",
                errors=(EOFError, OSError, ValueError, zlib.error, lzma.LZMAError),
            ),
            reported(
                f"{path} cannot be opened.", errors=(FileNotFoundError, IsADirectoryError, PermissionError)
            ),
            opener(path) as stream,
        ):  # fmt: skip
            yield stream
    except BadRow as bad:
        stop(str(path), bad)


def _bad_bytes(byte: int, place: str, encoding: str, path: Path) -> BadRow:
    iconv = "iconv -f {0} -t utf-8 {1} > utf8-{1}".format(encoding, uncompressed_name(path))
    return BadRow("invalid UTF-8", f"byte 0x{byte:02x} at {place}", f"If it is {encoding}: {iconv}")


def check_head(head: bytes, path: Path) -> None:
    """Refuse a file by its first bytes.

    Raises:
        BadRow: for UTF-16, UTF-32 or binary content.
    """
    if encoding := next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None):
        raise _bad_bytes(head[0], "offset 0, line 1", encoding, path)
    if (at := head.find(b"\0")) >= 0:
        raise BadRow("binary file", f"a zero byte at offset {at}", "Take it out of the list.")


def decode(raw: bytes, path: Path) -> str:
    """Decode a UTF-8 file, with or without BOM, line ends as `\n`.

    Raises:
        BadRow: for a binary file or another encoding, with the place of the byte.
    """
    check_head(raw, path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "".join(text_lines(BytesIO(raw), path))  # raises, with the place
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Iterate over the lines of a UTF-8 file, line ends as `\n`.

    Raises:
        BadRow: for a binary file or another encoding, with the place of the byte.
    """
    offset = 0
    for number, line in enumerate(stream, 1):
        if number == 1:
            check_head(line, path)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            place = f"offset {offset + line.index(error.object) + error.start}, line {number}"
            raise _bad_bytes(error.object[error.start], place, "latin1", path) from error
        offset += len(line)
