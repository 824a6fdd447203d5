"""Wrong quotations, first part: a word put in, left out, exchanged, or changed by a letter, an accent, a figure.

Each kind takes a sentence of a book and makes one false claim of it, or none where the sentence does not suit it.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence

from claim_stock import Made, Place, Stock

NUMBERS = [
    "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "undici", "dodici", "quindici", "venti", "trenta",
    "quaranta", "cinquanta", "sessanta", "settanta", "ottanta", "novanta", "cento", "mille", "primo", "secondo", "terzo", "quarto",
    "prima", "seconda", "terza", "quinta", "ultimo", "ultima",
]  # fmt: skip
FUNCTION = [
    "il", "lo", "la", "i", "gli", "le", "un", "una", "di", "a", "da", "in", "con", "su", "per", "tra", "del", "della", "al", "alla",
    "dal", "dalla", "nel", "nella", "sul", "e", "o", "ma", "se", "che", "chi", "cui", "quando", "come", "dove", "molto", "poco",
    "più", "meno", "contro", "sempre", "mai", "ancora", "già", "tutto", "tutti", "nessuno", "ogni", "questo", "quello", "suo", "mio",
]  # fmt: skip
CLITICS = ["mi", "ti", "si", "ci", "vi", "lo", "la", "li", "le", "gli", "ne"]
NEGATION = r"\b[Nn]on\b"


def sentence_words(place: Place) -> list[str]:
    return place.sentence.split()


def _at(draw: random.Random, words: Sequence[str]) -> int:
    return draw.randrange(1, len(words) - 1)


def _joined(*parts: Sequence[str]) -> Made:
    return Made(" ".join(word for part in parts for word in part))


def _exchanged(draw: random.Random, place: Place, others: Sequence[str], exactly: bool = False) -> Made | None:
    """One of the sentence's words of a list exchanged for another of it."""
    found = [match for match in re.finditer(r"[^\W\d_]+", place.sentence) if match.group().lower() in others]
    if not found:
        return None
    match = draw.choice(found)
    word = match.group()
    other = draw.choice([option for option in others if option != word.lower()])
    other = other.capitalize() if word[0].isupper() else other
    return Made(place.sentence[: match.start()] + other + place.sentence[match.end() :], exactly=exactly)


def changed(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = sentence_words(place), _at(draw, sentence_words(place))
    return _joined(words[:at], [draw.choice(stock.vocabulary)], words[at + 1 :])


def inserted(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = sentence_words(place), _at(draw, sentence_words(place))
    return _joined(words[:at], [draw.choice(stock.vocabulary)], words[at:])


def dropped(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = sentence_words(place), _at(draw, sentence_words(place))
    return _joined(words[:at], words[at + 1 :])


def swapped(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = sentence_words(place), _at(draw, sentence_words(place))
    return _joined(words[:at], [words[at + 1], words[at]], words[at + 2 :])


def negation_in(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = sentence_words(place), _at(draw, sentence_words(place))
    return _joined(words[:at], [draw.choice(["non", "mai", "neppure", "non più"])], words[at:])


def negation_out(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    text = re.sub(rf"{NEGATION}\s+", "", place.sentence, count=1)
    return Made(text) if text != place.sentence and not re.match(r"\W*[Nn]on\b", place.sentence) else None


def number_word(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    return _exchanged(draw, place, NUMBERS)


def digit(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    found = re.search(r"\d+", place.sentence)
    if not found:
        return None
    other = str(int(found.group()) + draw.randrange(1, 9))
    return Made(place.sentence[: found.start()] + other + place.sentence[found.end() :])


def roman(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    found = re.search(r"\b[IVXLC]{2,}\b", place.sentence)
    if not found:
        return None
    other = draw.choice([n for n in ("III", "VII", "IX", "XII", "XIV", "XVI", "XX") if n != found.group()])
    return Made(place.sentence[: found.start()] + other + place.sentence[found.end() :])


def accent(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """An accent that makes another word put on or taken off: e, è; amo, amò; parti, partì."""
    taken = list(re.finditer(r"\b(?:[ÈèÒò]|[^\W\d_]{2,}[òì]|là|dà|sì|sé|né|lì|papà|metà)\b", place.sentence))
    put = list(re.finditer(r"\b(?:e|[^\W\d_]{3,}[ao]|la|da|si|se|ne|li)\b", place.sentence))
    if draw.random() < 0.5 and taken:
        match = draw.choice(taken)
        if match.group() == unicodedata.normalize("NFD", match.group())[:-1] or match.group().lower() in (
            "però",
            "ciò",
            "può",
            "perciò",
            "così",
        ):
            return None
        other = unicodedata.normalize("NFC", unicodedata.normalize("NFD", match.group())[:-1])
        if other.lower().endswith(("di",)) and len(other) > 5:  # lunedi: no word, so no other word
            return None
    elif put:
        match = draw.choice(put)
        other = match.group()[:-1] + {"e": "è", "o": "ò", "a": "à", "i": "ì"}[match.group()[-1]]
    else:
        return None
    return Made(place.sentence[: match.start()] + other + place.sentence[match.end() :], exactly=True)


def ending(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Another ending: *amava* for *amavo*, the smallest lie there is."""
    found = list(re.finditer(r"\b[a-z]{4,}[aeio]\b", place.sentence))
    if not found:
        return None
    match = draw.choice(found)
    vowel = draw.choice([v for v in "aeio" if v != match.group()[-1]])
    return Made(place.sentence[: match.end() - 1] + vowel + place.sentence[match.end() :])


def tense(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Another tense or person of the verb."""
    pairs = [
        ("ava", "ò"),
        ("avano", "arono"),
        ("ò", "erà"),
        ("eva", "e"),
        ("iva", "ì"),
        ("ai", "ò"),
        ("ava", "a"),
        ("erà", "ava"),
        ("ebbe", "à"),
    ]
    found = [(m, a, b) for a, b in pairs for m in re.finditer(rf"\b[a-z]{{3,}}{a}\b", place.sentence)]
    if not found:
        return None
    match, old, new = draw.choice(found)
    return Made(place.sentence[: match.end() - len(old)] + new + place.sentence[match.end() :])


def function_word(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    return _exchanged(draw, place, FUNCTION)


def clitic(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Another pronoun: who does it to whom."""
    return _exchanged(draw, place, CLITICS)


def renamed(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    found = list(re.finditer(r"(?<=[a-z,] )[A-Z][a-zàèéìòù]{3,}", place.sentence))
    if not found:
        return None
    match = draw.choice(found)
    return Made(place.sentence[: match.start()] + draw.choice(stock.names) + place.sentence[match.end() :])


def first_name(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Another name at the sentence's beginning."""
    match = re.match(r"\W*([A-Z][a-zàèéìòù]{2,})", place.sentence)
    if match is None:
        return None
    return Made(place.sentence[: match.start(1)] + draw.choice(stock.names) + place.sentence[match.end(1) :])


def one_letter(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """One letter that makes another word of the library: *amato*, *armato*."""
    if not stock.neighbours:
        return None
    found = [m for m in re.finditer(r"\b[a-z]{4,}\b", place.sentence) if stock.neighbours.get(m.group())]
    if not found:
        return None
    match = draw.choice(found)
    other = draw.choice(stock.neighbours[match.group()])
    return Made(place.sentence[: match.start()] + other + place.sentence[match.end() :])


def prefix(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """The contrary by a prefix: *felice*, *infelice*; *fatto*, *disfatto*."""
    found = list(re.finditer(r"\b[a-z]{5,}\b", place.sentence))
    match = draw.choice(found) if found else None
    if match is None:
        return None
    word = match.group()
    options = [p + word for p in ("in", "dis", "ri", "pre", "anti-", "non-", *("s" if word[0] in "bcdfgptv" else ""))]
    options += [word[len(p) :] for p in ("in", "dis", "s", "ri") if word.startswith(p) and len(word) > len(p) + 3]
    return Made(place.sentence[: match.start()] + draw.choice(options) + place.sentence[match.end() :])


def glued(draw: random.Random, place: Place, stock: Stock) -> Made:
    """Two words made one, or one made two."""
    words = sentence_words(place)
    if draw.random() < 0.5:
        at = draw.randrange(0, len(words) - 1)
        return _joined(words[:at], [words[at] + words[at + 1]], words[at + 2 :])
    at = max(range(len(words)), key=lambda i: len(words[i]))
    cut = draw.randrange(2, max(3, len(words[at]) - 1))
    return _joined(words[:at], [words[at][:cut], words[at][cut:]], words[at + 1 :])
