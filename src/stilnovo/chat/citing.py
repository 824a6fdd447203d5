"""Find what cites: keys of passages ([P1], (p1), [P1, P2], P1 after a quotation), note marks (¹, [1], [^1]), references in words.

A reference in words is a parenthesis, or a line after a dash, that names an author or a title of the library, or a place
(*cap. I*, *canto V, v. 3*). Whoever wrote it, a machine or a person, it is only a claim: what is shown beside a quotation is
the place where its words were found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stilnovo.chat.claims import NeedMore
from stilnovo.library.records import Work
from stilnovo.text.italian import STOP_WORDS, fold, tokens, words

_ONE = r"[PpＰРρΡр]\s?\d{1,5}"
_KEYS = (
    rf"[\[(【［（{{]\s*(?:(?:cfr|vedi|v|brano|passo|fonte|da)\.?:?\s*)?{_ONE}"
    rf"(?:\s*(?:[,;/&+–-]|\be\b)\s*{_ONE}|\s*(?:[,;/&+–-])\s*\d{{1,5}}){{0,8}}\s*[\])】］）}}]"
)
#: Keys in brackets anywhere, and a single key in the words *brano P1*.
KEYS = re.compile(rf"{_KEYS}|(?<=brano )P\d{{1,5}}\b|(?<=passo )P\d{{1,5}}\b")
_BARE_KEY = re.compile(r"P\d{1,5}\b")
_NUMBER = re.compile(r"\d+")
#: What may yet become a key or a note mark, at the end of a text that is still being written.
CITING_BEGUN = re.compile(
    r"(?:[\[(【［（{]\s*(?:[A-Za-z]{0,5}\.?:?\s*)?[\sPpＰРρΡр\d,;/&+–e-]{0,120}|\[\^\w{0,20}|[¹²³⁰⁴-⁹]+|<sup>[^<>]{0,8}(?:</?s?u?p?)?|"
    r"(?<=brano )P\d{0,5}|(?<=passo )P\d{0,5})\Z"
)
#: A parenthesis that is not closed yet.
PARENTHESIS_BEGUN = re.compile(r"(?:\((?:[^()\n]|\([^()\n]{0,60}\)){0,200}(?:\([^()\n]{0,60})?|\[[^\[\]\n]{0,200})\Z")
#: Marks of footnotes.
NOTE_MARK = re.compile(r"[¹²³⁰⁴-⁹]+|\[\^?\d{1,3}\]|\[\^\w{1,20}\]|<sup>[^<>]{1,8}</sup>")
#: A footnote's own line: its mark, then its text.
NOTE_LINE = re.compile(rf"(?P<mark>\[\^\w{{1,20}}\](?=:)|(?!\[\^)(?:{NOTE_MARK.pattern}))[:.]?[ \t]+(?P<text>[^\n]*)")
PARENTHESIS = re.compile(r"\((?P<round>(?:[^()\n]|\([^()\n]{0,60}\)){2,200})\)|\[(?P<square>[^\[\]\n]{2,200})\]")
#: A reference is not longer; more words after a dash are a speech, in parentheses a remark.
REFERENCE_WORDS = 14
_AFTER_DASH = re.compile(
    r"(?:[—–―]|--?(?= )|(?i:fonte|tratto da|da|source|rif|riferimento)[.]?[ \t]*:)[ \t]*"
    r"(?![^\n]{0,120}:[ \t]*[‘’'„_*<`»›&])(?P<reference>[^\n«“\"]{2,160})(?=\n|\Z)"
)
_LETTER = r"[^\n;:«“\"()\[\]]"
_AFTER_COMMA = re.compile(
    rf",?[ \t]+(?:in[ \t]+|da[ \t]+)?(?P<reference>[A-ZÀ-Ý*_](?:(?!\.){_LETTER}|(?<=\b[A-Z])\.){{2,100}}?,[ \t]*"
    r"(?:cap|capitolo|canto|atto|scena|vv?|pp?|pag|parte|libro)\.?[ \t]*[IVXLCivxlc\d]{1,9}"
    r"(?:,[ \t]*vv?\.[ \t]*\d{1,5}(?:[-–]\d{1,5})?)?)"
)
_LOCATED = re.compile(
    r"\b(?:op\.? ?cit|ivi|ibid(?:em)?|cfr|tratto da|da:|fonte)\b|\b(?:cap|canto|atto|capitolo|vv?|pp?|pag)\b\.?\s*[\dIVXLCivxlc]|"
    r"\b(?:inf(?:erno)?|purg(?:atorio)?|par(?:adiso)?)\b\.?,?\s*(?:canto\s+)?[\divxlc]",
    re.I,
)
# What may yet become a citation after a quotation.
_SUP_BEGUN = r"<(?:s(?:u(?:p(?:>[^<>]{0,8}(?:</?s?u?p?)?)?)?)?)?"
_LINE_BEGUN = r"(?:[—–―]|--?(?:\Z| )|[Tt]ratto d?|(?:[A-Za-z]{1,11}|[Tt]ratto da)[.]?[ \t]*(?::|\Z))[^\n«“\"]{0,160}"
_TAIL_BEGUN = re.compile(
    rf"[.,;:!?]?\s*[*_]{{0,3}}(?:[\[(【［（{{][^\])】］）}}\n]{{0,200}}|{PARENTHESIS_BEGUN.pattern}|P\d{{0,5}}|{_SUP_BEGUN}|{_LINE_BEGUN}|"
    rf",?[ \t]+(?:in[ \t]+|da[ \t]+)?(?:[A-ZÀ-Ý*_]{_LETTER}{{0,180}})?|,|,?[ \t]+(?:i|in|d|da)|[¹²³⁰⁴-⁹]+|"
    rf"(?<=[\n*_])[A-ZÀ-Ý][^\n«“\"]{{0,160}})?\Z"
)
# A line of its own.
_OWN_LINE = re.compile(r"(?P<reference>[A-ZÀ-Ý][^\n«“\"]{2,160}?)[*_]{0,3}[ \t]*(?=\n|\Z)")


_PLACE_WORD = re.compile(
    r"cap|capitol[oi]|cant[oi]|att[oi]|scen[ae]|libr[oi]|part[ei]|vv|pp|pag|vol|inf|inferno|purg|purgatorio|par|paradiso|[ivxlc]+|\d+|"
    r"prim[oa]|second[oa]|terz[oa]|quart[oa]|quint[oa]"
)


class Citation(NamedTuple):
    """What follows a quotation up to `end`: keys, note marks, references in words, and the punctuation before them."""

    end: int
    keys: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    punctuation: str = ""

    @property
    def cites(self) -> bool:
        """Whether anything cites a place."""
        return bool(self.keys or self.notes or self.references)


def keys_of(matched: str) -> tuple[int, ...]:
    """The numbers of keys in a matched text: *[P1, P2]* → 1, 2."""
    return tuple(int(number) for number in _NUMBER.findall(matched) if len(number) < 6)


class NamesOfWorks:
    """Recognises authors and titles of works in a text."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._works = list(works)
        self._titles = [(work, _phrase(work.title)) for work in self._works]
        self._authors = [(work, words(work.author)) for work in self._works]
        #: Ids of the works whose author is not known.
        self.anonymous = frozenset(work.id for work in self._works if not work.author)

    def is_title(self, text: str) -> bool:
        """Whether a text is nothing but the title of a work, or its author's name."""
        phrase = _phrase(text)
        whole = any(phrase in (title, _phrase(work.author)) for work, title in self._titles)
        return bool(phrase) and (
            whole or any(title.endswith(" " + phrase) and len(phrase) > 5 for _, title in self._titles)
        )

    def titled(self, text: str, *, reference: bool = False) -> list[Work]:
        """The works whose titles stand in a text, with a capital: *nei Promessi sposi*, but no *occhi chiusi*.

        The first word of a sentence has one anyhow, that of a `reference` has not: *(Commedia, canto V)*.
        """
        folded = f" {_phrase(text, bare=False)} "
        return [
            work
            for work, title in self._titles
            if title and f" {title} " in folded and _written(title, text, reference)
        ]

    def by(self, text: str) -> list[Work]:
        """The works whose authors' surnames stand in a text, written with a capital."""
        named = {fold(word) for word in re.findall(r"[^\W\d_]+", text) if word[0].isupper()}
        return [work for work, author in self._authors if not named.isdisjoint(_known_by(author))]

    def is_reference(self, text: str) -> bool:
        """Whether a text is nothing but author, title and place: *Giovanni Verga, I Malavoglia, cap. I*."""
        works = {work.id: work for work in [*self.titled(text), *self.by(text)]}.values()
        known = {word for work in works for word in words(f"{work.author} {work.title}")}
        return bool(known) and all(
            word in known or word in STOP_WORDS or len(word) == 1 or _PLACE_WORD.fullmatch(word) for word in words(text)
        )

    def named(self, text: str) -> bool:
        """Whether a text names a work or an author."""
        return bool(self.titled(text) or self.by(text))


def _known_by(author: list[str]) -> list[str]:
    """The names that stand for an author: the last, and for Dante the first too."""
    return [author[-1], *author[:1]] if author[:1] == ["dante"] else author[-1:]


def _written(title: str, text: str, reference: bool) -> bool:
    """Whether the words of a title stand in a text as a title: with a capital, which is not a sentence's."""
    found, wanted = [word for word in tokens(text) if not word.elided], title.split()
    for i in range(len(found) - len(wanted) + 1):
        if [word.form for word in found[i : i + len(wanted)]] != wanted:
            continue
        first = i - 1 if i > 0 and found[i - 1].form in STOP_WORDS else i  # with its article
        capitals = sum(text[word.start].isupper() for word in found[first : i + len(wanted)])
        begins = not reference and re.search(r"(?:\A|[.!?:]\s)\s*\Z", text[: found[first].start]) is not None
        alone = (
            text[found[-1].end :].strip(" .,;()*_") == "" and found[first].start == 0 and i + len(wanted) == len(found)
        )
        if capitals > begins or alone:
            return True
    return False


def _phrase(text: str, *, bare: bool = True) -> str:
    folded = words(text)
    return " ".join(folded[1:] if bare and len(folded) > 1 and folded[0] in STOP_WORDS else folded)


ENDING = re.compile(rf"\s*(?:{KEYS.pattern}|\([^()\n]{{2,200}}\)|\n\s*[—–-]{{1,2}}[ \t]*[^\n]{{2,200}})[.,;]?\s*\Z")


def ending_citation(claimed: str, refer: Callable[[str], bool]) -> re.Match[str] | None:
    """The citation inside a quotation's signs, at its end."""
    ending = ENDING.search(claimed)
    return ending if ending and refer(ending.group().strip(" \n\t()[].,;—–-")) else None


def refers(text: str, names: NamesOfWorks) -> bool:
    """Whether words in parentheses or after a dash are a reference: they name a work, an author or a place."""
    if KEYS.fullmatch(text) or KEYS.fullmatch(f"[{text}]"):
        return True
    return len(words(text)) <= REFERENCE_WORDS and (names.named(text) or bool(_LOCATED.search(text)))


def citation_after(
    text: str, at: int, refer: Callable[[str], bool], own_line: Callable[[str], bool], *, final: bool
) -> Citation:
    """What cites directly after a quotation that ends at `at`.

    Args:
        text: The text.
        at: The end of the quotation.
        refer: Whether a text is a reference in words.
        own_line: Whether a line of its own is nothing but a reference.
        final: Whether the text is complete.

    Raises:
        NeedMore: what follows decides.
    """
    end, keys, notes, references, punctuation = at, list[int](), list[str](), list[str](), ""
    while True:
        if not final and _TAIL_BEGUN.match(text, end):
            raise NeedMore
        begins = re.compile(r"(?P<mark>[.,;:!?]?)(?P<space>[ \t]*(?:\n[ \t]*){0,2})(?P<run>[*_]{0,3})").match(text, end)
        assert begins is not None
        here = begins.end()
        if match := re.compile(_KEYS).match(text, here) or _BARE_KEY.match(text, here):
            keys += keys_of(match.group())
        elif match := NOTE_MARK.match(text, here):
            if "\n" in begins["space"]:
                if not final and match.end() + 2 > len(text):
                    raise NeedMore
                if NOTE_LINE.match(text, here):
                    break
            notes.append(match.group())
        elif (match := PARENTHESIS.match(text, here)) and refer(match["round"] or match["square"]):
            references.append(match["round"] or match["square"])
        elif (match := _AFTER_DASH.match(text, here)) and refer(match["reference"]):
            references.append(match["reference"])
        elif (match := _AFTER_COMMA.match(text, end)) and refer(match["reference"]):
            references.append(match["reference"])
            begins = None
        elif "\n" in begins["space"] and (match := _OWN_LINE.match(text, here)) and own_line(match["reference"]):
            references.append(match["reference"])
        else:
            break
        if begins is not None and not punctuation:
            punctuation = begins["mark"]
        end = match.end()
        if begins is not None and begins["run"] and text.startswith(begins["run"], end):
            end += len(begins["run"])
    return Citation(end, tuple(keys), tuple(notes), tuple(references), punctuation)
