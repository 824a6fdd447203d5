"""Decode a file of text, of whatever age: Unicode, Windows, DOS, Macintosh.

Files on people's disks do not say how they are written. UTF-8 proves itself. In every other encoding each byte is some
letter, so that the right one has to be told from what the letters do: in Italian an accented letter ends a word
(*città*, *perché*), a guillemet opens or closes one, and a box-drawing sign or a lone florin does neither.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

from stilnovo.errors import InputError

_MAGIC = {b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive (EPUB, Word)", b"\x1f\x8b": "gzip", b"{\\rtf": "RTF"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\x80-\x9f]")
#: The encodings of eight bits that are told apart, the commonest first.
EIGHT_BIT = ("cp1252", "iso8859-15", "cp850", "cp437", "mac_roman")
#: Places of accented letters and signs that are looked at; the rest of a novel is written like its beginning.
_SEEN = 20_000
_HIGH = re.compile(rb"(?s)(?<=(.))[\x80-\xff](?=(.))")
_DOUBLE = re.compile(r"[ÂÃâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{1,2}")


class Decoded(NamedTuple):
    """The text of a file, and what a person should know about it, in plain sentences."""

    text: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, name: str) -> str:
    """Decode bytes to text with `\\n` line ends, NFC, no byte-order mark.

    Raises:
        InputError: binary, empty, in no encoding that can be told, or UTF-8 with stray bytes (a damaged file, which must
            not be read as Latin-1).
    """
    return decoded(data, name).text


def decoded(data: bytes, name: str) -> Decoded:
    """Decode as `decode` does, and say what was repaired."""
    wide = _wide(data)
    if data.startswith(tuple(_MAGIC)) or (b"\x00" in data and not wide):
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "binary data")
        raise InputError(f"{name} is not plain text.", f"It is {kind}.", "Save it as plain text (.txt) and add that.")
    text = data.decode(wide, errors="replace") if wide else _decode_8_bit(data, name)
    text = text.removeprefix("\ufeff")
    if "\r\r\n" in text:  # doubled by a transfer
        text = re.sub(r"\r+\n", "\n", text)
    for line_end in ("\r\n", "\r", "\f", "\x85"):
        text = text.replace(line_end, "\n")
    if not text.strip():
        raise InputError(f"{name} is empty.", "It holds no text.", "Choose another file.")
    text, repaired = _repair_double(text)
    strange = len(_CONTROL.findall(text))
    if strange * 200 > len(text):
        raise InputError(
            f"{name} is not plain text.", f"It holds {strange} control characters.", "Save it as UTF-8 text."
        )
    warnings = (f"{repaired} letters had been encoded twice (Ã¨ for è) and were repaired.",) if repaired else ()
    return Decoded(unicodedata.normalize("NFC", text), warnings)


def _wide(data: bytes) -> str:
    """UTF-16 or UTF-32 with a mark, or UTF-16 whose Latin letters leave every second byte zero; empty otherwise."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = data[:4096]
    half = len(sample) // 2
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    if half >= 4 and len(data) % 2 == 0 and max(odd, even) >= 0.7 * half and min(odd, even) <= 0.02 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _decode_8_bit(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        pairs = len(re.findall(rb"[\xc3\xe2][\x80-\xbf]", data))
        if pairs * 2 > len(re.findall(rb"[\x80-\xff]", data)) * 0.8:
            raise InputError(
                f"{name} is damaged: it is UTF-8 with bytes that do not belong.",
                f"Byte 0x{data[error.start]:02x} at offset {error.start}.",
                "Save it again as UTF-8, or take another copy.",
            ) from error
    return data.decode(_eight_bit(data, name), errors="replace")


def _eight_bit(data: bytes, name: str) -> str:
    """The encoding in which accented letters and signs stand where Italian has them.

    Raises:
        InputError: two encodings fit, and differ.
    """
    seen: Counter[tuple[int, int, int]] = Counter()
    padded = b" " + data + b" "
    for count, match in enumerate(_HIGH.finditer(padded)):
        if count == _SEEN:
            break
        seen[match.group(1)[0], match.group()[0], match.group(2)[0]] += 1
    scores = {encoding: sum(_fit(encoding, *place) * n for place, n in seen.items()) for encoding in EIGHT_BIT}
    best = max(EIGHT_BIT, key=lambda encoding: scores[encoding])
    usual = max(EIGHT_BIT[:2], key=lambda encoding: scores[encoding])
    total = sum(seen.values())
    if scores[best] < -0.25 * total:
        raise InputError(
            f"{name}: its encoding cannot be told.",
            f"Its {total} letters beyond ASCII are no Italian in {', '.join(EIGHT_BIT)}.",
            "Save it as UTF-8 text.",
        )
    if scores[usual] >= scores[best]:
        return "cp1252" if any(0x80 <= byte <= 0x9F for _, byte, _ in seen) else usual
    rivals = [
        encoding for encoding in EIGHT_BIT
        if encoding != best and scores[encoding] > scores[best] - 0.15 * total
        and sum(n for (_, byte, _), n in seen.items() if _differ(byte, encoding, best)) > 0.1 * total
    ]  # fmt: skip
    if rivals and scores[best] < 0.6 * total:
        raise InputError(
            f"{name}: its encoding cannot be told.",
            f"Its {total} accented letters make as much sense in {' as in '.join([best, *rivals])}.",
            "Save it as UTF-8 text.",
        )
    return best


def _differ(byte: int, first: str, second: str) -> bool:
    letter = bytes([byte])
    return letter.decode(first, errors="replace") != letter.decode(second, errors="replace")


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_BEFORE_OPENING, _AFTER_CLOSING = frozenset(" \n\r\t('\"-[_"), frozenset(" \n\r\t.,;:!?)'\"-]_")


def _fit(encoding: str, before: int, byte: int, after: int) -> float:
    """How well a byte's meaning in an encoding fits between its neighbours: 1 as in Italian, 0 anything, -1 not."""
    try:
        char = bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return -1.0
    left = chr(before) if before < 0x80 else "\x80"
    right = chr(after) if after < 0x80 else "\x80"
    inside = right in _LETTERS
    if char in "àèéìòùÀÈÉÌÒÙ":
        return _fit_accented(char, left, right)
    if char in "«“„‹":
        return 1.0 if left in _BEFORE_OPENING and not right.isspace() else -0.2 if left in _LETTERS else 0.2
    if char in "»”›":
        return 1.0 if not right or (right in _AFTER_CLOSING and left not in " \n") else -0.2 if inside else 0.2
    if char in "’‘":
        return 1.0 if left in _LETTERS or inside else 0.0
    if char == "…":  # a cut word seldom ends in a consonant
        return -0.5 if left in _LETTERS and (inside or left.lower() not in "aeiou") else 0.5
    if char in "—–\xa0°·•©":
        return 0.5 if not (left in _LETTERS and inside) else -0.5
    if char in "êîôûâáíóúäëïöüçñæœÇÄÖÜÁÂÊÍÓÚÎÔÛËÏÑ":
        strange = "\x80" in (left, right) or (char.isupper() and left.islower())
        return -0.7 if strange else 0.0 if left not in _LETTERS or inside else -0.3
    return -1.0


def _fit_accented(char: str, left: str, right: str) -> float:
    if char.isupper():
        return 1.0 if not left.islower() else -0.5
    if left == "\x80":  # two accented letters in a row are no Italian
        return -0.5
    if right in _LETTERS or right == "\x80":
        return 0.2 if left in _LETTERS else -0.3
    return -0.5 if left.isdigit() else 1.0


def _repair_double(text: str) -> tuple[str, int]:
    """Repair UTF-8 that was taken for Windows text and encoded again (*perchÃ©*); returns the text and how many letters.

    Only where hardly any letter is accented otherwise: a text that speaks of Ã© stays as it is.
    """
    pairs = _DOUBLE.findall(text) if "Ã" in text or "â€" in text else []
    if not pairs or len(pairs) * 2 < sum(text.count(letter) for letter in "àèéìòùÈ"):
        return text, 0
    repaired = 0

    def mend(match: re.Match[str]) -> str:
        nonlocal repaired
        raw = b"".join(char.encode("cp1252") if ord(char) > 0xFF else char.encode("latin-1") for char in match.group())
        try:
            letter = raw.decode("utf-8")
        except UnicodeDecodeError:
            return match.group()
        repaired += 1
        return letter

    whole = _DOUBLE.sub(mend, text)
    return (whole.replace("Ã ", "à ") if repaired else whole), repaired
