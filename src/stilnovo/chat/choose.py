"""Which sentence of the library answers best: a score a person can follow, no model involved.

For every sentence of the passages found, the share of the question's meaning it covers is added up: each term of the
question weighs its rarity in the library (names half as much again), and counts in full where the sentence has the word
itself, less for a kindred word, less again when only the neighbouring sentences or the passage have it. To that come
what the kind of question asks for (a date, a place, *X era …*) and the passage's rank in the search; questions and
fragments lose. The best sentence, with the one before it when that holds the subject, is the quotation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from stilnovo.chat.question import Question
from stilnovo.chat.thesaurus import kin
from stilnovo.library import index
from stilnovo.library.passages import verse_lines
from stilnovo.library.records import Passage, Work
from stilnovo.library.search import Hit
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, sentences, stem, tokens

#: How much a term counts: the word itself, its stem, a kindred word; in the sentence beside, elsewhere in the passage.
SAME, STEM, KIN, BESIDE, PASSAGE, CONTEXT = 1.0, 0.9, 0.55, 0.6, 0.4, 0.5
#: Below this share of the question's weight, a passage is about something else.
RELEVANT = 0.5
LONGEST = 420


@dataclass(frozen=True)
class Choice:
    """A quotation chosen: `passage.text[start:end]`, its score, and the share of the question the passage covers."""

    passage: Passage
    start: int
    end: int
    score: float
    coverage: float

    @property
    def text(self) -> str:
        """The words themselves."""
        return self.passage.text[self.start : self.end]


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[frozenset[str], frozenset[str]]:
    forms = frozenset(token.form for token in tokens(text))
    return forms, frozenset(stem(form) for form in forms)


class Chooser:
    """Scores sentences for one question over one library."""

    def __init__(self, question: Question, library: Library, exclude: frozenset[str] = frozenset()) -> None:
        self.question = question
        self.stems = {term: form for term, form in question.stems().items() if form not in exclude} or question.stems()
        rarity = index.rarity(library.connection, self.stems.values())
        self.weights = {
            term: rarity[form] * (1.5 if term in question.names else 1.0) for term, form in self.stems.items()
        }
        total = sum(self.weights.values()) or 1.0
        self.weights = {term: weight / total for term, weight in self.weights.items()}

    def _match(self, term: str, text: str) -> float:
        """How fully a text has a term: 1 the word, less for its stem or a kindred word; names only as they stand."""
        forms, stems = _words(text)
        if term in forms:
            return SAME
        if term in self.question.names:
            return 0.0
        form = self.stems[term]
        return STEM if form in stems else KIN if kin(form) & stems else 0.0

    def coverage(self, passage: Passage) -> float:
        """The share of the question's weight that a passage has, its work's and chapter's names helping."""
        section = passage.section
        names = f"{section.work.title} {section.work.author} {section.label} {section.title}"
        return sum(
            weight * max(self._match(term, passage.text), CONTEXT * self._match(term, names))
            for term, weight in self.weights.items()
        )

    def named(self, passage: Passage) -> bool:
        """Whether a passage, its chapter's title or its work has one of the question's names; true without names."""
        names = [name for name in self.question.names if name in self.weights]
        section = passage.section
        everything = f"{passage.text} {section.label} {section.title} {section.work.title} {section.work.author}"
        return not names or any(self._match(name, everything) for name in names)

    def _evidence(self, spans: Sequence[tuple[int, int]], i: int, passage: Passage) -> tuple[float, float]:
        """Evidence of sentence i, and how much of it the sentence before it lends."""
        text = passage.text
        here = text[spans[i][0] : spans[i][1]]
        before = text[spans[i - 1][0] : spans[i - 1][1]] if i else ""
        after = text[spans[i + 1][0] : spans[i + 1][1]] if i + 1 < len(spans) else ""
        total = lent = 0.0
        for term, weight in self.weights.items():
            own = self._match(term, here)
            beside = BESIDE * self._match(term, before)
            far = max(0.8 * BESIDE * self._match(term, after), PASSAGE * self._match(term, text))
            total += weight * max(own, beside, far)
            lent += weight * max(0.0, beside - own) if beside >= far else 0.0
        return total, lent

    def _form(self, sentence: str, folded: str) -> float:
        """What the sentence's form adds or takes: the kind of answer, a person named, questions, fragments."""
        question = self.question
        score = question.signs(folded)
        if question.person and re.search(r"(?<=[\w,;:] )[A-ZÀ-Þ][a-zà-ÿ]{2,}", sentence):
            score += 0.1
        if sentence.rstrip('»”" —–-').endswith("?"):
            score -= 0.35
        if len(sentence) < 30:
            score -= 0.15
        if len(sentence) > LONGEST:
            score -= 0.05
        return score

    def _being(self, sentence: str, folded: str) -> float:
        """For *chi è X*: does the sentence say what X is?"""
        being = self.question.being
        if not being:
            return 0.0
        name = re.escape(being[-1])
        if not re.search(rf"\b{name}\b", folded):
            return 0.0
        score = 0.0
        if re.search(rf"\b{name}\b(?: \([^)]*\))? (?:non )?(?:e|era|fu|aveva|nacque) ", folded):
            score += 0.3
        if re.search(
            rf"\b{name}, (?:il|lo|la|l|un|uno|una|figli\w+|detto|detta|che era|ch era|moglie|marito|cert\w+)\b", folded
        ):
            score += 0.3
        if re.search(rf"\b(?:chiam\w+|nome|detto|detta|era|per nome) (?:\w+ )?{name}\b", folded):
            score += 0.25
        if re.search(rf"\b(?:servo|serva|figli[oa]|moglie|marito|padre|madre|sorella|fratello) \w* ?{name}\b", folded):
            score += 0.1
        if folded.find(being[-1]) < 40:
            score += 0.1
        return min(score, 0.5)

    def choices(self, hit: Hit, bonus: float) -> list[Choice]:
        """The sentences of one passage, scored; `bonus` comes from the passage's rank."""
        passage = hit.passage
        coverage = self.coverage(passage)
        spans = _units(passage)
        found = []
        for i, (start, end) in enumerate(spans):
            sentence = passage.text[start:end]
            folded = " ".join(fold(sentence).replace("'", " ").split())
            evidence, lent = self._evidence(spans, i, passage)
            score = evidence + self._form(sentence, folded) + self._being(sentence, folded) + bonus
            if i and lent > 0.2 and end - spans[i - 1][0] <= LONGEST:
                start = spans[i - 1][0]
            found.append(Choice(passage, start, end, score, coverage))
        return found


def _units(passage: Passage) -> list[tuple[int, int]]:
    """What may be quoted of a passage: sentences, whole verses in verse, clauses of very long sentences."""
    spans: list[tuple[int, int]] = []
    lines = verse_lines(passage.text, 0, len(passage.text)) if passage.section.verse else []
    for start, end in sentences(passage.text):
        if lines:
            touched = [line for line in lines if line[0] < end and start < line[1]]
            start, end = touched[0][0] if touched else start, touched[-1][1] if touched else end
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], end)
                continue
        if end - start <= LONGEST:
            spans.append((start, end))
            continue
        cuts = [
            match.end()
            for match in re.finditer(r"[;:](?=\s)|(?<=,)\n" if lines else r"[;:](?=\s)", passage.text[start:end])
        ]
        left = start
        for cut in [*(start + cut for cut in cuts), end]:
            if cut - left >= 120 or cut == end:
                piece = passage.text[left:cut]
                spans.append((left + len(piece) - len(piece.lstrip()), left + len(piece.rstrip())))
                left = cut
    return [(start, end) for start, end in spans if end > start]


def named_works(question: Question, library: Library) -> list[Work]:
    """The works a question names by their title: *nei Promessi sposi*, *in Malombra*."""
    stems = {stem(token.form) for token in tokens(question.text)}
    found = []
    for work in library.works():
        title = [token.form for token in tokens(work.title) if len(token.form) > 2]
        whole = {stem(form) for form in title}
        single = len(title) == 1 and title[0] in question.names
        if whole and whole <= stems and (len(title) > 1 or single):
            found.append(work)
    return found
