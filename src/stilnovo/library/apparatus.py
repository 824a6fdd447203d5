"""Notes, speakers, stage directions and other words of a file that are not the author's: counted, placed, searched.

They have an index of their own, so that no search for the author's words and no quotation ever meets them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stilnovo.library.index import Row, Sought
from stilnovo.library.records import Chapter, Work, citation
from stilnovo.library.search import sought
from stilnovo.library.store import Library
from stilnovo.reading.text_builder import Apparatus

#: Words of the running text that are shown on each side of an item, and characters that are read for them.
_NEAR_WORDS, _NEAR_CHARACTERS = 6, 160
# An item is known to the index by the work's id and its position.
_POSITIONS = 2**32


@dataclass(frozen=True)
class PlacedApparatus:
    """An item of apparatus with its place: its section and the running text on both sides; `score` in a search."""

    item: Apparatus
    section: Chapter
    before: str
    after: str
    score: float = 0.0

    @property
    def citation(self) -> str:
        """Where it stands: *Alessandro Manzoni, I promessi sposi, cap. I*."""
        return citation(self.section)


def words_by_kind(items: Iterable[Apparatus]) -> dict[str, int]:
    """How many words of apparatus there are of each kind, the most frequent first."""
    counts: Counter[str] = Counter()
    for item in items:
        counts[item.kind] += len(item.text.split())
    return dict(counts.most_common())


def placed(
    library: Library, work: Work, items: Iterable[tuple[Apparatus, float]] | None = None
) -> list[PlacedApparatus]:
    """The items of a work with their places, in order; or given ones with their scores."""
    text, sections = library.text(work), library.sections(work)
    if items is None:
        items = ((item, 0.0) for item in library.apparatus(work))
    return [
        PlacedApparatus(item, _section_at(sections, item.at), *_near(text, item.at), score) for item, score in items
    ]


def _section_at(sections: Sequence[Chapter], at: int) -> Chapter:
    return sections[max(0, bisect_right(sections, at, key=lambda section: section.start) - 1)]


def _near(text: str, at: int) -> tuple[str, str]:
    """The last words before a place and the first after it."""
    before = re.findall(r"\S+", text[max(0, at - _NEAR_CHARACTERS) : at])[-_NEAR_WORDS:]
    after = re.findall(r"\S+", text[at : at + _NEAR_CHARACTERS])[:_NEAR_WORDS]
    return " ".join(before), " ".join(after)


def search_apparatus(library: Library, query: str, limit: int = 10, works: Sequence[int] = ()) -> list[PlacedApparatus]:
    """Search the apparatus by words or phrase, best first; restricted to some works, if given."""
    wanted = sought(query)
    if wanted == Sought():
        return []

    def rows(number: int) -> Iterator[Row]:
        work = library.work(number)
        sections = library.sections(work)
        for position, item in enumerate(library.apparatus(work)):
            section = _section_at(sections, item.at)
            names = (work.author, work.title, section.label, section.title)
            yield number * _POSITIONS + position, item.text, names

    by_work: dict[int, list[tuple[int, float]]] = {}
    for key, score in library.apparatus_index(rows).match(wanted, limit, works):
        number, position = divmod(key, _POSITIONS)
        by_work.setdefault(number, []).append((position, score))
    hits: list[PlacedApparatus] = []
    for work in library.works():  # an index that another process is still writing may know works that are gone
        if scored := by_work.get(work.id):
            items = library.apparatus(work)
            hits += placed(library, work, [(items[position], score) for position, score in scored])
    return sorted(hits, key=lambda hit: -hit.score)
