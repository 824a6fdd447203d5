"""Weighted query terms: how rare each is in the library, and how well a text matches it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from stilnovo.chat.question import Question
from stilnovo.chat.thesaurus import kin
from stilnovo.library.store import Library
from stilnovo.text.italian import stem, tokens

#: What a term counts: the word itself, its stem, a kindred word or a name that stands for it (`aliases`).
SAME, STEM, KIN = 1.0, 0.85, 0.55
#: Rarity is damped by this power: a rare word must not drown the others. Names and numbers weigh half as much again.
DAMPING, NAME_WEIGHT, FIRST_WEIGHT = 0.6, 1.5, 1.0

_INSIDE_SENTENCE = re.compile(r"[\w,;:)]\W[A-ZÀ-Þ]$")
_NOBODY: frozenset[str] = frozenset()


@lru_cache(maxsize=8192)
def _words(text: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Folded words; stems; and stems of the words that are no names."""
    every = tokens(text)
    common = (t for t in every if not _INSIDE_SENTENCE.search(text, max(0, t.start - 2), t.start + 1))
    return tuple(frozenset(forms) for forms in (  # type: ignore[return-value]
        (token.form for token in every), (stem(token.form) for token in every), (stem(token.form) for token in common)
    ))  # fmt: skip


class Terms:
    """The terms of one question in one library, with weights that sum to 1."""

    def __init__(self, question: Question, library: Library, titles: frozenset[str] = frozenset()) -> None:
        """`titles` are stems that only say which work is meant: they are no terms, unless there are no others."""
        self.words = [term for term in question.terms if stem(term) not in titles] or list(question.terms)
        self.exact = frozenset(question.names) | {term for term in self.words if term.isdigit()}
        self.stems = {term: stem(term) for term in self.words}
        self._kin = {t: _NOBODY if t in self.exact else kin(form) for t, form in self.stems.items()}
        self.aliases: dict[str, frozenset[str]] = {}
        rarity = library.index.rarity(self.stems.values())
        unknown = {
            term for term, form in self.stems.items() if term not in self.exact and not library.index.occurs(form)
        }
        known = [rarity[form] for term, form in self.stems.items() if term not in unknown]
        # A common word that the library never uses is the asker's way of putting it: it weighs as the others do.
        usual = sum(known) / len(known) if known else 1.0
        weights = [
            (usual if term in unknown else rarity[self.stems[term]]) ** DAMPING
            * (NAME_WEIGHT if term in self.exact else FIRST_WEIGHT if term == self.words[0] else 1.0)
            for term in self.words
        ]
        self.weights = [weight / (sum(weights) or 1.0) for weight in weights]

    @property
    def names(self) -> list[str]:
        """The names and numbers among the terms, the weightiest first."""
        ranked = sorted(zip(self.weights, self.words, strict=True), reverse=True)
        return [term for _, term in ranked if term in self.exact]

    def matches(self, text: str) -> list[float]:
        """Match scores of a text for each term, 0 to 1; names and numbers count only as they stand."""
        forms, stems, common = _words(text)
        values = []
        for term in self.words:
            if term in forms:
                values.append(SAME)
            elif term not in self.exact and self.stems[term] in stems:
                values.append(STEM)
            else:
                values.append(KIN if self._kin[term] & common or self.aliases.get(term, _NOBODY) & forms else 0.0)
        return values

    def weigh(self, columns: Iterable[Sequence[float]]) -> float:
        """The weighted sum over the terms of the best value in any column."""
        best = map(max, zip(*columns, strict=True))
        return float(sum(weight * value for weight, value in zip(self.weights, best, strict=True)))
