"""Grade open answers against a key, as a teacher with that key would: what was asked, and nothing beside it that undoes it.

An accepted answer may stand in a sentence (*Viveva a Torino*), but it must not be denied (*non a Torino*), corrected (*Torino, anzi
Milano*) or one of several that are offered (*Torino o Milano*). A reason may be put in other words around those of the key, as long
as each of the key's own is there, less those that the question gave already; a negation of the key belongs to it. An answer of several
parts needs all of them and no other; where a question asks for so many of a longer key, so many. Where the way of writing is asked for
(the key differs in marks alone, or the question says so), it counts; where a sentence is to be rewritten or copied, each word does.

Unusual: it knows words and no meaning. A synonym counts where the key has it; a number in words, or a unit spelt out, is the same.
What a passage says of two persons the other way round is not noticed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from stilnovo.benchmarks.grading import all_words, plain_marks, words
from stilnovo.benchmarks.italian_numbers import cardinal
from stilnovo.text.italian import listed

PARTS = "\n"  # between the parts of an accepted answer that needs all of them
_ENOUGH = 0.8  # of the words of a long accepted answer
_LONG = 5  # words that say something, from which an answer counts as long
_STEM = 4  # letters at least that two forms of a word share
_FUNCTION = listed(
    "a ad al allo alla ai agli alle con col coi da dal dallo dalla dai dagli dalle di del dello della dei degli "
    "delle in nel nello nella nei negli nelle su sul sullo sulla sui sugli sulle per tra fra e ed o od ma che chi "
    "cui se come quando dove perchè poichè mentre anche io tu lui lei noi voi loro mi ti ci vi si ne lo la li le "
    "gli il i uno una un 1 l d c s è sono sei siamo era erano fu furono sia stato stata stati state essere ho ha "
    "hanno aveva avevano avere abbia questo questa questi queste quello quella quel suo sua suoi sue mio mia più "
    "molto già poi cioè ecco quale quali risposta parola parole giusta corretta"
)
_POSSESSIVE = listed("suo sua mio mia")
_OF = listed("di del dello della dei degli delle d")
_ASIDE = listed(
    "credo penso forse direi probabilmente sicuramente certamente sì no certo ovvero grazie esatto secondo me pare "
    "sembra dico risposta"
)
_NEGATION = listed("non nè mai nessuno nessuna nessun niente nulla senza nemmeno neppure neanche")
_BEING = listed("è sono era erano fu furono sarebbe")
_CORRECTION = re.compile(r"\b(?:anzi|o meglio|mi correggo|no,|invece)[\s,:]+", re.IGNORECASE)
_RATHER = re.compile(
    r"\b(?:tutt'altro che|anzich[éè]|(?:invece|piuttosto) (?:di|che)|al posto di|tranne|eccetto|fuorch[éè])\s",
    re.IGNORECASE,
)
_THAT_IS = re.compile(r"\b(?:cioè|ossia|ovvero)\b", re.IGNORECASE)
_KIN = listed(
    "sorella fratello padre madre mamma papà figlio figlia nonno nonna zio zia cugino cugina amico amica moglie marito nipote"
)
_DOZENS = {"dozzina": "12", "decina": "10", "centinaio": "100", "migliaio": "1000"}
_OPPOSITES = [  # beginnings of verbs and their opposites
    tuple(pair.split("/"))
    for pair in listed(
        "vins/pers vinc/perd vint/pers aum/dimin sal/scend sal/sces apr/chiu apert/chius entr/usc compr/vend perd/trov pers/trov "
        "part/arriv ricev/dat am/odi ricord/dimentic accend/spegn acces/spent alz/abbass nacq/mor nat/mort accett/rifiut"
    )
]
_MORE_OR_LESS = (["più", "di"], ["meno", "di"])
_QUOTED = re.compile(r"[«“\"]([^»”\"]+)[»”\"]")
_BREAK = re.compile(r"[,;:.!?\n]|\b(?:ma|bensì|però|mentre|perché|perchè|poiché)\b", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;\n•/]|\s[-–]\s|\b(?:e|ed|o|od|oppure|ovvero)\b", re.IGNORECASE)
_OR = re.compile(r"\b(?:o|od|oppure)\b", re.IGNORECASE)
_MARKS_ASKED = re.compile(r"\b(?:punteggiatura|virgolette|apostrof\w+|maiuscol\w+)\b", re.IGNORECASE)
_WORDING_ASKED = re.compile(r"\b(?:riscriv\w+|trascriv\w+|ricopi\w+|copia|trasforma\w*|volgi)\b", re.IGNORECASE)
_COUNTED = re.compile(
    r"\b(?P<count>due|tre|quattro|cinque|sei|sette|otto|\d)\s+(?:\w+\s+)?(?:parol[ae]|termini|aggettiv\w+|nomi|verbi|avverbi|sostantivi|"
    r"esempi|motivi|elementi|caratteristiche|espressioni|cose|oggetti|animali|personaggi)",
    re.IGNORECASE,
)
_UNITS = {
    "km": "chilometri chilometro", "m": "metri metro", "cm": "centimetri centimetro", "mm": "millimetri millimetro",
    "kg": "chilogrammi chilogrammo chili chilo", "g": "grammi grammo gr", "l": "litri litro", "h": "ore ora", "min": "minuti minuto",
    "s": "secondi secondo sec", "euro": "eur", "t": "tonnellate tonnellata", "ha": "ettari ettaro",
}  # fmt: skip
_SHORT_UNIT = {long: short for short, names in _UNITS.items() for long in names.split()}


def accepted(written: str, references: Sequence[str], question: str = "") -> bool:
    """Whether an answer is right by a key; see the module.

    Args:
        written: The answer.
        references: The accepted answers; the parts of one, in lines, are all needed.
        question: What was asked, without the text that it is about.
    """
    if _MARKS_ASKED.search(question) or _differ_in_marks(references):
        return any(_marks(written) == _marks(reference) for reference in references)
    written = _RATHER.sub("non ", plain_marks(written).strip())
    if corrections := [match for match in _CORRECTION.finditer(written) if match.start()]:
        last = written[corrections[-1].end() :]
        if _content(_compared(last)):
            return accepted(last, references, question)
    for yes in ("sì", "no"):
        if all(words(reference) == words(yes) for reference in references):
            return _yes_or_no(written, question) == yes
    if (count := _asked_for(question, references)) > 1:
        return _listed(written, references, count)
    listed = [reference.split(PARTS) for reference in references]
    return any(
        _listed(written, parts, len(parts)) if len(parts) > 1 else _said(written, parts[0], references, question)
        for parts in listed
    )


def _compared(text: str) -> list[str]:
    """Words as they are compared: those of `grading.words`, units in their short form after a number."""
    found = [_DOZENS.get(word, word) for word in words(text)]
    return [
        _SHORT_UNIT.get(word, word) if place and found[place - 1][-1:].isdigit() else word
        for place, word in enumerate(found)
        if not (word == "ore" and found[place + 1 : place + 2] and found[place + 1][-1:].isdigit())
    ]


def _content(found: Iterable[str]) -> list[str]:
    return [word for word in found if word not in _FUNCTION]


def _said(written: str, reference: str, references: Sequence[str], question: str) -> bool:
    wanted, given = _compared(reference), _compared(written)
    if not wanted or not given:
        return False
    exactly = _place_of(wanted, given)
    if _WORDING_ASKED.search(question) and len(wanted) > 1 and (exactly is None or len(wanted) > 3):
        return exactly is not None and not _denied(wanted, written, reference, question)
    if _other_names(written, reference):
        return False
    number = any(word[-1:].isdigit() for word in wanted)
    if exactly is None and (number or not _covered(_content(wanted), given, set(_compared(question)))):
        return False
    return not (
        _denied(wanted, written, reference, question)
        or _rivals(written, references, len(wanted))
        or _of_another(wanted, written, reference, question)
        or _opposite(given, words(reference), words(question))
        or _only_quotes(wanted, given, question)
        or (number and (_range(wanted, given) or _two_values(written) or _bound(wanted, given)))
    )


def _place_of(wanted: Sequence[str], given: Sequence[str]) -> int | None:
    size = len(wanted)
    return next((i for i in range(len(given) - size + 1) if list(given[i : i + size]) == list(wanted)), None)


def _covered(wanted: Sequence[str], given: Sequence[str], asked: set[str]) -> bool:
    """Whether an answer holds what a key says beyond the question: of a long key most words, in any form."""
    new = [word for word in wanted if word not in asked or word in _NEGATION] or list(wanted)
    if not new:
        return False
    if len(new) < _LONG:
        return set(new) <= set(given)
    stems = {_stem(word) for word in given}
    return sum(_stem(word) in stems for word in new) >= _ENOUGH * len(new)


def _stem(word: str) -> str:
    return word if len(word) <= _STEM else word[: max(_STEM, len(word) - 2)]


def _other_names(written: str, reference: str) -> bool:
    """Whether a name of the key is missing and another stands in its place."""

    def names(text: str) -> set[str]:
        return {word.lower() for word in all_words(text)[1:] if word[0].isupper()}

    missing = names(reference) - {word.lower() for word in all_words(written)}
    return bool(missing) and bool(names(written) - {word.lower() for word in all_words(reference)})


def _denied(wanted: Sequence[str], written: str, reference: str, question: str) -> bool:
    """Whether every clause that has the answer denies it; a negation of the key, or of the question, is none."""
    negated = bool(_NEGATION & set(words(reference)))
    if not negated and _NEGATION & set(words(question)):
        return False
    said = set(_content(wanted)) or set(wanted)
    verdicts = []
    for clause in re.split(_BREAK, written):
        found = _compared(clause)
        places = [place for place, word in enumerate(found) if word in said]
        if places:
            last, asked = places[-1], set(_content(words(question)))
            is_not = found[last + 1 : last + 2] == ["non"] and set(found[last + 2 : last + 3]) & _BEING
            after = bool(is_not) and set(_content(found[:last])) <= said  # Torino non è la città
            verdicts.append((after or _negates(found, last, asked)) != negated)
    whole = bool(_NEGATION & set(words(written)))
    return all(verdicts) if verdicts and not negated else negated != whole and negated


def _negates(found: Sequence[str], place: int, asked: set[str]) -> bool:
    """Whether a clause negates the word at a place.

    It does not from before an *e* that begins another verb (*non poté prenderla e disse che era acerba*), nor where it is about
    another verb than the question's (*non riuscì a prendere l'uva*, asked what was to be taken).
    """
    before = [index for index, word in enumerate(found[:place]) if word in _NEGATION]
    if not before or "e" in found[before[-1] + 4 : place]:
        return False
    verb, between = found[before[-1] + 1], set(found[before[-1] + 2 : place])
    return not (between & asked and verb not in asked | _FUNCTION | _ASIDE)


def _rivals(written: str, references: Sequence[str], size: int) -> bool:
    """Whether the answer offers others beside itself: bare words in a list, none of which the key has."""
    given = _compared(written)
    if len(given) >= size + 3 and _without_grammar(written):
        return True
    keys = [_compared(part) for reference in references for part in reference.split(PARTS)]
    keys += [
        piece
        for reference in references
        if len(pieces := _pieces(reference)) > 1 and all(map(_is_bare, pieces))
        for piece in pieces
    ]
    grammar = any(not _content(key) for key in keys)  # a conjunction is what is asked for: any word is another one
    bare = [
        piece
        for piece in _pieces(written)
        if (_is_bare(piece) or (grammar and len(piece) == 1 and piece[0] not in _ASIDE)) and not _NEGATION & set(piece)
    ]

    def fitting(piece: list[str]) -> bool:
        return any(_place_of(_content(key) or key, piece) is not None for key in keys)

    offered = [found for part in re.split(_OR, written) if _is_bare(found := _compared(part))]
    if len(offered) > 1 and not all(map(fitting, offered)):
        return any(map(fitting, offered))  # al mare o in montagna
    fits = [fitting(piece) for piece in bare]
    if not any(fits):
        return False
    opened = {piece[0] for piece, fit in zip(bare, fits, strict=True) if fit and piece[0] in _FUNCTION}
    others = [
        piece
        for piece, fit in zip(bare, fits, strict=True)
        if not fit and not (piece[0] in _KIN and _OF & set(piece))  # *Irene, la sorella di Ugo* is one person
    ]
    return any(
        grammar or piece[0] not in _FUNCTION or piece[0] in opened for piece in others
    )  # *a Torino, in Piemonte* offers one


def _range(wanted: Sequence[str], given: Sequence[str]) -> bool:
    """Whether the number stands beside another one: *da 10 a 12*, *10 o 12*."""
    place = _place_of(wanted, given) or 0
    after = given[place + len(wanted) : place + len(wanted) + 3]
    if given[max(0, place - 1)] in ("da", "tra", "fra") and any(word[-1:].isdigit() for word in after):
        return True
    before = [word for word in given[max(0, place - 2) : place] if word not in ("a", "ai", "al", "alle", "e", "o")]
    return bool(before) and before[-1][-1:].isdigit()


def _opposite(given: Sequence[str], key: Sequence[str], question: Sequence[str]) -> bool:
    """Whether the answer says of somebody the opposite of what was asked: *Marta perse*, asked who won."""

    def has(found: Sequence[str], stem: str) -> bool:
        return any(word.startswith(stem) for word in found)

    return any(
        has(question, one)
        and has(given, other)
        and not has(given, one)
        and not has(key, other)
        and not has(question, other)
        for pair in _OPPOSITES
        for one, other in (pair, pair[::-1])
    )


def _only_quotes(wanted: Sequence[str], given: Sequence[str], question: str) -> bool:
    """Whether the answer is no more than the words that the question quotes, of which the key is a part."""
    return len(given) > len(wanted) and any(_compared(quoted) == list(given) for quoted in _QUOTED.findall(question))


def _bound(wanted: Sequence[str], given: Sequence[str]) -> bool:
    """Whether the number is a bound and not the answer: *più di 12*."""
    place = _place_of(wanted, given) or 0
    return list(given[max(0, place - 2) : place]) in _MORE_OR_LESS or "oltre" in given[max(0, place - 1) : place]


def _two_values(written: str) -> bool:
    """Whether another number of the same thing is said to be the same: *nel 1861, cioè nel 1862*."""

    def numbered(text: str) -> list[list[str]]:
        found = _compared(text)
        return [found[place : place + 2] for place, word in enumerate(found) if word[-1:].isdigit()]

    before, *after = _THAT_IS.split(written)
    return any(one[1:] == other[1:] and one != other for one in numbered(before) for other in numbered(" ".join(after)))


def _of_another(wanted: Sequence[str], written: str, reference: str, question: str) -> bool:
    """Whether the answer is said of a relative that nobody asked about: *sua sorella ha 7 anni*, *la madre della nonna*."""
    known = {*words(reference), *words(question)}
    verdicts = []
    for clause in re.split(_BREAK, written):
        found = _compared(clause)
        if (place := _place_of(_content(wanted) or wanted, found)) is None:
            continue
        first = next((index for index, word in enumerate(found[:place]) if word not in _FUNCTION - _POSSESSIVE), None)
        named = [index for index in range(place) if found[index] in _KIN - known]
        begins = bool(named) and first is not None and named[0] <= first + 1
        between = found[named[0] + 1 : place] if begins else []
        of = bool(between) and between[0] in _OF and len(between) == 1
        verdicts.append(of or (bool(between) and not re.match(r"\s*chi\b", question, re.IGNORECASE)))
    return bool(verdicts) and all(verdicts)


def _pieces(written: str) -> list[list[str]]:
    """The members of a list, each in words; what introduces it left out."""
    listed = written.rsplit(":", 1)[-1]
    return [found for piece in re.split(_SEPARATOR, listed) if (found := _compared(piece))]


def _is_bare(piece: Sequence[str]) -> bool:
    """Whether a piece is a thing and no clause: at most two words that say something, after at most one preposition."""
    content = _content(piece)
    return (
        0 < len(content) <= 2 and len(piece) - len(content) <= 1 and not set(content) <= _ASIDE and piece[-1] in content
    )


def _listed(written: str, parts: Sequence[str], count: int) -> bool:
    """Whether so many of the parts were written, each once, and nothing else that is listed."""
    keys = [_compared(part) for part in parts]
    found: set[int] = set()
    for piece in _pieces(written):
        fits = {place for place, key in enumerate(keys) if _place_of(key, piece) is not None}
        if not fits and _is_bare(piece):
            return False
        if _NEGATION & set(piece) and fits:
            return False
        found |= fits
    given = _compared(written)
    loose = len(given) > sum(map(len, keys)) + 2 and _without_grammar(written)
    return not loose and len(found) == count


def _without_grammar(written: str) -> bool:
    """Whether words stand in a row, without an article, a preposition or any other word that joins them."""
    found = [word.lower() for word in all_words(written)]
    joined = any(word.endswith("'") or word[-1:].isdigit() or word in _NEGATION for word in found)
    return len(_content(found)) == len(found) and not joined


def _asked_for(question: str, references: Sequence[str]) -> int:
    """How many of a key's answers are asked for; 1 where one does."""
    if any(PARTS in reference for reference in references):
        return 1
    counts = [match["count"].lower() for match in _COUNTED.finditer(question)]
    numbers = [int(count) if count.isdigit() else cardinal(count) or 1 for count in counts]
    return next((number for number in reversed(numbers) if number <= len(references)), 1)


def _yes_or_no(written: str, question: str) -> str:
    """`sì` or `no`: the word, else whether the answer repeats the question's words with a negation or without; empty for neither."""
    said = words(written)
    if re.match(r"\s*si\s*(?:[,.;:!\n]|$)", written, re.IGNORECASE):
        return "sì"
    if said and said[0] in ("sì", "no"):
        return said[0]
    asked = set(_content(words(question)))
    if not asked or len(asked & set(said)) < len(asked) / 2:
        return ""
    return "no" if _NEGATION & set(said) else "sì"


def _differ_in_marks(references: Sequence[str]) -> bool:
    """Whether a key holds the same words twice, with other marks."""
    plain = [tuple(re.findall(r"\w+", unicodedata.normalize("NFC", one).lower())) for one in references]
    return len(plain) > len(set(plain))


def _marks(text: str) -> str:
    """A text with its marks: one kind of quotation mark, no blanks beside marks, no full stop at the end."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub("[«»“”„\"]|''|(?<!\\w)['‘’]|['’](?!\\w)", '"', text).lower()
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(text.split())).replace('."', '"').rstrip(".")
