"""Where the right answers of the questions stand in a library, and whether something shown is one of them.

Needs: stilnovo.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library

ANSWERABLE = ("classroom_a.jsonl", "classroom_b.jsonl", "literature.jsonl")
UNANSWERABLE = ("classroom_unanswerable_a.jsonl", "classroom_unanswerable_b.jsonl", "unanswerable.jsonl")
#: They were looked at while rules were made: developing only, whatever half their rows name.
_SEEN = ("literature.jsonl", "unanswerable.jsonl")


class Place(NamedTuple):
    """Words of a work: from `start` to `end` of its text."""

    work: int
    start: int
    end: int


def asked(names: tuple[str, ...], split: str) -> list[dict[str, Any]]:
    """The questions of a half, from these files."""
    folder = Path(__file__).parent / "questions"
    every = [
        (name, json.loads(line)) for name in names for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    return [row for name, row in every if ("dev" if name in _SEEN else row["split"]) == split]


class Gold:
    """The right places of questions in one library."""

    def __init__(self, library: Library) -> None:
        self._works = library.works()
        self._texts = {work.id: library.text(work) for work in self._works}
        self._sections = {work.id: library.sections(work) for work in self._works}

    def _copies(self, row: dict[str, Any]) -> list[Work]:
        """The work of a question and other copies of it: works of that author, which have the same words or have not."""
        return [work for work in self._works if work.title == row["work"] or work.author == row["author"] != ""]

    def section_at(self, work: int, at: int) -> Chapter:
        """The section that holds a character of a work."""
        return [c for c in self._sections[work] if c.start <= at < c.end][-1]

    def places(self, row: dict[str, Any]) -> list[Place]:
        """Every place where the words of a right answer stand: in its section; in another copy, anywhere."""
        found = []
        for given in [row, *row.get("spans", ())]:
            words = re.compile(r"\s+".join(map(re.escape, given["span"].split())))
            for work in self._copies(row):
                for match in words.finditer(self._texts[work.id]):
                    section = self.section_at(work.id, match.start())
                    if work.title != row["work"] or given["section"] in (section.label, section.title, ""):
                        found.append(Place(work.id, match.start(), match.end()))
        return list(dict.fromkeys(found))

    def sections(self, places: list[Place]) -> set[int]:
        """The ids of the sections of right places."""
        return {self.section_at(place.work, place.start).id for place in places}


def overlaps(places: list[Place], work: int, start: int, end: int) -> bool:
    """Whether words of a work meet one of the right places."""
    return any(place.work == work and place.start < end and start < place.end for place in places)
