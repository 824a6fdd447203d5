"""Rows that cannot be used, and the two policies for them: stop at the first, or leave them out, counted and named."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
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
    """Counts of rows used and rows left out by reason, with the first few places of each.

    Attributes:
        advice: What to do about a reason, where its rows say so.
        unread: Rows in which a column holds something that is not read, by column; `first_unread` is the first place of each.
    """

    taken: int = 0
    left: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    first_unread: dict[str, str] = field(default_factory=dict)

    def leave(self, place: str, bad: BadRow) -> None:
        """Lenient policy: count the row as left out."""
        shown = f"{place}: {bad.found}" if bad.found else place
        self.add(Tally(0, Counter([bad.reason]), {bad.reason: [shown]}, {bad.reason: bad.next} if bad.next else {}))

    def note(self, columns: Iterable[str], place: str) -> None:
        """Count columns of a row that are not read."""
        for column in sorted(columns):
            self.unread[column] += 1
            self.first_unread.setdefault(column, place)

    def add(self, other: Tally) -> None:
        """Add another tally's counts, in order."""
        self.taken += other.taken
        self.left.update(other.left)
        self.unread.update(other.unread)
        self.advice = other.advice | self.advice
        self.first_unread = other.first_unread | self.first_unread
        for reason, places in other.places.items():
            self.places[reason] = [*self.places.get(reason, ()), *places][:SHOWN_PLACES]

    def warn(self) -> None:
        """Log what was left out, and what was not read."""
        for line in self.lines():
            log.warning("%s", line)

    def lines(self) -> list[str]:
        """One line for each reason, and for each column that is not read."""
        return [
            *(f"{count:,} left out, {reason} (first: {self.places[reason][0]})" for reason, count in self.left.items()),
            *(
                f"`{column}` is not read (rows that hold it: {count:,}; first: {self.first_unread[column]})"
                for column, count in self.unread.items()
            ),
        ]
