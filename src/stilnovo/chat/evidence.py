"""Candidates for an answer and what speaks for each: a few numbers between 0 and 1 that mean the same in any library.

Candidates are the sentences of the passages that the search finds and of those where whoever is asked about is mentioned
first. `FEATURES` says what is measured; the chooser adds it up with coefficients that were fitted (see
`stilnovo.chat.coefficients`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from stilnovo.chat.question import Question
from stilnovo.chat.units import units
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.text.italian import stem, tokens

#: What is measured of a sentence. A share is of the question's words, each weighted by its rarity.
FEATURES = {
    "words": "share of the question's words in the sentence",
    "passage": "share in its passage",
    "rank": "the passage's rank in the search: 1 for the first, falling",
    "first": "whether its passage is the first to mention who is asked about, in the work that mentions them most; falling",
    "place": "nearness to the part of the work that the question looks at",
    "sign": "whether it holds a number, a time, a reason, a name, …, where the question asks for that",
}
#: Passages read: found, and first mentions.
READ, INTRODUCTIONS = 40, 8
#: The power that damps rarity: a rare word must not drown the others.
DAMPING = 0.6
#: A work that has this share of the mentions of the question's names is the one that is meant.
LIKELY = 0.8


@dataclass(frozen=True)
class Candidate:
    """A sentence: `passage.text[start:end]`, the `unit`-th, with the values of `FEATURES`, in their order."""

    passage: Passage
    start: int
    end: int
    unit: int
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        """The sentence."""
        return self.passage.text[self.start : self.end]


@lru_cache(maxsize=8192)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(token.form) for token in tokens(text))


class Terms:
    """The words that a question turns on, with weights by rarity that sum to 1."""

    def __init__(self, question: Question, library: Library) -> None:
        self.stems = tuple(dict.fromkeys(map(stem, question.terms)))
        self.names = tuple(form for form in question.terms if form in question.names)
        named = set(map(stem, self.names))
        rarity = library.index.rarity(self.stems)
        known = {form: value for form, value in rarity.items() if library.index.occurs(form)}
        # A word that the library never uses is the asker's way of putting it: it weighs as the others do.
        usual = sum(known.values()) / len(known) if known else 1.0
        raw = [float(known.get(form, usual) ** DAMPING) for form in self.stems]
        self.weights = [weight / (sum(raw) or 1.0) for weight in raw]
        named_weight = sum(w for form, w in zip(self.stems, self.weights, strict=True) if form in named)
        self.name_weights = [
            w / named_weight if form in named else 0.0 for form, w in zip(self.stems, self.weights, strict=True)
        ]

    def row(self, text: str) -> list[float]:
        """1 for each term that a text has, by its stem; else 0."""
        stems = _stems(text)
        return [float(form in stems) for form in self.stems]

    def share(self, row: Sequence[float]) -> float:
        """The weighted share of a row of terms."""
        return sum(w * value for w, value in zip(self.weights, row, strict=True))


class Evidence:
    """The candidates of one question in one library."""

    def __init__(
        self,
        question: Question,
        library: Library,
        works: Sequence[Work] = (),
        sections: Sequence[Chapter] = (),
    ) -> None:
        self.question, self.library = question, library
        self.terms = Terms(question, library)
        self._inside = {work.id for work in works}
        self._mentions()
        self.candidates = [
            candidate for passage, rank in self._passages(sections) for candidate in self._measured(passage, rank)
        ]

    def cosines(self, candidates: Sequence[Candidate]) -> list[float]:
        """Cosines of the question with some candidates, by the library's embedding model."""
        model = self.library.searching()
        if model is None or not candidates:
            return [0.0] * len(candidates)
        return (model.passages([one.text for one in candidates]) @ model.query(self.question.text)).tolist()  # type: ignore[no-any-return]

    def _mentions(self) -> None:
        """Where the question's names are mentioned: their share by work, and the order of the passages of the main one."""
        self._share: dict[int, float] = {}
        self._order: dict[int, int] = {}
        weights = dict(zip(self.terms.stems, self.terms.name_weights, strict=True))
        names = sorted(self.terms.names, key=lambda name: -weights[stem(name)])
        for i, name in enumerate(names):
            mentions = self.library.index.mentions(name)
            total = sum(map(len, mentions.values()))
            for work, passages in mentions.items():
                self._share[work] = self._share.get(work, 0.0) + weights[stem(name)] * len(passages) / total
                if i == 0 and (not self._inside or work in self._inside):
                    self._order.update({passage: order for order, passage in enumerate(passages)})

    def _passages(self, sections: Sequence[Chapter]) -> list[tuple[Passage, int]]:
        """Passages with their rank: of the sections, if given; else found, and first mentions in works that have many."""
        if sections:
            return [(passage, READ) for section in sections for passage in self.library.passages_of(section)]
        likely = sorted(work for work, share in self._share.items() if share >= LIKELY)
        hits = search(self.library, self.question.text, READ, sorted(self._inside) or likely)
        found = [(hit.passage, rank) for rank, hit in enumerate(hits)]
        there = {hit.passage.id for hit in hits}
        first = [p for p, order in self._order.items() if order < INTRODUCTIONS and p not in there]
        most = max(self._share.values(), default=0.0)
        more = [p for p in self.library.passages(first) if self._share[p.section.work.id] * 3 >= most]
        return found + [(passage, READ) for passage in more]

    def _measured(self, passage: Passage, rank: int) -> list[Candidate]:
        spans = units(passage)
        if not spans:
            return []
        texts = [passage.text[start:end] for start, end in spans]
        rows = [self.terms.row(text) for text in texts]
        work = passage.section.work
        order, share = self._order.get(passage.id), self._share.get(work.id, 0.0)
        shared = {
            "passage": self.terms.share([max(column) for column in zip(*rows, strict=True)]),
            "rank": 1 / (1 + rank / 3),
            "first": 0.0 if order is None else share / max(self._share.values()) / (1 + order / 2),
        }
        candidates = []
        for i, (start, end) in enumerate(spans):
            at = (passage.start + start) / max(1, work.characters)
            values = {
                **shared,
                "words": self.terms.share(rows[i]),
                "place": 0.0 if self.question.place is None else 1 - abs(at - self.question.place),
                "sign": float(self.question.sign(texts[i])),
            }
            candidates.append(Candidate(passage, start, end, i, tuple(values[name] for name in FEATURES)))
        return candidates
