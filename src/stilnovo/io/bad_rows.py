"""Rows that cannot be used, and the two policies for them: stop at the first, or leave them out, counted and named."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from stilnovo.errors import InputError

log = logging.getLogger("stilnovo.io")
OnBad = Literal["skip", "stop"]
SHOWN_PLACES = 20  # of each reason


class BadRow(Exception):
    """A row that cannot be used: `reason` is counted, `found` says what was seen, `next` what to do about it."""

    def __init__(self, reason: str, found: str = "", next: str = "") -> None:
        super().__init__(reason, found, next)
        self.reason, self.found, self.next = reason, found, next


def refuse_if(fault: object, reason: str, found: str = "") -> None:
    """Raise `BadRow` where a check found a fault.

    Raises:
        BadRow: when `fault` is true.
    """
    if fault:
        raise BadRow(reason, found)


def stop(place: str, bad: BadRow) -> None:
    """Strict policy: the first bad row is an error.

    Raises:
        InputError: always.
    """
    raise InputError(f"{place}: {bad.reason}.", bad.found, bad.next or "Correct or remove the row.") from bad


@dataclass
class Tally:
    """Counts of rows used and rows left out by reason, with the first few places of each."""

    taken: int = 0
    left: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, place: str, bad: BadRow) -> None:
        """Lenient policy: count the row as left out."""
        shown = f"{place}: {bad.found}" if bad.found else place
        self.add(Tally(0, Counter([bad.reason]), {bad.reason: [shown]}))

    def add(self, other: Tally) -> None:
        """Add another tally's counts, in order."""
        self.taken += other.taken
        self.left.update(other.left)
        for reason, places in other.places.items():
            self.places[reason] = [*self.places.get(reason, ()), *places][:SHOWN_PLACES]

    def warn(self) -> None:
        """Log what was left out."""
        for line in self.lines():
            log.warning("%s", line)

    def lines(self) -> list[str]:
        """One line for each reason."""
        return [
            f"{count:,} left out, {reason} (first: {self.places[reason][0]})" for reason, count in self.left.items()
        ]
