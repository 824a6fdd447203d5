"""Decode bytes to text: detect the encoding of an old file, refuse what is no text."""

from __future__ import annotations

import codecs
import re
import unicodedata

from stilnovo.errors import InputError

_MAGIC = {b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive (EPUB, Word)", b"\x1f\x8b": "gzip", b"{\\rtf": "RTF"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\x80-\x9f]")


def decode(data: bytes, name: str) -> str:
    """Decode bytes to text with `\\n` line ends, NFC, no byte-order mark.

    Raises:
        InputError: binary, empty, or UTF-8 with stray bytes (a damaged file, which must not be read as Latin-1).
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "binary data")
    if data.startswith(tuple(_MAGIC)) or (b"\x00" in data and not utf16):
        raise InputError(f"{name} is not plain text.", f"It is {kind}.", "Save it as plain text (.txt) and add that.")
    text = data.decode("utf-16", errors="replace") if utf16 else _decode_8_bit(data, name)
    text = (
        text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x85", "\n")
    )
    if not text.strip():
        raise InputError(f"{name} is empty.", "It holds no text.", "Choose another file.")
    strange = len(_CONTROL.findall(text))
    if strange * 200 > len(text):
        raise InputError(
            f"{name} is not plain text.", f"It holds {strange} control characters.", "Save it as UTF-8 text."
        )
    return unicodedata.normalize("NFC", text)


def _decode_8_bit(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        good = len(re.findall(rb"[\xc3\xe2][\x80-\xbf]", data))
        high = sum(byte >= 0x80 for byte in data)
        if good * 2 > high * 0.8:
            raise InputError(
                f"{name} is damaged: it is UTF-8 with bytes that do not belong.",
                f"Byte 0x{data[error.start]:02x} at offset {error.start}.",
                "Save it again as UTF-8, or take another copy.",
            ) from error
    windows = any(0x80 <= byte <= 0x9F for byte in set(data))
    try:
        return data.decode("cp1252" if windows else "latin-1")
    except UnicodeDecodeError:
        return data.decode("latin-1")
