"""The course of a chapter in its most central sentences, each word for word: a summary that invents nothing.

A section is cut into as many stretches as sentences are wanted, and of each the sentence is taken that has most of what the
whole section speaks of: the cosine between its words and the section's (tf·idf over its sentences; the centroid of Radev et
al., *Centroid-based summarization of multiple documents*, 2004, §2), so that beginning, middle and end all have their say.
"""

from __future__ import annotations

import math
from collections import Counter

from stilnovo.chat.units import units
from stilnovo.library.records import Passage
from stilnovo.text.italian import STOP_WORDS, stem, words

#: Sentences taken, and the lengths between which a sentence can stand for others, in words.
SENTENCES, SHORT, LONG = 5, 8, 45


def central(passages: list[Passage], count: int = SENTENCES) -> list[tuple[Passage, int, int]]:
    """The central sentences of a section's passages, in order: (passage, start, end) of `passage.text`.

    Args:
        passages: Every passage of the section, in order.
        count: How many sentences at most.
    """
    places = [(passage, start, end) for passage in passages for start, end in units(passage)]
    bags = [Counter(_terms(passage.text[start:end])) for passage, start, end in places]
    seen = Counter(term for bag in bags for term in bag)
    rarity = {term: math.log(1 + len(bags) / number) for term, number in seen.items()}
    centre: Counter[str] = Counter()
    for bag in bags:
        for term, number in bag.items():
            centre[term] += number * rarity[term]  # type: ignore[assignment]
    scores = [_likeness(bag, centre, rarity) for bag in bags]
    chosen = []
    for stretch in range(count):
        indices = range(stretch * len(places) // count, (stretch + 1) * len(places) // count)
        fit = [i for i in indices if SHORT <= sum(bags[i].values()) <= LONG and not _asks(places[i])] or list(indices)
        if fit:
            chosen.append(max(fit, key=lambda i: (scores[i], -i)))
    return [places[i] for i in chosen]


def _terms(text: str) -> list[str]:
    return [stem(word) for word in words(text) if word not in STOP_WORDS and len(word) > 2]


def _likeness(bag: Counter[str], centre: Counter[str], rarity: dict[str, float]) -> float:
    weights = {term: number * rarity[term] for term, number in bag.items()}
    norm = math.sqrt(sum(weight * weight for weight in weights.values()))
    return sum(weight * centre[term] for term, weight in weights.items()) / norm if norm else 0.0


def _asks(place: tuple[Passage, int, int]) -> bool:
    passage, start, end = place
    return passage.text[start:end].rstrip('»”" —–-').endswith("?")
