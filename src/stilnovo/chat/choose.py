"""Rank sentences of the library as answers to a question, by rules without a model.

Every term of the question weighs its rarity in the library, damped; names weigh half as much again. A sentence counts a
term in full where it has the word itself, less for its stem or a kindred word, less again when only a sentence nearby
or the rest of the passage has it. To that come what the kind of question asks for (a date, a place, *X era un …*), the
passage's rank in the search, and for names the work that speaks of them most; questions lose. The best
sentence, with the one before it when that holds the subject, is the quotation.

Whether it is a sure answer is judged more strictly, by the quotation alone: see `Chooser.sure`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.chat.question import STEM, Question, Terms, flat
from stilnovo.chat.units import LONGEST, asks, units
from stilnovo.library.index import Sought
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, stem, tokens, words

#: Passages read for a question; what the first in the search is worth, and the work that speaks most of whom it names.
READ, RANK, SPOKEN_OF = 40, 0.15, 0.2
#: Early mentions of whom *chi è X* asks about that are read, and what the first of them is worth.
INTRODUCTIONS, INTRODUCED = 60, 0.3
#: What it is worth that a place is said of the very thing asked about.
SEATED = 0.15
#: What a term counts when only the names of work and chapter have it; a sentence nearby, by distance; the rest of the
#: passage.
CONTEXT, NEAR, PASSAGE = 0.5, {-1: 0.7, 1: 0.55, -2: 0.5, 2: 0.4, -3: 0.3}, 0.4
#: What a name counts that stands elsewhere in the passage.
NAMED = 0.6
#: What a question in the text lends to the sentences after it.
ASKED = 0.8
#: What a sentence's own terms count beyond that, and what its length takes away: the compact sentence is the answer.
OWN, LENGTH = 0.2, 0.05
#: Below this share of the question's weight a passage is about something else.
RELEVANT = 0.35
#: A sure quotation has this share of the question's weight itself; one for *chi è X* says this clearly what X is.
SURE, SAYS = 0.7, 0.3
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
_DENIED = re.compile(r"\bnessun[oa]?\b|\bnon (?:cred|dic|pens|suppon)\w+ (?:\w+ )?che\b")
_NAMED = r"(?P<name{}>[A-ZÀ-Þ][a-zà-ÿ]{{2,}}(?: [A-ZÀ-Þ][a-zà-ÿ]{{2,}})?)"
#: *Cosimo Altieri, l'armatore del brigantino*, *la fornaia Ersilia*: a name beside a WORD.
_BESIDE = rf"{_NAMED.format(1)}, (?:(?:il|lo|la|un|una|uno) |l['’])(?:\w+ )?WORD|\b(?:il|lo|la|l['’]) ?WORD {_NAMED.format(2)}"
_WITH_ARTICLE = r"\b(?:il|lo|la|l|del|dello|della|dell|al|alla|all) (?:\w+ )?"
_NAME_INSIDE = re.compile(r"(?<=[\w,;:] )[A-ZÀ-Þ][a-zà-ÿ]{2,}")


@dataclass(frozen=True)
class Choice:
    """A selected quotation: `passage.text[start:end]`, its score, whether it is a confident answer, and the share of the
    question's weight that its passage covers."""

    passage: Passage
    start: int
    end: int
    score: float
    sure: bool = False
    covered: float = 1.0

    @property
    def text(self) -> str:
        """The quoted words."""
        return self.passage.text[self.start : self.end]


def unknown_names(question: Question, library: Library) -> list[str]:
    """Names and numbers of the question that occur nowhere in the library, as the question writes them."""
    index = library.index
    asked = [token for token in tokens(question.text)[1:] if token.form in question.names or token.form.isdigit()]
    return [
        question.text[token.start : token.end]
        for token in asked
        if not index.mentions(token.form) and not index.match(Sought(context=(stem(token.form),)), 1)
    ]


class Chooser:
    """Scores the sentences of passages for one question over one library."""

    def __init__(
        self, question: Question, library: Library, works: Sequence[Work], sections: Sequence[Chapter] = ()
    ) -> None:
        titles = frozenset(stem(token.form) for work in works for token in tokens(work.title))
        self.question, self.terms = question, Terms(question, library, titles)
        self._library, self._works = library, [work.id for work in works]
        self.candidates = [(p, 0.0) for section in sections for p in library.passages_of(section)] or self._gathered()
        self.terms.aliases |= {
            term: self._alias(term)
            for term in set(self.terms.words) - self.terms.exact
            if re.search(rf"{_WITH_ARTICLE}{term}\b", question.folded)
        }

    def _alias(self, term: str) -> frozenset[str]:
        """The name that passages mention most often beside a word such as *il guardiano*."""
        places = re.compile(_BESIDE.replace("WORD", rf"{re.escape(term[:-1])}\w\b"))
        names = Counter(
            match["name1"] or match["name2"]
            for passage, _ in self.candidates
            for match in places.finditer(passage.text)
        ).most_common(1)
        return frozenset(fold(names[0][0]).split()) if names else frozenset()

    def _gathered(self) -> list[tuple[Passage, float]]:
        """Retrieved passages with a bonus for their rank in the search and for their work.

        A name belongs to the work that speaks of it most, and is introduced where it stands first.
        """
        hits = search(self._library, self.question.text, READ, self._works)
        passages = {hit.passage.id: hit.passage for hit in hits}
        bonus = {hit.passage.id: RANK * hit.score / hits[0].score for hit in hits}
        mentions = self._library.index.mentions(self.terms.names[0]) if self.terms.names else {}
        by_work = {work: ids for work, ids in mentions.items() if not self._works or work in self._works}
        most = max(map(len, by_work.values()), default=1)
        for ids in by_work.values() if self.question.being else ():
            if len(ids) * 3 >= most:
                for i, passage_id in enumerate(ids[:INTRODUCTIONS]):
                    bonus[passage_id] = bonus.get(passage_id, 0.0) + INTRODUCED / (1 + 0.5 * i)
        passages |= {passage.id: passage for passage in self._library.passages([i for i in bonus if i not in passages])}
        return [
            (passage, bonus[key] + SPOKEN_OF * len(by_work.get(passage.section.work.id, ())) / most)
            for key, passage in passages.items()
        ]

    def covered(self, passage: Passage) -> float:
        """Share of the question's terms (weighted) that occur in a passage or its headings; 0 without the question's names."""
        section = passage.section
        names = f"{section.work.title} {section.work.author} {section.label} {section.title}"
        inside, around = self.terms.matches(passage.text), self.terms.matches(names)
        exact = [
            max(pair) for term, *pair in zip(self.terms.words, inside, around, strict=True) if term in self.terms.exact
        ]
        if exact and not any(exact):
            return 0.0
        return self.terms.weigh([inside, [CONTEXT * value for value in around]])

    def _form(self, sentence: str, folded: str) -> float:
        """Bonus or penalty for a sentence's form: type of answer, a person named, questions, length."""
        score = self.question.signs(folded, sentence) - LENGTH * min(1.0, len(sentence) / LONGEST)
        if self.question.person:
            score += 0.1 * any(fold(name) not in self.terms.exact for name in _NAME_INSIDE.findall(sentence))
            score -= 0.15 * bool(_DENIED.search(folded)) + 0.15 * self._undergone(folded)
        if self._anothers(sentence):
            score -= 0.3
        elif "seat" in self.question.kinds and self._seated(folded):
            score += SEATED
        return score - 0.35 * asks(sentence)

    def _anothers(self, sentence: str) -> bool:
        """Whether the verb asked about has another subject: *Egidio che abitava accanto* does not say where Lucia lives."""
        deed = next((i for i, term in enumerate(self.terms.words) if term not in self.terms.exact), None)
        if deed is None or not self.terms.exact or self.question.person or self.question.being:
            return False
        return any(
            fold(match["whom"]) not in self.terms.words
            and self.terms.matches(match["deed"])[deed] >= STEM
            # *Lucia, una giovane che abitava …* may still be she; *Egidio che abitava …* is not.
            and (
                match["whom"][0].isupper()
                or self.terms.exact.isdisjoint(token.form for token in tokens(sentence[: match.start()]))
            )
            for match in _RELATIVE.finditer(sentence)
        )

    def _seated(self, folded: str) -> bool:
        """For *dove*: whether the sentence locates the thing asked about, not something beside it."""
        return any(re.search(_SEATED.replace("TERM", re.escape(term)), folded) for term in self.terms.words)

    def _undergone(self, folded: str) -> bool:
        """Whether a sentence is passive without an agent: *il faro era spento* does not answer *chi spense*."""
        done = r"\b(?:era|erano|fu|furono|stat[oaie]) (?:\w+ )?(\w+[ts][oaie])\b(?! (?:da|dal|dallo|dalla|dai)\b)"
        return any(self.terms.matches(participle)[0] for participle in re.findall(done, folded))

    def _saying(self, folded: str) -> float:
        """For *chi è X*: how clearly a sentence defines X."""
        name = self.question.being[-1]
        if not re.search(rf"\b{re.escape(name)}\b", folded):
            return -0.5
        score = sum(
            weight for pattern, weight in _SAYING if re.search(pattern.replace("NAME", re.escape(name)), folded)
        )
        return min(score, 0.6) + (0.1 if folded.find(name) < 40 else 0.0)

    def best(self, passage: Passage, bonus: float) -> Choice | None:
        """The best sentence of a passage; None when the passage is irrelevant."""
        coverage = self.covered(passage)
        if coverage < RELEVANT:
            return None
        spans = units(passage)
        parts = [passage.text[start:end] for start, end in spans]
        rows = [self.terms.matches(part) for part in parts]
        # A name need not be said again in every sentence.
        known = [
            NAMED * value if term in self.terms.exact else 0.0
            for term, value in zip(self.terms.words, self.terms.matches(passage.text), strict=True)
        ]
        choices = []
        for i, (start, end) in enumerate(spans):
            # Where the text itself asks, the answer follows: such a question lends more than another sentence.
            asked = [d for d in NEAR if d < 0 <= i + d and asks(parts[i + d])]
            near = {
                d: [(max(ASKED, fade) if d in asked else fade) * value for value in rows[i + d]]
                for d, fade in NEAR.items()
                if 0 <= i + d < len(rows)
            }
            evidence, own = self.terms.weigh([rows[i], known, *near.values()]), self.terms.weigh([rows[i]])
            folded = flat(parts[i])
            score = (
                bonus + evidence + OWN * own + PASSAGE * max(0.0, coverage - evidence) + self._form(parts[i], folded)
            )
            if self.question.being:
                score += self._saying(folded)
            elif self.question.person and not rows[i][0]:
                score -= 0.2  # *chi ha ucciso*: the deed itself is missing
            lent = self.terms.weigh([rows[i], near[-1]]) - own if -1 in near else 0.0
            if lent > 0.15 and not self.question.being and end - spans[i - 1][0] <= LONGEST:
                start = spans[i - 1][0]
            if parts[i].endswith(":") and i + 1 < len(spans) and spans[i + 1][1] - start <= LONGEST:
                end = spans[i + 1][1]  # what is announced belongs to it
            choices.append(Choice(passage, start, end, score, covered=coverage))
        return max(choices, key=lambda choice: choice.score, default=None)

    def sure(self, choice: Choice) -> bool:
        """Whether a quotation answers with confidence; similarity to the question's words alone does not suffice.

        It must hold `SURE` of the question's weight by itself. For *chi è X* it must say what X is. For *quando*, *quanti*,
        *perché* and their like it must have the form of such an answer (for *dove*, the deed, or the place said of the very
        thing asked about); otherwise the first word of the question, mostly
        the deed, as it stands or as its stem. For *chi* and *come si chiama* it must name somebody else, and neither deny
        nor leave out who did it. A question answers nothing, nor does what somebody else did.
        """
        question, folded = self.question, flat(choice.text)
        row = self.terms.matches(choice.text)
        if self.terms.weigh([row]) < SURE:
            return False
        if question.being:
            return self._saying(folded) >= SAYS
        fails = (
            (asks(choice.text) or _ASKED_ALOUD.search(choice.text) or self._anothers(choice.text))
            or ("seat" in question.kinds and row[0] < STEM and not self._seated(folded))
            or (question.kinds and question.signs(folded, choice.text) == 0.0)
            or ((question.person or not question.kinds) and row[0] < STEM)
        )
        if fails:
            return False
        if question.person or "name" in question.kinds:
            asked = set(words(question.text))
            named = any(fold(name) not in asked for name in _NAME_INSIDE.findall(choice.text))
            return named and not (question.person and (self._undergone(folded) or _DENIED.search(folded)))
        return True


def choose(
    question: Question, library: Library, limit: int = 3, works: Sequence[Work] = (), sections: Sequence[Chapter] = ()
) -> list[Choice]:
    """Select the best quotations, best first, at most one per passage, without duplicates; empty when nothing is relevant.

    Within some sections, if given; else in some works, or in all.

    A passage is relevant when it covers at least `RELEVANT` of the question's weight and has one of its names.
    """
    chooser = Chooser(question, library, works, sections)
    relevant = [choice for passage, bonus in chooser.candidates if (choice := chooser.best(passage, bonus))]
    best = sorted(relevant, key=lambda choice: (-choice.score, choice.passage.id))
    once = {flat(choice.text): choice for choice in reversed(best)}  # the best of those that say the same
    chosen = sorted(once.values(), key=best.index)[:limit]
    return [replace(choice, sure=chooser.sure(choice)) for choice in chosen]
