"""Parse memory sizes (`8GB`, `7.5GiB`, `24576MiB`) to bytes.

A card sold as 8 GB has 8 GiB, and so has memory sold in GB: both spellings mean 2³⁰ here.
"""

from __future__ import annotations

import re

from stilnovo.errors import InputError

_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def bytes_of(text: str) -> int:
    """The size in bytes.

    Raises:
        InputError: when it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt])(?:i?b)?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{text!r} is not a size.", next="Write 8GB, 7.5GiB or 12000MB.")
    return round(float(match[1].replace(",", ".")) * _UNITS[match[2].lower()])
