"""Segment passages into quotable units: sentences, verses, clauses of very long sentences; speeches stay whole.

The course of a chapter is told in its most central sentences, each word for word: a summary that invents nothing. The
section is cut into as many stretches as sentences are wanted, and of each the sentence is taken that has most of what the
whole section speaks of: the cosine between its words and the section's (tf·idf over its sentences; the centroid of Radev et
al., *Centroid-based summarization of multiple documents*, 2004, §2), so that beginning, middle and end all have their say.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from stilnovo.library.records import Passage
from stilnovo.reading.verse import verse_spans
from stilnovo.text.italian import STOP_WORDS, sentences, stem, words

#: A quotation is hardly ever longer, in characters; a speech is kept whole up to the second figure.
LONGEST, SPEECH, SHORTEST = 420, 240, 120
#: Sentences taken, and the lengths between which a sentence can stand for others, in words.
SENTENCES, SHORT, LONG = 5, 8, 45
_CLAUSE = re.compile(r"[;:](?=\s)")


def _open_speech(sentence: str) -> bool:
    return sentence.count("«") > sentence.count("»") or sentence.count("“") > sentence.count("”")


def _clauses(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Cut a very long sentence after semicolons and colons."""
    spans, left = [], start
    for cut in [*(match.end() for match in _CLAUSE.finditer(text, start, end)), end]:
        if cut - left >= SHORTEST or cut == end:
            piece = text[left:cut]
            spans.append((left + len(piece) - len(piece.lstrip()), left + len(piece.rstrip())))
            left = cut
    return [(first, last) for first, last in spans if first < last]


def _in_verse(text: str) -> list[tuple[int, int]]:
    """Widen sentences to whole lines; those that share a line are merged."""
    lines = verse_spans(text, 0, len(text))
    spans: list[tuple[int, int]] = []
    for start, end in sentences(text):
        if touched := [line for line in lines if line[0] < end and start < line[1]]:
            joins = bool(spans) and touched[0][0] < spans[-1][1]
            spans.append((spans.pop()[0] if joins else touched[0][0], touched[-1][1]))
    return spans


def units(passage: Passage) -> list[tuple[int, int]]:
    """Spans of `passage.text` that may be quoted, in order."""
    text = passage.text
    if passage.section.verse:
        return _in_verse(text)
    spans: list[tuple[int, int]] = []
    for start, end in sentences(text):
        if spans and end - spans[-1][0] <= SPEECH and _open_speech(text[slice(*spans[-1])]):
            spans[-1] = (spans[-1][0], end)
        elif end - start <= LONGEST:
            spans.append((start, end))
        else:
            spans += _clauses(text, start, end)
    return spans


def central(passages: list[Passage], count: int = SENTENCES) -> list[tuple[Passage, int, int]]:
    """Extractive summary: the most central sentences of a section's passages, in order: (passage, start, end) of `passage.text`.

    Args:
        passages: Every passage of the section, in order.
        count: How many sentences at most.
    """
    places = [(passage, start, end) for passage in passages for start, end in units(passage)]
    texts = [passage.text[start:end] for passage, start, end in places]
    bags = [Counter(stem(word) for word in words(text) if word not in STOP_WORDS and len(word) > 2) for text in texts]
    seen = Counter(term for bag in bags for term in bag)
    rarity = {term: math.log(1 + len(bags) / sentences) for term, sentences in seen.items()}
    centre = {term: count * rarity[term] for term, count in sum(bags, Counter[str]()).items()}
    scores = [_likeness(bag, centre, rarity) for bag in bags]
    chosen = []
    for stretch in range(count):
        indices = range(stretch * len(places) // count, (stretch + 1) * len(places) // count)
        fit = [i for i in indices if SHORT <= sum(bags[i].values()) <= LONG and not asks(texts[i])]
        chosen += sorted(fit or indices, key=lambda i: (-scores[i], i))[:1]
    return [places[i] for i in chosen]


def _likeness(bag: Counter[str], centre: dict[str, float], rarity: dict[str, float]) -> float:
    weights = {term: count * rarity[term] for term, count in bag.items()}
    norm = math.sqrt(sum(weight * weight for weight in weights.values()))
    return sum(weight * centre[term] for term, weight in weights.items()) / norm if norm else 0.0


def asks(sentence: str) -> bool:
    """Whether a sentence is a question."""
    return sentence.rstrip('»”" —–-').endswith("?")
