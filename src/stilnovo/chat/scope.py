"""Questions about one section: detect which chapter or canto is meant, and whether a summary of it is asked for.

*Riassumi il capitolo VIII dei Promessi sposi* needs the chapter and not the passages nearest to its words. A section is
named by its number (Roman, Arabic, *ottavo*), with part, cantica or book where a work has several of that number, or
by its title. Nothing is guessed: where several works have such a section, they are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stilnovo.chat.question import Question
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library
from stilnovo.reading import numerals
from stilnovo.text.italian import content_words, fold, stem, tokens

_KINDS = {
    "capitolo": "capitolo", "cap": "capitolo", "canto": "canto", "parte": "parte", "libro": "libro", "atto": "atto",
    "scena": "scena", "novella": "novella", "lettera": "lettera", "giornata": "giornata", "episodio": "episodio",
    "sonetto": "sonetto", "poesia": "poesia", "canzone": "canzone", "madrigale": "madrigale", "ballata": "ballata",
    "componimento": "poesia", "lirica": "poesia",
}  # fmt: skip
#: Kinds of poems: what one edition counts as the sonnets another counts as the poems of a book.
_POEMS = ("poesia", "sonetto", "canzone", "madrigale", "ballata", "canto")
_WORD = "|".join(_KINDS)
_NUMERAL = rf"(?:\d{{1,3}}|(?i:(?!di\b|mi\b)[ivxlcdm]{{1,15}})|(?i:{numerals.ORDINAL}(?:\s+{numerals.ORDINAL})?))"
_AFTER = re.compile(rf"\b(?P<kind>(?i:{_WORD}))\b\.?\s+(?:n\.?\s*)?(?P<number>{_NUMERAL})\b(?!['’])")
#: *L'ultimo capitolo*: counted from the end.
_LAST = {"ultim": -1, "penultim": -2}
_BEFORE = re.compile(
    rf"\b(?P<number>(?i:(?:pen)?ultim[oa]|{numerals.ORDINAL}(?:\s+{numerals.ORDINAL})?))\s+(?P<kind>(?i:{_WORD}))\b"
)
#: *Scena ultima*.
_LAST_SCENE = re.compile(r"\b(?P<kind>(?i:scena|atto))\s+(?P<number>(?i:(?:pen)?ultim[oa]))\b")
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


class NamedSection(NamedTuple):
    """A section as a question names it: *canto*, 5; words that narrow it down (*inferno*), folded."""

    kind: str
    number: int | None
    within: tuple[str, ...] = ()


class Scope(NamedTuple):
    """The sections that a question is limited to, and whether a summary of them is asked for.

    `sections` of one work are one answer; of several works, a question back.
    """

    sections: tuple[Chapter, ...]
    whole: bool


def places(text: str) -> list[re.Match[str]]:
    """Find where a text names sections by number."""
    found = [*_AFTER.finditer(text), *_BEFORE.finditer(text), *_LAST_SCENE.finditer(text)]
    return [place for place in found if _number(place["number"])]


def _number(numeral: str) -> int | None:
    return _LAST.get(numeral[:-1].lower()) or numerals.value(numeral.upper()) or numerals.value(numeral.lower())


def named_section(text: str) -> NamedSection | None:
    """The section a question names; None when it names none."""
    folded = fold(text)
    within = tuple(word for word in _CANTICHE if re.search(rf"\b{word}\b", folded))
    numbers = [(_KINDS[place["kind"].lower()], _number(place["number"])) for place in places(text)]
    if parts := [(kind, number) for kind, number in numbers if number]:
        # The smallest kind is meant; a book or part beside it narrows it down: "capitolo II del libro primo".
        inner = [part for part in parts if part[0] not in ("libro", "parte", "atto", "giornata")] or parts
        outer = tuple(f"{kind} {number}" for kind, number in parts if (kind, number) != inner[0])
        return NamedSection(*inner[0], within=(*within, *outer))
    opening = next((word for word in _OPENING if re.search(rf"\b{word}\b", folded)), None)
    return NamedSection(opening, None, within) if opening else None


def _parts(section: Chapter) -> list[tuple[str, int | None]]:
    """*LIBRO PRIMO, Capitolo II* is (libro, 1) and (capitolo, 2); *Inferno, Canto V* is (inferno, None) and (canto, 5)."""
    labels = (part.strip().partition(" ") for part in section.label.split(","))
    return [(fold(kind), _number(number.strip()) if number else None) for kind, _, number in labels]


def _is_meant(section: Chapter, named: NamedSection) -> bool:
    *outer, own = _parts(section)
    around = {f"{kind} {number}" if number else kind for kind, number in outer}
    return bool(section.label) and own == named[:2] and around.issuperset(named.within)


def _is_poem(section: Chapter, named: NamedSection) -> bool:
    """Whether a section is the poem of this number, whatever poems are called there: *XII. L'infinito*, *Poesia CC*."""
    kind, number = _parts(section)[-1]
    leading = numerals.leading(section.label.split(", ")[-1])[0]
    return named.kind in _POEMS and named.number in (leading, number if kind in _POEMS else None)


def numbered(named: NamedSection, sections: Sequence[Chapter]) -> list[Chapter]:
    """The sections of one work that have this number; a negative one counts from the end."""
    if named.number is None or named.number > 0:
        meant = [section for section in sections if _is_meant(section, named)]
        return meant or [section for section in sections if section.verse and _is_poem(section, named)]
    of_kind = [s for s in sections if any(_is_meant(s, named._replace(number=number)) for _, number in _parts(s)[-1:])]
    # Letters and novellas without numbers have a last one, too.
    return (of_kind or [s for s in sections if s.label and named.kind in ("lettera", "novella")])[named.number :][:1]


def scope(question: Question, library: Library, works: Sequence[Work], before: Work | None = None) -> Scope | None:
    """The section that a question is about; None when it names none that the library has.

    Args:
        question: The question.
        library: Where to look.
        works: Those the question names; empty for all.
        before: The work last spoken of: preferred where the question names none.
    """
    named = named_section(question.text)
    if named is None and _ASKING.isdisjoint(map(stem, content_words(question.text))):
        return None
    meant = [
        section
        for work in list(works) or library.works()
        for section in (
            numbered(named, library.sections(work))
            if named
            else [section for section in library.sections(work) if _is_titled(section, question)]
        )
    ]
    sections = _once([section for section in meant if section.work == before] or meant, library)
    return Scope(tuple(sections), named is None or _whole(question, sections[0].work)) if sections else None


def _is_titled(section: Chapter, question: Question) -> bool:
    """Whether a question asks for a section as a whole by its title: *Riassumi L'infinito*."""
    last = section.label.split(", ")[-1]
    name = section.title or ("" if _AFTER.match(last) else numerals.leading(last)[1])
    title, asked = (" ".join(re.findall(r"\w+", fold(text))) for text in (name, question.text))
    return bool(content_words(name)) and f" {title} " in f" {asked} " and _whole(question, section.work, name)


def _once(sections: Sequence[Chapter], library: Library) -> list[Chapter]:
    """Remove duplicate sections: of two editions of a work, take the one whose author is known, or the first."""
    openings: dict[Chapter, set[str]] = {}
    for section in sorted(sections, key=lambda section: not section.work.author):
        opening = {token.form for token in tokens(library.text(section.work)[section.body : section.body + SAMPLE])}
        if not any(len(opening & other) >= SAME * len(opening | other) for other in openings.values()):
            openings[section] = opening
    return list(openings)


def _whole(question: Question, work: Work, name: str = "") -> bool:
    """Whether a whole section is asked for: *riassumi*, *di cosa parla*, or nothing but its name."""
    about = f"{name} {work.title} {work.author} {' '.join((*_KINDS, *_CANTICHE, *_OPENING))} divina commedia"
    naming = {stem(word) for word in content_words(about)} | _ASKING
    return all(
        word.isdigit() or re.fullmatch(r"[ivxlcdm]+", word) or numerals.value(word) or stem(word) in naming
        for word in content_words(question.text)
    )


def heading(section: Chapter) -> str:
    """Title of a section with its work: *I promessi sposi, Capitolo VIII*."""
    return ", ".join(part for part in (section.work.title, section.label) if part)


def without_section(text: str) -> str:
    """Remove the words that name the section from a question."""
    for pattern in (_AFTER, _BEFORE):
        text = re.sub(
            rf"(?i:\b(?:nel|nello|nella|nell['’]|del|della|dell['’]|al|il|la|l['’])\s*)?{pattern.pattern}", " ", text
        )
    text = re.sub(rf"(?i)\b(?:(?:nel|del|dello|dell['’])\s*)(?:{'|'.join(_CANTICHE)})\b", " ", text)
    return " ".join(text.split())


def follow_up(message: str, before: str) -> str:
    """Resolve *E nel canto VI?* after a question about canto V: that question, with the new section in its place."""
    earlier, mine = places(before), places(message)
    if not earlier or not mine or len(tokens(message)) > 6:
        return message
    return before[: earlier[0].start()] + mine[0].group() + before[earlier[0].end() :]
