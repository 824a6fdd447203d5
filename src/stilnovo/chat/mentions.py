"""Find the authors, works, sections and years that a question names, as readers name them.

*La Deledda*, *D'Annunzio*, *G. Verga*; *i Promessi*, *la Coscienza*, *Pinocchio*; *L'infinito*, *Tanto gentile e tanto onesta
pare*. Accents, apostrophes, articles and capitals never decide what is meant, but whether a word is a name: a *sure* mention has the
capital or the quotation marks of a name, or several of its words; any other (*il piacere*, *verga*, one letter wrong) counts only
in a question that is about the library's records and about nothing else (`chat/library_questions.py`).

Unusual: the question is then read with its mentions masked, *chi ha scritto W*, so that what a title says is never taken for
what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from stilnovo.chat.scope import places
from stilnovo.chat.slips import distance
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library
from stilnovo.reading import numerals
from stilnovo.text.italian import STOP_WORDS, Word, fold, listed, tokens, words

#: What a mention is of, by the letter that masks it: author, work, section with a name of its own, part of a work, section by
#: its number, year; a name of none of them.
Kind = Literal["A", "W", "T", "P", "S", "Y", "U"]
#: Openings of a title that its short form leaves out; words that part a title from its subtitle.
_GENERIC = (
    r"(?:(?:la |le |i |il |lo |gli )?(?:vera )?(?:storia|storie|avventure|vita|romanzo|libro|novella|tragedia|commedia)"
    r" (?:di |del |della |dei |d['’]))"
)
_SUBTITLE = re.compile(r"\s+(?:ovvero|ossia|o sia|overo)\s+|\s*[:;(\[–—]|\.\s+|\s-\s", re.I)
#: Authors who are called by their given name.
_BY_GIVEN_NAME = listed("dante michelangelo galileo leonardo raffaello caterina cecco jacopone")
#: What stands in a person's name without a capital.
PARTICLES = listed("de di da del della dei degli d van von la lo")
_ARTICLES = listed("il lo la l i gli le un uno una")
_YEAR = re.compile(r"(?<![\d.,])(1[0-9]{3}|20[0-9]{2})(?![\d.,]*\d)")
_DATE = re.compile(
    r"\b\d{1,2}°?\s+(?:gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre)(?:\s+1[0-9]{3})?\b",
    re.I,
)
_QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"]+)\"")
#: A shorter name than this is not guessed through a wrong letter.
_GUESSED = 5


class Mention(NamedTuple):
    """Words of a question, `text[start:end]`, that name something of the library; `U` names nothing that it has."""

    kind: Kind
    start: int
    end: int
    authors: tuple[str, ...] = ()
    works: tuple[Work, ...] = ()
    sections: tuple[int, ...] = ()
    sure: bool = True


class _Name(NamedTuple):
    """A way of calling something: its words, folded; `short` where it is a part of the full name."""

    kind: Kind
    forms: tuple[str, ...]
    value: object
    short: bool = False


@dataclass(frozen=True)
class Read:
    """A question with its mentions, in order; `sure` tells whether unsure ones were left out."""

    text: str
    mentions: tuple[Mention, ...]

    @cached_property
    def masked(self) -> str:
        """The question, folded, on one line, apostrophes as spaces, every mention as the letter of its kind, articles before it gone."""
        parts, at = [], 0
        for mention in self.mentions:
            parts += [fold(self.text[at : mention.start]), f" {mention.kind} "]
            at = mention.end
        parts.append(fold(self.text[at:]))
        line = re.sub(r"[^\w?]+", " ", "".join(parts).replace("'", " "))
        # *dei Promessi sposi*, *della Coscienza*: the preposition stays, the article goes.
        line = re.sub(
            r"\b(d|n|a|da|su|de|ne)(?:el|ello|ella|ell|ei|egli|elle|l|llo|lla|ll|i|gli|lle) (?=[AWTPSU]\b)",
            _preposition,
            line,
        )
        return " ".join(re.sub(r"\b(?:il|lo|la|l|i|gli|le) (?=[AWTPSU]\b)", "", line).split())

    def of(self, kind: Kind) -> list[Mention]:
        """The mentions of one kind."""
        return [mention for mention in self.mentions if mention.kind == kind]

    @cached_property
    def authors(self) -> tuple[str, ...]:
        """The authors named, as the records spell them."""
        return tuple(dict.fromkeys(author for mention in self.of("A") for author in mention.authors))

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """The works named, of the author named beside them where one of them is by that author."""
        named = tuple(dict.fromkeys(work for mention in (*self.of("W"), *self.of("P")) for work in mention.works))
        of_author = tuple(work for work in named if not work.author or work.author in self.authors)
        return of_author if self.authors and any(work.author for work in of_author) else named

    def without(self, mentions: Iterable[Mention]) -> str:
        """The question without some mentions and the prepositions and articles before them."""
        text = self.text
        for mention in sorted(mentions, reverse=True, key=lambda mention: mention.start):
            before = re.sub(
                r"(?i)(?:\b(?:ne[il]|nell[ae]|nell['’])\s*(?:romanz|oper|libr|novell|raccont|poesi)\w+\s+)?"
                r"(?:\b(?:(?:di|del|dello|della|dei|degli|delle|in|nel|nello|nella|nei|negli|nelle|da|dal|dalla|secondo)"
                r"|(?:del|nel|dal)l['’]|d['’])\s*)?(?:\b(?:il|lo|la|i|gli|le)\s+|l['’])?[«“\"]?$",
                "", text[: mention.start],
            )  # fmt: skip
            text = f"{before} {text[mention.end :].lstrip('»”')}"
        return re.sub(r"\s+(?=[?.,!])", "", " ".join(text.split())).lstrip(",; ")


def _preposition(match: re.Match[str]) -> str:
    return {"d": "di ", "de": "di ", "n": "in ", "ne": "in ", "a": "a ", "da": "da ", "su": "su "}[match[1]]


def _key(name: str) -> tuple[str, ...]:
    """The words by which a title is recognised: those that mean something where there are two of them, else all but the article."""
    every = words(name)
    solid = tuple(form for form in every if form not in STOP_WORDS)
    if len(solid) > 1:
        return solid
    return tuple(every[1:] if every[:1] and every[0] in _ARTICLES and len(every) > 1 else every)


def bare_title(work: Work) -> str:
    """A title without subtitle, author and generic opening: *Clelia*, *La Divina Commedia*, *Pinocchio*."""
    title = _SUBTITLE.split(work.title)[0]
    surname = words(work.author)[-1:] + words(work.author)[:1]
    if tail := re.search(r"\s+(?:di|del|della|d['’])\s+([^ ]+(?: [^ ]+)?)$", title):
        title = title[: tail.start()] if set(words(tail[1])) <= set(surname) and surname else title
    return re.sub(f"^{_GENERIC}", "", title, flags=re.I) or title


def same_work(one: Work, other: Work) -> bool:
    """Whether two records are copies of one work, as far as their names tell: *Pinocchio* and *Le avventure di Pinocchio*."""
    if one.author and other.author and fold(one.author) != fold(other.author):
        return False
    titles = [set(_key(bare_title(work))) for work in (one, other)]
    return titles[0] == titles[1] or (
        bool(titles[0] & titles[1]) and not (one.author and other.author) and _within(*titles)
    )


def _within(one: set[str], other: set[str]) -> bool:
    return one <= other or other <= one


def _names_of_works(works: Sequence[Work]) -> Iterator[_Name]:
    people = {form for work in works for form in words(work.author)}
    for work in works:
        title, bare = _key(work.title), _key(bare_title(work))
        yield from (_Name("W", key, work) for key in dict.fromkeys([title, _key(_SUBTITLE.split(work.title)[0]), bare]))
        solid = [form for form in words(bare_title(work)) if form not in STOP_WORDS]
        # The beginning or the end of a title stands for it.
        for part in {
            *(tuple(solid[:n]) for n in range(1, len(solid))),
            *(tuple(solid[n:]) for n in range(1, len(solid))),
        }:
            if part not in (title, bare) and not people.intersection(part):
                yield _Name("W", part, work, short=True)


def _names_of_authors(authors: Iterable[str]) -> Iterator[_Name]:
    for author in authors:
        full = words(author)
        if not full:
            continue
        yield _Name("A", tuple(full), author)
        first = next((i for i, form in enumerate(full) if i and form in PARTICLES), len(full) - 1)
        place = bool(re.search(r"\bda |\bd['’](?=[AEIOU]\w+$)", author)) and len(full) == 2
        yield _Name("A", tuple(full[first:]), author)
        glued = re.search(r"\b([DdL])['’](\w+)$", author)
        if glued:
            yield _Name("A", (fold(glued[1] + glued[2]),), author)
        if full[0] in _BY_GIVEN_NAME or (place and len(full) > 1):
            yield _Name("A", (full[0],), author)


def _names_of_sections(library: Library) -> Iterator[_Name]:
    for work, section, label, title, verse in library.headings():
        *outer, last = label.split(", ")
        for part in outer:
            if not numerals.value(part.split(" ")[-1].upper()) and words(part):
                yield _Name("P", _key(part), work)
        if date := _DATE.search(label):  # a letter, a page of a diary
            yield _Name("T", tuple(words(date[0])), section)
            yield _Name("T", tuple(words(date[0]))[:2], section)
            continue
        number, own = numerals.leading(last)
        numbered = number is None and (
            numerals.value(last.split(" ")[-1].upper()) is not None
            or re.fullmatch(r"(?i)\w+ ultim[oa]", last) is not None
        )
        for name in {title, "" if numbered else own}:
            key = _key(name)
            if key and (verse or len(key) < 12) and not (len(key) == 1 and key[0] in STOP_WORDS):
                yield _Name("T", key, section)


class Namer:
    """Finds the mentions of one library's names in questions."""

    def __init__(self, library: Library) -> None:
        self.library = library
        works = library.works()
        authors = list(dict.fromkeys(work.author for work in works if work.author))
        self._by_first: dict[str, list[_Name]] = {}
        for name in (*_names_of_works(works), *_names_of_authors(authors), *_names_of_sections(library)):
            if name.forms:
                self._by_first.setdefault(name.forms[0], []).append(name)

    def read(self, text: str, unsure: bool = False, lines: bool = False) -> Read:
        """Find what a question names.

        Args:
            text: The question.
            unsure: Take also names without a capital, parts of titles, and names with one wrong letter.
            lines: Take also first lines for the poems that begin so.
        """
        every = tokens(text)
        quoted = [(match.start(), match.end()) for match in _QUOTED.finditer(text)]
        found: list[Mention] = []
        for at in range(len(every)):
            found += self._at(text, every, at, quoted, unsure)
        found += self._by_first_line(text, every) if lines else []
        found += [Mention("S", m.start(), m.end()) for m in places(text)]
        found += [Mention("Y", m.start(), m.end()) for m in _YEAR.finditer(text)]
        return Read(text, tuple(_longest(found)))

    def _candidates(self, form: str, unsure: bool) -> Iterator[tuple[_Name, bool]]:
        yield from ((name, False) for name in self._by_first.get(form, ()))
        if unsure and len(form) >= _GUESSED and form not in STOP_WORDS:
            for other, names in self._by_first.items():
                if other != form and other[0] == form[0] and _slip(form, other):
                    yield from ((name, True) for name in names if name.kind in "AW")

    def _at(
        self, text: str, every: list[Word], at: int, quoted: Sequence[tuple[int, int]], unsure: bool
    ) -> Iterator[Mention]:
        """The mentions whose first own word is this one; those of one kind and length are one mention."""
        together: dict[tuple[Kind, int, int, bool], list[object]] = {}
        for name, guessed in self._candidates(every[at].form, unsure):
            last = _end(every, at, name.forms, unsure)
            if last is None:
                continue
            first = _with_article(text, every, at, name)
            sure = not guessed and _is_sure(text, every, at, first, last, name, quoted)
            if sure or (unsure and _may_be(text, every[at], name)):
                begin = min(first, at - _lead(every, at, name))
                together.setdefault((name.kind, every[begin].start, every[last].end, sure), []).append(name.value)
        for (kind, start, end, sure), values in together.items():
            yield self._mention(kind, start, end, values, sure)

    def _by_first_line(self, text: str, every: list[Word]) -> Iterator[Mention]:
        """Poems called by their first line, or by its beginning: three words of it, of which two mean something."""
        opening: dict[str, list[tuple[list[str], int]]] = {}
        for section, line in self.library.first_lines():
            forms = [word.form for word in tokens(line)]
            opening.setdefault(forms[0] if forms else "", []).append((forms, section))
        asked = [word.form for word in every]
        for at, form in enumerate(asked):
            named: dict[int, list[int]] = {}
            for forms, section in opening.get(form, ()):
                same = next((i for i, (a, b) in enumerate(zip(asked[at:], forms, strict=False)) if a != b), None)
                length = min(len(asked) - at, len(forms)) if same is None else same
                if length >= 3 and sum(word not in STOP_WORDS for word in forms[:length]) >= 2:
                    named.setdefault(length, []).append(section)
            if named:
                longest = max(named)
                yield Mention("T", every[at].start, every[at + longest - 1].end, sections=tuple(named[longest]))

    def _mention(self, kind: Kind, start: int, end: int, values: list[object], sure: bool) -> Mention:
        distinct = tuple(dict.fromkeys(values))
        if kind == "A":
            return Mention(kind, start, end, authors=distinct, sure=sure)  # type: ignore[arg-type]
        if kind == "W":
            return Mention(kind, start, end, works=distinct, sure=sure)  # type: ignore[arg-type]
        if kind == "P":
            works = tuple(dict.fromkeys(self.library.work(part) for part in distinct))  # type: ignore[arg-type]
            return Mention(kind, start, end, works=works, sure=sure)
        return Mention(kind, start, end, sections=distinct, sure=sure)  # type: ignore[arg-type]

    def sections(self, read: Read) -> list[Chapter]:
        """The sections that a question calls by their own name, in the works that it names."""
        named = [self.library.section(section) for mention in read.of("T") for section in mention.sections]
        return [
            c
            for c in named
            if (not read.works or c.work in read.works) and (not read.authors or c.work.author in read.authors)
        ]


def _slip(claimed: str, name: str) -> bool:
    """Whether a word is a name with a letter wrong, of a long one with two."""
    limit = 1 if len(name) < 8 else 2
    swapped = len(claimed) == len(name) and sorted(claimed) == sorted(name) and distance(claimed, name, 2) <= 2
    return len(name) >= _GUESSED and (swapped or distance(claimed, name, limit) <= limit)


def _end(every: list[Word], at: int, forms: tuple[str, ...], unsure: bool) -> int | None:
    """Index of the last word of a name that begins at a word; function words between its own do not matter."""
    for form in forms[1:]:
        at += 1
        while at < len(every) and every[at].form != form and (every[at].form in STOP_WORDS or every[at].elided):
            at += 1
        if at == len(every) or not (every[at].form == form or (unsure and _slip(every[at].form, form))):
            return None
    return at


def _with_article(text: str, every: list[Word], at: int, name: _Name) -> int:
    """The word with which a name begins: an article with a capital (*Il piacere*), an initial (*G. Verga*), *D'* of *D'Annunzio*."""
    if at and every[at - 1].elided and name.kind == "A" and re.search(r"\b[dD]['’]", str(name.value)):
        return at - 1 if every[at - 1].form == "d" else at
    if at and every[at - 1].form in _ARTICLES and text[every[at - 1].start].isupper():
        return at - 1
    if (
        at
        and len(every[at - 1].form) == 1
        and text[every[at - 1].end : every[at - 1].end + 1] == "."
        and text[every[at - 1].start].isupper()
    ):
        return at - 1
    return at


def _lead(every: list[Word], at: int, name: _Name) -> int:
    """How many words of a title stand before its first own word, if they do: *Con gli* before *occhi chiusi*."""
    title = words(name.value.title) if isinstance(name.value, Work) else []
    lead = title[: title.index(name.forms[0])] if name.forms[0] in title else []
    return len(lead) if len(lead) > 1 and [word.form for word in every[max(0, at - len(lead)) : at]] == lead else 0


def _is_sure(
    text: str, every: list[Word], at: int, first: int, last: int, name: _Name, quoted: Sequence[tuple[int, int]]
) -> bool:
    start, end = every[first].start, every[last].end
    if name.forms[0].isdigit():
        return True
    whole = any(s <= start and end <= e for s, e in quoted)
    capital = text[every[at].start].isupper() and at > 0
    if name.kind == "A":
        return capital or len(name.forms) > 1
    capital = capital or (first < at and first > 0)
    if name.short or name.kind == "T":
        long = len(name.forms) > 2 or (len(name.forms) > 1 and capital)
        return whole or (name.kind == "T" and (long or (first < at and first > 0)))
    return whole or capital or len(name.forms) > 1


def _may_be(text: str, word: Word, name: _Name) -> bool:
    """Whether a name that is not sure may be meant: a part of a title, or one word that titles a section, needs its capital, but of
    somebody who writes none."""
    partial = name.short or (name.kind == "T" and len(name.forms) == 1)
    return not partial or text[word.start].isupper() or text[1:].islower()


def _longest(found: Iterable[Mention]) -> list[Mention]:
    """Of mentions that overlap, the longest; of equal ones the surest, then works before authors before sections."""
    order = "WAPSTYU"
    taken: list[Mention] = []
    for mention in sorted(
        found, key=lambda m: (not m.sure, m.kind == "S", m.start - m.end, order.index(m.kind), m.start)
    ):
        if all(mention.end <= other.start or other.end <= mention.start for other in taken):
            taken.append(mention)
    return sorted(taken, key=lambda mention: mention.start)
