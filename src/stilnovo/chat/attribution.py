"""Read where a text says that a quotation comes from: author, work, place in the work.

What follows the quotation counts first (a parenthesis, a line after a dash, a footnote), then its own sentence, then the
sentence before. A reference must be right in all that it names, and so must a sentence that names one author; of several
authors in a sentence one must be. An author whom the library does not know is believed to be one where the text says that he
writes (*scrive Pirandello*) and the words found are from a work that never names him.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from stilnovo.chat.citing import NOTE_MARK, NamesOfWorks
from stilnovo.library.records import Chapter
from stilnovo.reading import numerals
from stilnovo.text.italian import STOP_WORDS, fold

#: Words that a full stop shortens; it ends no sentence.
_SHORTENED = "cap p pp v vv vol cfr op ed inf purg par sec sig dott prof c n art sc"
_ABBREVIATED = "".join(rf"(?<!\b(?i:{word}))" for word in _SHORTENED.split()) + r"(?<!\b[A-ZÀ-Ý])"
_SENTENCE_END = re.compile(rf"{_ABBREVIATED}[.!?…]+[»”\"’')\]]*(?=\s+[«“\"(·>—–]?\s*[A-ZÀ-Ý·])")
#: What is looked back at for the block of a quotation and the one that introduces it.
_REACH = 600
#: Where another block begins: a paragraph, a row (of cells between bars or tabs), an item, a heading.
_BLOCK = re.compile(r"\n[ \t]*\n\s*|(?<=\n)(?=[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|#{1,6}[ \t]|\||>|[^\n]{1,300}\t))")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t][^\n]*\n")
_ITEM = re.compile(r"\s*(?:[-*+•][ \t]|\d{1,3}[.)][ \t])")
_SAID_BEFORE = re.compile(r"[^\W\d_]{2}")
#: What a reference may hold beside names: places, editions, remarks.
_NO_NAME = re.compile(
    r"\b(?:cap|capitol\w+|cant[oi]|vv?|pp?|pagg?|att[oi]|scen[ae]|libr[oi]|part[ei]|ivi|ibid\w*|op|cit|ed|vol|cfr|inf\w*|purg\w*|par|"
    r"paradiso|corsiv\w+|cors|trad|mi[oa]|nostr\w+|nota|[IVXLCDM]+)\b\.?", re.I,
)  # fmt: skip
_PERSON = re.compile(r"\b[A-ZÀ-Ý][a-zà-ÿ]{2,}")
#: Authors whom nobody takes for a character, so that whatever verb says that they speak.
_KNOWN = (
    "Petrarca|Boccaccio|Cavalcanti|Guinizzelli|Poliziano|Boiardo|Ariosto|Machiavelli|Guicciardini|Castiglione|Tasso|Marino|Galilei|Vico|"
    "Goldoni|Parini|Alfieri|Monti|Foscolo|Leopardi|Manzoni|Porta|Belli|Tommaseo|Grossi|Pellico|Nievo|Carducci|Verga|Capuana|Deledda|"
    "Pascoli|D['’]Annunzio|Fogazzaro|Serao|Collodi|Svevo|Pirandello|Gozzano|Saba|Ungaretti|Montale|Quasimodo|Gadda|Pavese|Vittorini|"
    "Moravia|Calvino|Pasolini|Fenoglio|Morante|Ginzburg|Sciascia|Eco|Omero|Virgilio|Orazio|Ovidio|Shakespeare|Cervantes|Goethe|Hugo|"
    "Balzac|Flaubert|Baudelaire|Tolstoj|Dostoevskij|Proust|Kafka|Joyce"
)
_WRITERS = (
    re.compile(
        rf"\b({_KNOWN})\s+(?:(?:\w+mente|lo|ne|ci|vi|qui|poi|così|invece|stesso)\s+)?(?:dice|disse|canta|afferma|nota|osserva|ricorda|"
        r"racconta|esclama|conclude|definisce|chiama|apre|inizia|chiude|parla)\b"
    ),
    re.compile(
        r"\b(?:scriv\w+|scriss\w+|[Ss]econdo|parole di|[Cc]ome dice|[Cc]ome ricorda|[Cc]ome afferma|vers[oi] di)\s+"
        r"([A-ZÀ-Ý][a-zà-ÿ]{2,}(?:\s[A-ZÀ-Ý][a-zà-ÿ]+)?)"
    ),
    re.compile(r"([A-ZÀ-Ý][a-zà-ÿ]{2,})\s+(?:scriv(?:e|eva)|scrisse)\b"),
)
_KINDS = {"cap": "capitolo", "capitolo": "capitolo", "canto": "canto", "atto": "atto", "scena": "scena", "parte": "parte",
          "libro": "libro", "lettera": "lettera", "sonetto": "sonetto", "novella": "novella", "giornata": "giornata"}  # fmt: skip
_NUMBER = rf"(?:\d{{1,3}}|[IVXLC]{{1,9}}|(?i:{numerals.ORDINAL}))"
_PLACED = re.compile(
    rf"\b(?P<kind>(?i:{'|'.join(_KINDS)}))\b\.?\s+(?P<number>{_NUMBER})\b|\b(?P<first>(?i:{numerals.ORDINAL}))\s+"
    rf"(?P<what>(?i:{'|'.join(_KINDS)}))\b"
)
_CANTICA = re.compile(
    r"\b(?P<name>[Ii]nf(?:erno)?|[Pp]urg(?:atorio)?|[Pp]ar(?:adiso)?|(?:If|Pg|Pd)(?=\.?,?\s*[IVXLC\d]))\b\.?(?:,?\s*(?P<number>[IVXLC]{1,6}|\d{1,2})\b)?"
)
_CANTICHE = {
    "inf": "inferno",
    "pur": "purgatorio",
    "par": "paradiso",
    "if": "inferno",
    "pg": "purgatorio",
    "pd": "paradiso",
}
_VERSES = re.compile(r"(?:\bvv?\.\s*|(?<=[IVXLC]),\s*)(?P<first>\d{1,5})(?:\s*[-–]\s*(?P<last>\d{1,5}))?")

#: How the place where words stand differs from the stated one: in a part of the work (a cantica), or in a smaller place.
PlaceDifference = Literal["", "part", "place"]


class StatedPlace(NamedTuple):
    """A place in a work as a text states it: a cantica, numbered divisions, verses."""

    cantica: str = ""
    numbers: tuple[tuple[str, int], ...] = ()
    verses: tuple[int, int] | None = None

    def difference(self, section: Chapter, verses: str) -> PlaceDifference:
        """How the place of words that stand in these verses of a section differs; nothing that the label does not tell."""
        label = fold(section.label)
        if self.cantica and self.cantica not in label and any(name in label for name in _CANTICHE.values()):
            return "part"
        there = stated_place(section.label).numbers
        for kind, number in self.numbers:
            numbers = [other for what, other in there if what == kind]
            if numbers and number not in numbers:
                return "place"
        if self.verses and verses:
            first, _, last = verses.partition("-")
            if int(last or first) < self.verses[0] or self.verses[1] < int(first):
                return "place"
        return ""


def stated_place(text: str) -> StatedPlace:
    """The place that a text names; empty where it names none."""
    numbers = dict[str, int]()
    for match in _PLACED.finditer(text):
        kind, number = _KINDS[(match["kind"] or match["what"]).lower()], match["number"] or match["first"]
        value = numerals.value(number.upper()) or numerals.value(number.lower())
        if value:
            numbers.setdefault(kind, value)
    cantica = ""
    if named := _CANTICA.search(text):
        cantica = _CANTICHE[named["name"][:3].lower()]
        if named["number"] and (value := numerals.value(named["number"])):
            numbers.setdefault("canto", value)
    verses = _VERSES.search(text)
    span = (int(verses["first"]), int(verses["last"] or verses["first"])) if verses else None
    return StatedPlace(cantica, tuple(numbers.items()), span)


class Attribution(NamedTuple):
    """What a text says of a quotation's origin.

    Attributes:
        said: The text's own words.
        titled: Ids of the works it names.
        by: Ids of the works of the authors it names.
        anonymous: Ids of the works without a known author, which no author contradicts.
        strict: Whether titles and authors must both be right.
        foreign: Whether it names somebody else, whom the library does not know.
        writer: Somebody unknown who is said to write, unless the work itself names him.
        place: The place in the work.
    """

    said: str = ""
    titled: frozenset[int] = frozenset()
    by: frozenset[int] = frozenset()
    anonymous: frozenset[int] = frozenset()
    strict: bool = False
    foreign: bool = False
    writer: str = ""
    place: StatedPlace = StatedPlace()

    @property
    def works(self) -> frozenset[int]:
        """The works it may mean."""
        return self.titled & self.by or self.titled | self.by

    def fits(self, work: int) -> bool:
        """Whether a quotation that stands in a work comes from where the text says."""
        if self.foreign:
            return False
        titled, by = not self.titled or work in self.titled, not self.by or work in self.by | self.anonymous
        return titled and by if self.strict else titled or (by and bool(self.by))


def attribution(references: Sequence[str], masked: str, start: int, end: int, names: NamesOfWorks) -> Attribution:
    """Where a text says that its quotation comes from.

    Args:
        references: What follows the quotation, and its footnotes.
        masked: The text with its quotations blanked out by `·`, so that names inside them attribute nothing.
        start: Where the quotation begins.
        end: Where it and what follows it end.
        names: The library's authors and titles.
    """
    contexts = list(_contexts(masked, start, end))
    places = [stated_place(text) for text in [*references, *contexts[:1]]]
    place = next((place for place in places if place != StatedPlace()), StatedPlace())
    for reference in references:
        named = _named(reference, names, strict=True)._replace(place=place)
        if named.works:
            return named
        if is_foreign(reference):
            return named._replace(foreign=True)
    said = references[0] if references else ""
    for context in contexts:
        named = _named(context, names, strict=False)._replace(place=place)
        if named.works:
            return named
        writers = (name for pattern in _WRITERS for name in pattern.findall(context))
        if writer := next((name for name in writers if fold(name) not in STOP_WORDS), ""):
            return named._replace(writer=writer)
        said = said or (named.said if place != StatedPlace() else "")
    return Attribution(said, place=place)


def _named(text: str, names: NamesOfWorks, *, strict: bool) -> Attribution:
    titled, by = names.titled(text, reference=strict), names.by(text)
    said = re.sub("·+", "…", " ".join(text.split())).strip(" .,;:…")
    one_author = len({fold(work.author) for work in by}) == 1
    return Attribution(
        said,
        frozenset(work.id for work in titled),
        frozenset(work.id for work in by),
        names.anonymous,
        strict or one_author,
    )


def _contexts(masked: str, start: int, end: int) -> Iterator[str]:
    """The sentence around a quotation, then the one before it in its block, unless that has a quotation of its own.

    Blocks are paragraphs, rows of a table, items of a list, headings. What introduces a quotation that has its block to itself
    is the last sentence of the block before, or of the one before its list.
    """
    *earlier, own = _BLOCK.split(masked[max(0, start - _REACH) : start])
    if heading := _HEADING.match(own):
        earlier, own = [*earlier, heading.group()], own[heading.end() :]
    after = _BLOCK.split(masked[end : end + 200], maxsplit=1)[0]
    stop = _SENTENCE_END.search(after)
    *previous, sentence = _sentences(own)
    after = after[: stop.end() if stop else len(after)]
    if "\t" not in own and not own.lstrip().startswith("|") and not _SAID_BEFORE.search(own):
        item = _ITEM.match(own)
        introducing = (block for block in reversed(earlier) if _SAID_BEFORE.search(block))
        block = next((block for block in introducing if not (item and _ITEM.match(block))), "")
        *previous, intro = _sentences(block.rstrip())
        introduces = intro.endswith(":") or ("·" not in intro and not _SAID_BEFORE.search(after))
        previous, sentence = (previous, intro) if introduces else ([], "")
    yield f"{sentence} {after}"
    if previous and "·" not in previous[-1]:
        yield previous[-1]


def _sentences(text: str) -> list[str]:
    """The sentences of a text, the last of which goes on in what follows."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text + "X")), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


def is_foreign(reference: str) -> bool:
    """Whether a reference names a person or a work, whoever it is: *(Pirandello, Uno, nessuno e centomila)*."""
    names = _PERSON.findall(_NO_NAME.sub(" ", NOTE_MARK.sub(" ", reference)))
    begins = re.match(r"\W*(?:(?:cfr|da|in|di|v)\.?\s+)*[A-ZÀ-Ý]", reference)
    told = len(names) > 1 or re.search(r"\d|,", reference) or len(reference.split()) <= 3
    return bool(names and begins and told) and len(reference) <= 200
