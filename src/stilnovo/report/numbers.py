"""Formatting of numbers for pages and terminal tables.

A figure and its unit are held together by a narrow no-break space; minus is a minus sign; what is not finite is "–".
"""

from __future__ import annotations

import math
import re
from typing import TypeGuard

from stilnovo.progress import bytes_text, seconds_text

MISSING = "–"
NARROW = "\u202f"
_LONGEST = 1e12
# Control characters (a terminal would obey them), lone surrogates (UTF-8 cannot hold them) and what XML forbids; tab and newline stay.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Normalise line ends to `\n` and replace characters that cannot be shown by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def finite(value: float | None) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return value is not None and math.isfinite(value)


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether an axis can show the number: finite, and not absurdly large."""
    return finite(value) and abs(value) < _LONGEST


def decimal(value: float | None, digits: int = 3, unit: str = "") -> str:
    """Format a number with a fixed count of decimals, thousands separated by commas, and an optional unit.

    From 10¹² on it is given in scientific notation: such a number is a fault, and its digits say nothing.
    """
    if not finite(value):
        return MISSING
    layout = f",.{digits}f" if abs(value) < _LONGEST else f".{digits}e"
    text = f"{round(value, digits) + 0.0:{layout}}".replace("-", "−")
    return f"{text}{NARROW}{unit}" if unit else text


def per_second(value: float | None) -> str:
    """Format a number of things a second; a slow one keeps its digits."""
    digits = 0 if not finite(value) or abs(value) >= 100 else 1 if abs(value) >= 1 else 3
    return decimal(value, digits)


def signed(value: float | None, digits: int = 3, unit: str = "") -> str:
    """Format like `decimal`, with an explicit plus sign: for differences."""
    text = decimal(value, digits, unit)
    return f"+{text}" if finite(value) and round(value, digits) > 0 else text


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share between 0 and 1 as a percentage."""
    return decimal(None if share is None else 100 * share, digits, "%")


def byte_size(count: float | None) -> str:
    """Format bytes in a binary unit: "81.0 MiB"."""
    return bytes_text(count).replace(" ", NARROW) if finite(count) else MISSING


def duration(seconds: float | None) -> str:
    """Format a duration: "8s", "7m 12s" or "2h 05m"."""
    return seconds_text(seconds).replace(" ", NARROW) if finite(seconds) else MISSING


def p_value(p: float | None) -> str:
    """Format a p-value to three significant decimals (0.727, 0.0625), "< 0.001" below that."""
    if not finite(p):
        return MISSING
    return f"<{NARROW}0.001" if p < 0.001 else f"{p:.4f}" if p < 0.1 else f"{p:.3f}"


def rate(value: float | None) -> str:
    """Format a learning rate in scientific notation with a plain exponent, as recipes write it ("2.0e-4")."""
    if not finite(value):
        return MISSING
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def ticks(low: float, high: float, target: int = 5, *, whole: bool = False) -> list[float]:
    """Choose about `target` round numbers (1, 2 or 5 times a power of ten apart) that cover the range from low to high.

    The first is never above `low` and the last never below `high`. `whole` keeps them integers. An empty range is
    widened so that there is something to draw on.

    Raises:
        ValueError: an end is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"ticks need finite ends, got {low} and {high}")
    low, high = min(low, high), max(low, high)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-100):
        room = 0.5 if max(abs(low), abs(high)) < 1e-99 else abs(low) * 0.05
        low, high = low - room, high + room
    rough = (high - low) / max(1, target - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    # A range that ends on a multiple of the step must not gain a tick through rounding: hence the small allowance,
    # which the tick itself makes good, because it is then the range's own end to the last drawn decimal.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = tick_digits(step) + 3
    return [round(index * step, places) for index in range(first, max(last, first + 1) + 1)]


def tick_digits(step: float) -> int:
    """Number of decimals that distinguish two ticks `step` apart."""
    return max(0, -math.floor(math.log10(step) + 1e-9))
