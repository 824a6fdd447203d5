"""Parse chapter numbers: IV, 4, quarto, decimosettimo."""

from __future__ import annotations

import re

from stilnovo.text.italian import fold

_VALUES = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"),
    (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_UNITS = ("prim", "second", "terz", "quart", "quint", "sest", "settim", "ottav", "non")
_JOINED = ("un", "du", "tre", "quattr", "cinqu", "sei", "sett", "ott", "nov")
_TEENS = ("undic", "dodic", "tredic", "quattordic", "quindic", "sedic", "diciassett", "diciott", "diciannov")
_TENS = ("vent", "trent", "quarant", "cinquant", "sessant", "settant", "ottant", "novant")


def roman(number: int) -> str:
    """Roman numeral of a number up to 3999."""
    text = ""
    for value, letters in _VALUES:
        while number >= value:
            text, number = text + letters, number - value
    return text


def _ordinals() -> dict[str, int]:
    table = {unit: value for value, unit in enumerate(_UNITS, start=1)}
    table |= {"decim": 10, "vigesim": 20, "undecim": 11, "duodecim": 12, "decimottav": 18}
    table |= {f"{teen}esim": value for value, teen in enumerate(_TEENS, start=11)}
    table |= {f"decimo{unit}": 10 + value for value, unit in enumerate(_UNITS, start=1)}
    for tens, stem in enumerate(_TENS, start=2):
        table[f"{stem}esim"] = tens * 10
        table |= {f"{stem}esimo{unit}": tens * 10 + value for value, unit in enumerate(_UNITS, start=1)}
        vowel = "i" if stem == "vent" else "a"
        table |= {
            f"{stem}{'' if unit[0] in 'uo' else vowel}{unit}esim": tens * 10 + value
            for value, unit in enumerate(_JOINED, start=1)
        }
    return table


_ORDINALS = _ordinals()
#: DI and MI are words before they are numbers.
_ROMANS = {roman(number): number for number in range(1, 4000) if number not in (501, 1001)}

_ACCENTED = str.maketrans({"e": "[eèé]", "i": "[iìí]", "u": "[uùú]"})
#: Matches a numeral in a heading: Roman, Arabic or an ordinal of one or two words.
ORDINAL = f"(?:{'|'.join(sorted(_ORDINALS, key=len, reverse=True)).translate(_ACCENTED)})[oa]"
PATTERN = rf"(?:[IVXLCDM]+|\d{{1,3}}|(?i:{ORDINAL}(?:\s+{ORDINAL})?))"


_LEADING = re.compile(rf"\s*({PATTERN})(?=[\s.:)—–-]|$)[\s.:)—–-]*")


def value(numeral: str) -> int | None:
    """Parse *IV*, *4*, *quarto* or *DECIMO QUARTO*; None when it is no number."""
    if numeral.isdigit():
        return int(numeral) or None
    if numeral in _ROMANS:
        return _ROMANS[numeral]
    first, _, rest = fold(numeral).partition(" ")
    tens = _ORDINALS.get(first[:-1])
    if tens is None or not rest.strip():
        return tens
    unit = _ORDINALS.get(rest.strip()[:-1])
    return tens + unit if unit is not None and tens % 10 == 0 and unit < 10 else tens


def leading(text: str) -> tuple[int | None, str]:
    """Split a heading into its leading number and the rest: *II. La trappola* → (2, *La trappola*)."""
    match = _LEADING.match(text)
    number = value(match.group(1)) if match else None
    return (number, text[match.end() :].strip()) if match and number else (None, text.strip())
