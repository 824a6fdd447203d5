"""Questions about one chapter or canto: which section is meant, and whether it is to be told as a whole.

*Riassumi il capitolo VIII dei Promessi sposi* needs the chapter and not the passages nearest to its words. A section is
named by its number (Roman, Arabic, *ottavo*), with part, cantica or book where a work has several of that number, or
by its title in quotation marks. Nothing is guessed: where several works have such a section, they are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat.question import Question
from stilnovo.library import numerals
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library
from stilnovo.text.italian import content_words, fold, stem, tokens

_KINDS = {
    "capitolo": "capitolo", "cap": "capitolo", "canto": "canto", "parte": "parte", "libro": "libro", "atto": "atto",
    "scena": "scena", "novella": "novella", "lettera": "lettera", "giornata": "giornata", "episodio": "episodio",
}  # fmt: skip
_WORD = "|".join(_KINDS)
_NUMERAL = rf"(?:\d{{1,3}}|(?i:[ivxlc]{{1,8}})|(?i:{numerals.ORDINAL}(?:\s+{numerals.ORDINAL})?))"
_AFTER = re.compile(rf"\b(?P<kind>(?i:{_WORD}))\b\.?\s+(?:n\.?\s*)?(?P<number>{_NUMERAL})\b")
_BEFORE = re.compile(rf"\b(?P<number>(?i:{numerals.ORDINAL}(?:\s+{numerals.ORDINAL})?))\s+(?P<kind>(?i:{_WORD}))\b")
_OPENING = ("introduzione", "prefazione", "prologo", "epilogo", "conclusione", "proemio")
_CANTICHE = ("inferno", "purgatorio", "paradiso")
#: Words that such a question is made of; what is left beside them is asked about in particular.
_ASKED = """
riassumi riassumere riassumimi riassunto riassunti sintesi sintetizza sunto trama contenuto argomento parla parlano parlare
tratta trattano succede accade avviene capita racconta raccontami narra dice parlami spiegami spiega fammi presentami
descrivi breve brevemente favore puoi potresti intero romanzo opera poema storia
"""
_ASKING = frozenset(stem(word) for word in _ASKED.split())


#: Two sections whose first SAMPLE characters share this part of their words are two editions of one text.
SAMPLE, SAME = 1500, 0.8


@dataclass(frozen=True)
class NamedWork:
    """A section as a question names it: *canto*, 5; words that narrow it down (*inferno*), folded."""

    kind: str
    number: int | None
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """What a question confines itself to: the sections meant, and whether they are to be told as a whole.

    `sections` of one work are one answer; of several works, a question back.
    """

    named: NamedWork
    sections: tuple[Chapter, ...]
    whole: bool

    @property
    def works(self) -> list[Work]:
        """The works that have such a section."""
        return list(dict.fromkeys(section.work for section in self.sections))


def named_section(text: str) -> NamedWork | None:
    """The section a question names; None when it names none."""
    folded = fold(text)
    within = tuple(word for word in _CANTICHE if re.search(rf"\b{word}\b", folded))
    found = [*_AFTER.finditer(text), *_BEFORE.finditer(text)]
    parts = []
    for match in found:
        number = numerals.value(match.group("number").upper()) or numerals.value(match.group("number"))
        if number:
            parts.append((_KINDS[match.group("kind").lower()], number))
    if parts:
        # The smallest kind is meant; a book or part beside it narrows it down: "capitolo II del libro primo".
        inner = [pair for pair in parts if pair[0] not in ("libro", "parte", "atto", "giornata")] or parts
        outer = tuple(f"{kind} {number}" for kind, number in parts if (kind, number) != inner[0])
        return NamedWork(*inner[0], within=(*within, *outer))
    for name in _OPENING:
        if re.search(rf"\b{name}\b", folded):
            return NamedWork(name, None, within)
    return None


def _label_parts(section: Chapter) -> list[tuple[str, int | None]]:
    """*LIBRO PRIMO, Capitolo II* → [(libro, 1), (capitolo, 2)]; *Inferno, Canto V* → [(inferno, None), (canto, 5)]."""
    parts: list[tuple[str, int | None]] = []
    for part in section.label.split(","):
        kind, _, number = part.strip().partition(" ")
        number = number.strip()
        parts.append((fold(kind), numerals.value(number) or numerals.value(number.lower()) if number else None))
    return parts


def _is_meant(section: Chapter, named: NamedWork) -> bool:
    parts = _label_parts(section)
    if not section.label or (named.kind, named.number) != parts[-1]:
        return False
    around = {f"{kind} {number}" if number else kind for kind, number in parts[:-1]}
    return all(word in around for word in named.within)


def scope(question: Question, library: Library, works: Sequence[Work], before: Work | None = None) -> Scope | None:
    """The section that a question is about; None when it names none that the library has.

    Args:
        question: The question.
        library: Where to look.
        works: Those the question names; empty for all.
        before: The work last spoken of: preferred where the question names none.
    """
    named = named_section(question.text)
    if named is None:
        return None
    among = list(works) or library.works()
    found = [section for work in among for section in library.sections(work) if _is_meant(section, named)]
    if before is not None and any(section.work == before for section in found):
        found = [section for section in found if section.work == before]
    found = _once(found, library)
    if not found:
        return None
    return Scope(named, tuple(found), whole(question, found[0].work, named))


def _once(sections: Sequence[Chapter], library: Library) -> list[Chapter]:
    """The sections, each text once: of two editions of a work, the one whose author is known, or the first."""
    kept: list[tuple[Chapter, set[str]]] = []
    for section in sorted(sections, key=lambda one: not one.work.author):
        opening = {token.form for token in tokens(library.text(section.work)[section.body : section.body + SAMPLE])}
        if not any(len(opening & other) >= SAME * len(opening | other) for _, other in kept):
            kept.append((section, opening))
    return [section for section, _ in kept]


def whole(question: Question, work: Work, named: NamedWork) -> bool:
    """Whether a section is asked for as a whole: *riassumi*, *di cosa parla*, or nothing but its name."""
    about = {
        stem(word) for word in content_words(f"{work.title} {work.author} {' '.join(_KINDS)} {' '.join(_CANTICHE)}")
    }
    about |= {stem(word) for word in (*_OPENING, "divina", "commedia")}
    left = []
    for word in content_words(question.text):
        numeral = word.isdigit() or re.fullmatch(r"[ivxlc]+", word) or numerals.value(word)
        if not numeral and stem(word) not in about and stem(word) not in _ASKING:
            left.append(word)
    return not left


def heading(section: Chapter) -> str:
    """*I promessi sposi, Capitolo VIII*."""
    return ", ".join(part for part in (section.work.title, section.label) if part)


def without_section(text: str) -> str:
    """A question without the words that name the section: what is asked of it."""
    for pattern in (_AFTER, _BEFORE):
        text = re.sub(
            rf"(?i:\b(?:nel|nello|nella|nell['’]|del|della|dell['’]|al|il|la|l['’])\s*)?{pattern.pattern}", " ", text
        )
    cantiche = "|".join(_CANTICHE)
    text = re.sub(rf"(?i)\b(?:(?:nel|del|dello|dell['’])\s*)(?:{cantiche})\b", " ", text)
    return " ".join(text.split())


def follow_up(message: str, before: str) -> str:
    """*E nel canto VI?* after a question about canto V: that question, with the new section in its place."""
    named = named_section(message)
    earlier = [*_AFTER.finditer(before), *_BEFORE.finditer(before)]
    mine = [*_AFTER.finditer(message), *_BEFORE.finditer(message)]
    if named is None or not earlier or not mine or len(tokens(message)) > 6:
        return message
    first = earlier[0]
    return before[: first.start()] + mine[0].group() + before[first.end() :]
