"""Choose the sentences of the library that answer a question, and say how likely the first one does.

Two steps. All candidates are ranked by a sum of what speaks for them (`stilnovo.chat.evidence`). Where the library has an
embedding model, the first `REREAD` are compared with the question by meaning, sentence by sentence, and ranked again. The
coefficients of both, and the probability that the first answers, were fitted on questions about real works and are in
`stilnovo.chat.coefficients`; an answer is *sure* from the probability at which nine of ten were right there.

Unusual: the probability is of the kind of question and library that it was fitted on; a certainty it never is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat.coefficients import CONFIDENCE, MEANING, RANKING, SURE
from stilnovo.chat.evidence import FEATURES, Candidate, Evidence
from stilnovo.chat.question import Question, flat
from stilnovo.chat.units import units
from stilnovo.library.embedders import NanoEmbedder
from stilnovo.library.index import Sought
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.store import Library
from stilnovo.text.italian import stem, tokens

#: Candidates that are compared by meaning: embedding them is what an answer costs, half a second without torch.
REREAD = 20
#: A sentence is shown with its neighbours, as far as they are together no longer than this, in characters.
WINDOW = 600
#: Beyond this a probability is 1 in floating point, or an overflow.
MOST_LOGIT = 30.0
_PASSAGE = list(FEATURES).index("passage")


@dataclass(frozen=True)
class Choice:
    """A selected quotation: `passage.text[start:end]`, the probability that it answers, and whether that is enough."""

    passage: Passage
    start: int
    end: int
    confidence: float = 0.0
    sure: bool = False

    @property
    def text(self) -> str:
        """The quoted words."""
        return self.passage.text[self.start : self.end]


@dataclass(frozen=True)
class Ranked:
    """A candidate with its score and, where it was compared by meaning, its cosine with the question."""

    candidate: Candidate
    score: float
    cosine: float = 0.0


def unknown_names(question: Question, library: Library) -> list[str]:
    """Names and numbers of the question that occur nowhere in the library, as the question writes them."""
    index = library.index
    asked = [token for token in tokens(question.text)[1:] if token.form in question.names or token.form.isdigit()]
    return [
        question.text[token.start : token.end]
        for token in asked
        if not index.mentions(token.form) and not index.match(Sought(context=(stem(token.form),)), 1)
    ]


def ranked(evidence: Evidence, weights: dict[str, float], meaning: dict[str, float] | None = None) -> list[Ranked]:
    """Rank the candidates, best first.

    Args:
        evidence: What is known of the candidates.
        weights: A coefficient for each of `FEATURES`.
        meaning: Coefficients of `score` and `cosine` of the second ranking; None: there is none.
    """
    factors = [weights[name] for name in FEATURES]
    rows = [
        Ranked(one, sum(f * value for f, value in zip(factors, one.values, strict=True))) for one in evidence.candidates
    ]
    rows.sort(key=_first)
    if meaning is None:
        return rows
    cosines = evidence.cosines([row.candidate for row in rows[:REREAD]])
    middle, spread = statistics.fmean(cosines or [0.0]), statistics.pstdev(cosines or [0.0]) or 1.0
    # Those that are not compared come after, as far below as a cosine of one deviation less.
    parts = [(cosine - middle) / spread for cosine in cosines] + [-1.0] * len(rows[REREAD:])
    again = [
        Ranked(row.candidate, meaning["score"] * row.score + meaning["cosine"] * part, cosine)
        for row, part, cosine in zip(rows, parts, cosines + [0.0] * len(rows[REREAD:]), strict=True)
    ]
    return sorted(again[:REREAD], key=_first) + again[REREAD:]


def _first(row: Ranked) -> tuple[float, int, int]:
    return -row.score, row.candidate.passage.id, row.candidate.start


def signals(rows: Sequence[Ranked], evidence: Evidence) -> dict[str, float]:
    """What the confidence is judged by: the best candidate's share among all, its lead over other passages, and its own values."""
    best = rows[0]
    total = sum(math.exp(row.score - best.score) for row in rows)
    others = [row.score for row in rows if row.candidate.passage.id != best.candidate.passage.id]
    lead = min(4.0, best.score - max(others, default=best.score - 4.0))
    return {"chance": 1 / total, "lead": lead, "passage": best.candidate.values[_PASSAGE], "cosine": best.cosine}


def probability(signs: dict[str, float], weights: dict[str, float]) -> float:
    """The probability that the best candidate answers (logistic), never 0 or 1; `weights` have a `constant`."""
    logit = weights["constant"] + sum(weights[name] * value for name, value in signs.items() if name in weights)
    return 1 / (1 + math.exp(-min(max(logit, -MOST_LOGIT), MOST_LOGIT)))


def shown_span(candidate: Candidate) -> tuple[int, int]:
    """The sentence with its neighbours, those after it first, as far as WINDOW holds them."""
    spans = units(candidate.passage)
    first = last = candidate.unit
    while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= WINDOW:
        last += 1
    while first and spans[last][1] - spans[first - 1][0] <= WINDOW:
        first -= 1
    return spans[first][0], spans[last][1]


def choose(
    question: Question,
    library: Library,
    works: Sequence[Work] = (),
    sections: Sequence[Chapter] = (),
    limit: int = 3,
) -> list[Choice]:
    """Select the best quotations, best first, one per passage, without duplicates; empty when nothing is found.

    Args:
        question: Without the words that only say where to look.
        library: Where to look.
        works: Only in these, if given.
        sections: Only in these, if given.
        limit: How many.
    """
    evidence = Evidence(question, library, works, sections)
    model = library.searching()
    kind = "words" if model is None else "vectors"
    fitted = model is None or model.name == NanoEmbedder.NAME  # another model's cosines mean something else
    rows = ranked(evidence, RANKING[kind], MEANING if kind == "vectors" else None)
    if not rows or (kind == "words" and not any(row.candidate.values[_PASSAGE] for row in rows)):
        return []
    confidence = probability(signals(rows, evidence), CONFIDENCE[kind])
    passages, texts, choices = set[int](), set[str](), list[Choice]()
    for row in rows:
        if len(choices) == limit:  # what follows is not cut into sentences for nothing
            break
        start, end = shown_span(row.candidate)
        passage = row.candidate.passage
        text = flat(passage.text[start:end])  # two editions say the same
        if passage.id not in passages and text not in texts:
            sure = not choices and fitted and confidence >= SURE[kind]
            choices.append(Choice(passage, start, end, 0.0 if choices else confidence, sure))
        passages.add(passage.id)
        texts.add(text)
    return choices
