"""Which sentence of the library answers best: a score a person can follow, no model involved.

Every term of the question weighs its rarity in the library, damped; names weigh half as much again. A sentence counts a
term in full where it has the word itself, less for its stem or a kindred word, less again when only a sentence nearby
or the rest of the passage has it. To that come what the kind of question asks for (a date, a place, *X era un …*), the
passage's rank in the search, and for names the work that speaks of them most; questions and fragments lose. The best
sentence, with the one before it when that holds the subject, is the quotation.

Whether it is a sure answer is judged more strictly, by the quotation alone: see `Chooser.sure`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.chat.candidates import Candidate, aliases, gather, named_works
from stilnovo.chat.question import Question, flat
from stilnovo.chat.terms import STEM, Terms
from stilnovo.chat.units import LONGEST, units
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, stem, tokens, words

#: What a term counts when only the names of work and chapter have it; a sentence nearby, by distance; the rest of the
#: passage; the rest of the chapter as far as it was read.
CONTEXT, NEAR, PASSAGE, CHAPTER = 0.5, {-1: 0.7, 1: 0.55, -2: 0.5, 2: 0.4, -3: 0.3}, 0.4, 0.2
#: What a name counts that stands elsewhere in the passage, or in the passage before.
NAMED, BESIDE = 0.6, 0.5
#: What a question in the text lends to the sentences after it.
ASKED = 0.8
#: What a sentence's own terms count beyond that, and what its length takes away: the compact sentence is the answer.
OWN, LENGTH = 0.2, 0.05
#: What it is worth that a place is said of the very thing asked about.
SEATED = 0.15
#: Below this share of the question's weight a passage is about something else.
RELEVANT = 0.35
#: A sure quotation has this share of the question's weight itself; one for *chi è X* says this clearly what X is.
SURE, SAYS = 0.7, 0.3
#: What the share of the chapter, as far as it was read, counts towards that.
RELATED = 0.7

#: How a text says what X is: *X era un …*, *X, il …*, *di nome X*, *la serva X*; NAME is X, folded.
_ARTICLE = r"(?:il|lo|la|l|i|gli|le|un|uno|una)"
_SAYING = tuple(
    (pattern.replace("AFTER", r"NAME(?: \w+)?(?: \([^)]*\))?").replace("ARTICLE", _ARTICLE), weight)
    for pattern, weight in (
        (r"\bAFTER (?:non )?(?:=|era|fu) (?:ARTICLE|nat[oa]|figli[oa])\b", 0.4),
        (r"\bAFTER (?:non )?(?:=|era|fu|aveva \w+ anni)\b", 0.15),
        (r"\bNAME(?: \w+)?, (?:ARTICLE|figli\w+|detto|detta|che era|ch era|moglie|marito|cert\w+)\b", 0.3),
        (r"\b(?:chiam\w+|nome|detto|detta|era|per nome|soprannomin\w+) (?:\w+ )?NAME\b", 0.25),
        (r"\bNAME \((?!il lettore)", 0.15),
        (
            r"\b(?:il|lo|la|l|un|una|uno) (?:serv[oa]|figli[oa]|burattinaio|dottore|curato|vedov[oa]|\w{4,}aio|\w{4,}iere) NAME\b",
            0.15,
        ),
        (r"\b(?:moglie|marito|padre|madre|sorella|fratello|zi[oa]|cugin[oa]|amic[oa]) \w* ?NAME\b", 0.1),
    )
)

#: *Egidio che abitava*: the deed of whom the relative clause hangs on.
_RELATIVE = re.compile(r"(?P<whom>\w{3,}),? (?:che|il quale|la quale) (?P<deed>\w+(?: \w+)?)")
#: *Il palazzotto sorgeva*, *quella di Lucia, ch'era in*: a place said of the very thing that is asked about; folded.
_SEATED = (
    r"\bTERM(?: \w+){0,3},? (?:che |ch |si )?(?:sorg\w+|situat\w|giac\w+|abita\w*|dimora\w*|stava di casa"
    r"|(?:era|=) (?:\w+ )?(?:in|nel|nella|nell|a|al|alla|all|su|sul|sulla|presso|tra|fra)\b)"
)
#: *«Abita qui?» domandò*: a speech that asks, with who says it after it.
_ASKED_ALOUD = re.compile(r"\?\s*[»”\"—–-]+\s*[a-zà-ÿ]")
_NAME_INSIDE = re.compile(r"(?<=[\w,;:] )[A-ZÀ-Þ][a-zà-ÿ]{2,}")
_DENIED = re.compile(r"\bnessun[oa]?\b|\bnon (?:cred|dic|pens|suppon)\w+ (?:\w+ )?che\b")


@dataclass(frozen=True)
class Choice:
    """A quotation chosen: `passage.text[start:end]`, its score, whether it is a sure answer, and how much of the question's
    weight its passage has."""

    passage: Passage
    start: int
    end: int
    score: float
    sure: bool = False
    covered: float = 1.0

    @property
    def text(self) -> str:
        """The words themselves."""
        return self.passage.text[self.start : self.end]


def _asks(sentence: str) -> bool:
    return sentence.rstrip('»”" —–-').endswith("?")


class Chooser:
    """Scores the sentences of passages for one question over one library."""

    def __init__(
        self, question: Question, library: Library, works: Sequence[Work], sections: Sequence[Chapter] = ()
    ) -> None:
        titles = frozenset(stem(token.form) for work in works for token in tokens(work.title))
        self.question, self.terms = question, Terms(question, library, titles)
        if sections:
            self.candidates = [Candidate(p, 0.0) for section in sections for p in library.passages_of(section)]
        else:
            self.candidates = gather(question, self.terms, library, [work.id for work in works])
        among = {candidate.passage.section.work.id for candidate in self.candidates}
        self._aliases = aliases(question, self.terms, library, among)
        self._beside = self._named_beside(library) if self.terms.exact else {}
        self._chapters: dict[int, list[list[float]]] = {}
        for candidate in self.candidates:
            section = candidate.passage.section
            row = self.matches(candidate.passage.text, section.work.id)
            self._chapters.setdefault(section.id, []).append(row)

    def _named_beside(self, library: Library) -> dict[int, list[float]]:
        """For passages without any name of the question: the names in the passage before, BESIDE of their worth.

        A person once named is *egli* for pages; that a chapter goes on about them is shown by the passage before.
        """
        exact = [i for i, term in enumerate(self.terms.words) if term in self.terms.exact]
        rows = {c.passage.id: self.matches(c.passage.text, c.passage.section.work.id) for c in self.candidates}
        alone = {c.passage.id: c.passage for c in self.candidates if not any(rows[c.passage.id][i] for i in exact)}
        before = {p.id: p for p in library.passages([number - 1 for number in alone])}
        found = {}
        for number, passage in alone.items():
            other = before.get(number - 1)
            if other is None or other.section.id != passage.section.id:
                continue
            row = self.matches(other.text, passage.section.work.id)
            if any(row[i] for i in exact):
                found[number] = [BESIDE * value if i in exact else 0.0 for i, value in enumerate(row)]
        return found

    def matches(self, text: str, work: int) -> list[float]:
        """How fully a text of a work has each term."""
        return self.terms.matches(text, self._aliases[work])

    def covered(self, passage: Passage) -> float:
        """The share of the question's weight in a passage, names of work and chapter helping; 0 without its names."""
        section = passage.section
        names = f"{section.work.title} {section.work.author} {section.label} {section.title}"
        inside, around = self.matches(passage.text, section.work.id), self.terms.matches(names)
        exact = [
            max(pair) for term, *pair in zip(self.terms.words, inside, around, strict=True) if term in self.terms.exact
        ]
        if exact and not any(exact) and passage.id not in self._beside:
            return 0.0
        beside = self._beside.get(passage.id, [0.0] * len(inside))
        return self.terms.weigh([inside, beside, [CONTEXT * value for value in around]])

    def _form(self, sentence: str, folded: str) -> float:
        """What a sentence's form adds or takes: the kind of answer, a person named, questions, fragments."""
        question = self.question
        score = question.signs(folded, sentence)
        if question.person:
            names = _NAME_INSIDE.findall(sentence)
            score += 0.1 * any(fold(name) not in self.terms.exact for name in names)
            score += 0.2 * bool(re.search(r"\b(?:fu|fosti|furono) (?:\w+ )?\w+ (?:a|ad|che)\b", folded))
            score -= 0.15 * bool(_DENIED.search(folded))
            score -= 0.15 * self._undergone(folded)
        if _asks(sentence):
            score -= 0.35
        if self._anothers(sentence):
            score -= 0.3
        elif "seat" in question.kinds and self._seated(folded):
            score += SEATED
        return score - 0.15 * (len(sentence) < 30) - LENGTH * min(1.0, len(sentence) / LONGEST)

    def _anothers(self, sentence: str) -> bool:
        """Whether the deed asked about is somebody else's: *Egidio che abitava accanto* does not say where Lucia lives."""
        deed = next((i for i, term in enumerate(self.terms.words) if term not in self.terms.exact), None)
        if deed is None or not self.terms.exact or self.question.person or self.question.being:
            return False
        for match in _RELATIVE.finditer(sentence):
            whom = match["whom"]
            if fold(whom) in self.terms.words or self.terms.matches(match["deed"])[deed] < STEM:
                continue
            # *Lucia, una giovane che abitava …* may still be she; *Egidio che abitava …* is not.
            before = {token.form for token in tokens(sentence[: match.start()])}
            if whom[0].isupper() or not before & self.terms.exact:
                return True
        return False

    def _seated(self, folded: str) -> bool:
        """For *dove*: whether a place is said of what is asked about, not of something beside it."""
        return any(re.search(_SEATED.replace("TERM", re.escape(term)), folded) for term in self.terms.words)

    def _undergone(self, folded: str) -> bool:
        """Whether a sentence says what was done without who did it: *il faro era spento* does not answer *chi spense*."""
        done = re.finditer(
            r"\b(?:era|erano|fu|furono|stat[oaie]) (?:\w+ )?(\w+[ts][oaie])\b(?! (?:da|dal|dallo|dalla|dai)\b)", folded
        )
        return any(self.terms.matches(match.group(1))[0] for match in done)

    def _saying(self, folded: str) -> float:
        """For *chi è X*: how clearly a sentence says what X is."""
        name = self.question.being[-1]
        if not re.search(rf"\b{re.escape(name)}\b", folded):
            return -0.5
        score = sum(
            weight for pattern, weight in _SAYING if re.search(pattern.replace("NAME", re.escape(name)), folded)
        )
        return min(score, 0.6) + (0.1 if folded.find(name) < 40 else 0.0)

    def best(self, candidate: Candidate) -> Choice | None:
        """The best sentence of a passage; None when the passage is irrelevant."""
        passage = candidate.passage
        coverage = self.covered(passage)
        chapter = self.terms.weigh(self._chapters[passage.section.id])
        if coverage == 0.0 or max(coverage, RELATED * chapter) < RELEVANT:
            return None
        spans = units(passage)
        parts = [passage.text[start:end] for start, end in spans]
        rows = [self.matches(part, passage.section.work.id) for part in parts]
        whole = self.matches(passage.text, passage.section.work.id)
        beside = self._beside.get(passage.id, [0.0] * len(whole))
        # A name need not be said again in every sentence.
        known = [
            max(NAMED * value, there) if term in self.terms.exact else 0.0
            for term, value, there in zip(self.terms.words, whole, beside, strict=True)
        ]
        found = []
        for i, (start, end) in enumerate(spans):
            folded = flat(parts[i])
            # Where the text itself asks, the answer follows: such a question lends more than another sentence.
            asked = [d for d in NEAR if d < 0 <= i + d and _asks(parts[i + d])]
            near = {
                d: [(max(ASKED, fade) if d in asked else fade) * value for value in rows[i + d]]
                for d, fade in NEAR.items()
                if 0 <= i + d < len(rows)
            }
            evidence = self.terms.weigh([rows[i], known, *near.values()])
            own = self.terms.weigh([rows[i]])
            score = (
                evidence + OWN * own + PASSAGE * max(0.0, coverage - evidence) + CHAPTER * max(0.0, chapter - coverage)
            )
            score += candidate.bonus + self._form(parts[i], folded)
            if self.question.being:
                score += self._saying(folded)
            elif self.question.person and not rows[i][0]:
                score -= 0.2  # *chi ha ucciso*: the deed itself is missing
            elif not any(rows[i]) and not any(any(near[d]) for d in asked):
                score -= 0.3
            lent = self.terms.weigh([rows[i], near[-1]]) - own if -1 in near else 0.0
            if lent > 0.15 and not self.question.being and end - spans[i - 1][0] <= LONGEST:
                start = spans[i - 1][0]
            if parts[i].endswith(":") and i + 1 < len(spans) and spans[i + 1][1] - start <= LONGEST:
                end = spans[i + 1][1]  # what is announced belongs to it
            found.append(Choice(passage, start, end, score, covered=coverage))
        return max(found, key=lambda choice: choice.score, default=None)

    def sure(self, choice: Choice) -> bool:
        """Whether a quotation may be given without a reserve: mere nearness to the question's words is not an answer.

        It must hold `SURE` of the question's weight by itself. For *chi è X* it must say what X is. For *quando*, *quanti*,
        *perché* and their like it must have the form of such an answer (for *dove*, the deed, or the place said of the very
        thing asked about); otherwise the first word of the question, mostly
        the deed, as it stands or as its stem. For *chi* and *come si chiama* it must name somebody else, and neither deny
        nor leave out who did it. A question answers nothing, nor does what somebody else did.
        """
        question, folded = self.question, flat(choice.text)
        row = self.matches(choice.text, choice.passage.section.work.id)
        if self.terms.weigh([row]) < SURE:
            return False
        if question.being:
            return self._saying(folded) >= SAYS
        if _asks(choice.text) or _ASKED_ALOUD.search(choice.text) or self._anothers(choice.text):
            return False
        if "seat" in question.kinds and row[0] < STEM and not self._seated(folded):
            return False
        if question.kinds and question.signs(folded, choice.text) == 0.0:
            return False
        if (question.person or not question.kinds) and row[0] < STEM:
            return False
        if question.person or "name" in question.kinds:
            asked = set(words(question.text))
            named = any(fold(name) not in asked for name in _NAME_INSIDE.findall(choice.text))
            return named and not (question.person and (self._undergone(folded) or _DENIED.search(folded)))
        return True


def choose(question: Question, library: Library, limit: int = 3, sections: Sequence[Chapter] = ()) -> list[Choice]:
    """The best quotations, best first, at most one a passage, none twice; empty when nothing is relevant.

    Within some sections, if given; else in the works that the question names, or in all.

    A passage is relevant when it covers at least `RELEVANT` of the question's weight and has one of its names.
    """
    chooser = Chooser(question, library, named_works(question, library), sections)
    best = [choice for candidate in chooser.candidates if (choice := chooser.best(candidate))]
    best.sort(key=lambda choice: (-choice.score, choice.passage.id))
    once: dict[str, Choice] = {}
    for choice in best:
        once.setdefault(flat(choice.text), choice)
    return [replace(choice, sure=chooser.sure(choice)) for choice in list(once.values())[:limit]]
