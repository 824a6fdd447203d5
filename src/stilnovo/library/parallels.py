"""Parallel passages: where the words of a passage, or its image, stand elsewhere in the library.

*The same words*: runs of `RUN` words that two places share, found by the rarer words of the passage; function words count in a
run, as they make a formula of words. *The same image*: where vectors are made, the passages nearest in meaning that share no
such run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stilnovo.library.index import Sought
from stilnovo.library.records import Passage, Work, citation
from stilnovo.library.store import Library
from stilnovo.text.italian import STOP_WORDS, Word, modern, stem, tokens

#: Words of a run that two places share, of which so many mean something.
RUN, SOLID = 4, 2
#: Passages read for the same words, and words of the query that say which.
READ, ASKED = 200, 40


@dataclass(frozen=True)
class Parallel:
    """A passage that answers another: by `words` in common (the longest run, as it stands here), or near in meaning."""

    passage: Passage
    kind: Literal["words", "meaning"]
    shared: str
    start: int
    end: int
    score: float

    def as_dict(self) -> dict[str, Any]:
        """The parallel as a JSON object."""
        section = self.passage.section
        return {
            "kind": self.kind, "shared": self.shared, "score": round(self.score, 4), "text": self.passage.text,
            "citation": citation(section, section.verses(self.start, self.end)), "author": section.work.author,
            "work": section.work.title, "section": section.label, "sha256": section.work.sha256, "start": self.start,
            "end": self.end,
        }  # fmt: skip


def parallels(
    library: Library, text: str, limit: int = 10, works: Sequence[Work] = (), apart: Passage | None = None
) -> list[Parallel]:
    """Find the passages parallel to a text, those with the longest shared words first, then those near in meaning.

    Args:
        library: Where to look.
        text: A passage of the library or any other text, of a sentence or a few.
        limit: How many of each kind at most.
        works: Only these; empty for all.
        apart: The passage that the text is of: it and its neighbours are none of its parallels.
    """
    own = {passage.id for passage in library.around(apart)} if apart else set[int]()
    within = [work.id for work in works]
    mine = _solid(tokens(text))
    rarity = library.index.rarity({stem(form) for form in mine})
    asked = tuple(sorted({stem(form) for form in mine}, key=lambda form: (-rarity[form], form))[:ASKED])
    found: list[Parallel] = []
    if asked:
        ids = [passage for passage, _ in library.index.match(Sought(stem=asked), READ, within) if passage not in own]
        found = [parallel for passage in library.passages(ids) if (parallel := _in_words(text, passage, rarity))]
    found = sorted(found, key=lambda parallel: (-parallel.score, parallel.passage.id))[:limit]
    same = own | {parallel.passage.id for parallel in found}
    return found + _in_meaning(library, text, limit, within, same)


def _solid(every: Sequence[Word]) -> list[str]:
    return [word.form for word in every if word.form not in STOP_WORDS and not word.elided]


def _in_words(text: str, passage: Passage, rarity: Mapping[str, float]) -> Parallel | None:
    """The longest run of words that a text shares with a passage; its score is how rare those are that mean something."""
    theirs, ours = tokens(passage.text), [modern(word.form) for word in tokens(text)]
    forms = [modern(word.form) for word in theirs]
    places: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(ours) - RUN + 1):
        places.setdefault(tuple(ours[at : at + RUN]), []).append(at)
    best = (0, 0, 0)
    for at in range(len(forms) - RUN + 1):
        for mine in places.get(tuple(forms[at : at + RUN]), ()):
            length = RUN
            while at + length < len(forms) and mine + length < len(ours) and forms[at + length] == ours[mine + length]:
                length += 1
            best = max(best, (len(_solid(theirs[at : at + length])), length, -at))
    solid, length, at = best[0], best[1], -best[2]
    if solid < SOLID:
        return None
    start, end = theirs[at].start, theirs[at + length - 1].end
    shared = " ".join(passage.text[start:end].split())
    score = sum(rarity.get(stem(form), 0.0) for form in _solid(theirs[at : at + length]))
    return Parallel(passage, "words", shared, passage.start + start, passage.start + end, score)


def _in_meaning(library: Library, text: str, limit: int, works: Sequence[int], apart: set[int]) -> list[Parallel]:
    if library.searching() is None:
        return []
    near = [
        (passage, score) for passage, score in library.nearest(text, limit + len(apart), works) if passage not in apart
    ][:limit]
    scores = dict(near)
    return [
        Parallel(passage, "meaning", "", passage.start, passage.end, float(scores[passage.id]))
        for passage in library.passages([passage for passage, _ in near])
    ]
