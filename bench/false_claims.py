"""Wrong quotations: every kind of fault that a person, a model or a machine puts into one, and what a forger would try.

Each kind takes a sentence of a book and makes one false claim of it, or none where the sentence does not suit it.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence

from claim_stock import Kind, Made, Place, Stock, plain_words

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
_NEGATION = r"\b[Nn]on\b"


def _words(place: Place) -> list[str]:
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
    words, at = _words(place), _at(draw, _words(place))
    return _joined(words[:at], [draw.choice(stock.vocabulary)], words[at + 1 :])


def inserted(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = _words(place), _at(draw, _words(place))
    return _joined(words[:at], [draw.choice(stock.vocabulary)], words[at:])


def dropped(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = _words(place), _at(draw, _words(place))
    return _joined(words[:at], words[at + 1 :])


def swapped(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = _words(place), _at(draw, _words(place))
    return _joined(words[:at], [words[at + 1], words[at]], words[at + 2 :])


def clauses_swapped(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    parts = re.split(r"(?<=\w),\s+", place.sentence.rstrip(".!?…»” "))
    return Made(", ".join([*parts[1:], parts[0]]) + ".") if len(parts) > 1 else None


def negation_in(draw: random.Random, place: Place, stock: Stock) -> Made:
    words, at = _words(place), _at(draw, _words(place))
    return _joined(words[:at], [draw.choice(["non", "mai", "neppure", "non più"])], words[at:])


def negation_out(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    text = re.sub(rf"{_NEGATION}\s+", "", place.sentence, count=1)
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


def figure_cut(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Cut inside a figure: 500 of 1.500."""
    found = re.search(r"\d([.,:/–-])(?=\d)", place.sentence)
    if not found:
        return None
    head, tail = place.sentence[: found.start(1)], place.sentence[found.end(1) :]
    return Made(draw.choice([head, tail]), exactly=True)


def compound_cut(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Cut inside a compound: clericale of anti-clericale."""
    found = re.search(r"[^\W\d_]{2,}(-)(?=[^\W\d_]{2,})", place.sentence)
    if not found:
        return None
    parts = [
        part for part in (place.sentence[: found.start(1)], place.sentence[found.end(1) :]) if len(part.split()) > 2
    ]
    return Made(draw.choice(parts), exactly=True) if parts else None


def word_cut(draw: random.Random, place: Place, stock: Stock) -> Made:
    """Begins or ends inside a word."""
    text = place.sentence.rstrip(".,;:!?…»”\"' ")
    return Made(text[:-1] if draw.random() < 0.5 else text.lstrip('«“"—– ')[1:], exactly=True)


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
    words = _words(place)
    if draw.random() < 0.5:
        at = draw.randrange(0, len(words) - 1)
        return _joined(words[:at], [words[at] + words[at + 1]], words[at + 2 :])
    at = max(range(len(words)), key=lambda i: len(words[i]))
    cut = draw.randrange(2, max(3, len(words[at]) - 1))
    return _joined(words[:at], [words[at][:cut], words[at][cut:]], words[at + 1 :])


def joined(draw: random.Random, place: Place, stock: Stock) -> Made:
    """The first half of one sentence, the second of another, as if they followed each other."""
    words, other = _words(place), _words(draw.choice(stock.places))
    mark = draw.choice([" ", " / ", " … ", " [...] ", " – "])
    return Made(" ".join(words[: len(words) // 2]) + mark + " ".join(other[len(other) // 2 :]))


def sections_joined(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A sentence and one of another section of the same work, as if they followed each other."""
    others = [p for p in stock.of_work.get(place.section.work.id, []) if p.section.id != place.section.id]
    return Made(f"{place.sentence} {draw.choice(others).sentence}") if others else None


def sentences_swapped(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """The sentence behind the one that follows it."""
    following = re.match(r"\s+(\S[^.!?]{20,200}[.!?])(?=\s)", place.source[place.end :])
    return Made(f"{following.group(1)} {place.sentence}") if following else None


def sentence_skipped(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A sentence and the next but one, nothing said of the one between."""
    following = re.match(r"\s+\S[^.!?]{10,200}[.!?]\s+(\S[^.!?]{20,200}[.!?])(?=\s)", place.source[place.end :])
    return Made(f"{place.sentence} {following.group(1)}") if following else None


def verse_skipped(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A verse left out, or two exchanged."""
    if not place.section.verse:
        return None
    lines = [line.strip() for line in place.sentence.split("\n") if line.strip()]
    if len(lines) < 3:
        return None
    at = draw.randrange(1, len(lines) - 1)
    rest = (
        [*lines[:at], *lines[at + 1 :]]
        if draw.random() < 0.5
        else [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    )
    return Made(draw.choice([" / ", "\n"]).join(rest))


def mood(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A question told as a statement, a statement asked, an exclamation made calm."""
    match = re.search(r"(?<=\w)([.!?])$", place.sentence)
    if match is None or (match.group() == "." and re.search(r"\b\w{1,4}\.$", place.sentence)):
        return None
    return Made(place.sentence[:-1] + draw.choice([mark for mark in ".!?" if mark != match.group()]), needs="\0")


def inner_mood(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """The same inside a quotation of two sentences."""
    following = re.match(r"(\s+)([A-ZÈ][^.!?]{15,160}[.!?])(?=\s)", place.source[place.end :])
    if following is None or not re.search(r"\w[!?]$", place.sentence):
        return None
    return Made(f"{place.sentence[:-1]}. {following.group(2)}", needs="\0")


def comma_moved(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A comma behind another word: *Grazia, impossibile* and *Grazia impossibile,*."""
    match = re.search(r"(\w), (\w+) (?=\w+ \w)", place.sentence)
    return (
        Made(f"{place.sentence[: match.end(1)]} {match.group(2)}, {place.sentence[match.end() :]}", needs="\0")
        if match
        else None
    )


def cut_from_denial(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """What the sentence denies, without its denial."""
    match = re.search(
        r"\b(?:[Nn]on|[Nn]é|[Ss]enza|[Ss]e|[Ff]orse|[Cc]redo|[Cc]redeva|[Pp]areva|[Dd]icono|[Cc]ome se|[Qq]uasi)\s+(?=\w)",
        place.sentence,
    )
    if match is None:
        return None
    rest = place.sentence[match.end() :]
    return Made(rest, needs=match.group().split()[0], original=rest) if len(plain_words(rest, exact=True)) > 2 else None


def cut_from_condition(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """What the sentence takes back afterwards, without that."""
    match = re.search(
        r",\s+(?:e\s+)?(ma|però|purché|tranne|salvo|se|forse|benché|a meno|quasi|ma non)\b", place.sentence
    )
    if match is None:
        return None
    head = place.sentence[: match.start()]
    return Made(head, needs=match.group(1), original=head) if len(plain_words(head, exact=True)) > 2 else None


def cut_from_question(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A part of a question, as if it were told."""
    if not re.search(r"\w\?$", place.sentence) or re.search(r"[.!?;].", place.sentence):
        return None
    words = _words(place)
    part = " ".join(words[1:-1]) if draw.random() < 0.5 else " ".join(words[1:])[:-1]
    return Made(part, needs="?", original=part) if len(plain_words(part, exact=True)) > 2 else None


def omitted_denial(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Words left out, and said to be, among them the denial."""
    words = _words(place)
    at = next((i for i, word in enumerate(words) if re.fullmatch(r"non|né|senza|mai|nulla|nessuno|ma|se", word)), 0)
    if at < 3 or len(words) - at < 5:
        return None
    return Made(
        " ".join(words[:at]) + draw.choice([" […] ", " [...] ", " … "]) + " ".join(words[at + 1 :]), needs=words[at]
    )


def homoglyph_lie(draw: random.Random, place: Place, stock: Stock) -> Made:
    """A changed word, with letters of another alphabet over the whole."""
    return Made(changed(draw, place, stock).claimed.translate(str.maketrans("aeopc", "аеорс")))


def elsewhere(draw: random.Random, place: Place, stock: Stock) -> Made:
    """A true sentence of another work."""
    return Made(draw.choice(stock.places).sentence)


def invented(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made(" ".join(draw.choice(stock.vocabulary) for _ in range(draw.randrange(6, 12))))


def apparatus(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A note, a speaker or a licence of the file, as the author's words."""
    options = stock.apparatus.get(place.section.work.id)
    return Made(draw.choice(options)) if options else None


FALSE: dict[str, Kind] = {
    "changed": changed, "inserted": inserted, "dropped": dropped, "swapped": swapped, "clauses_swapped": clauses_swapped,
    "negation_in": negation_in, "negation_out": negation_out, "number_word": number_word, "digit": digit, "roman": roman,
    "figure_cut": figure_cut, "compound_cut": compound_cut, "word_cut": word_cut, "accent": accent, "ending": ending, "tense": tense,
    "function_word": function_word, "clitic": clitic, "renamed": renamed, "first_name": first_name, "one_letter": one_letter,
    "prefix": prefix, "glued": glued, "joined": joined, "sections_joined": sections_joined, "sentences_swapped": sentences_swapped,
    "sentence_skipped": sentence_skipped, "verse_skipped": verse_skipped, "mood": mood, "inner_mood": inner_mood,
    "comma_moved": comma_moved, "cut_from_denial": cut_from_denial, "cut_from_condition": cut_from_condition,
    "cut_from_question": cut_from_question, "omitted_denial": omitted_denial, "homoglyph_lie": homoglyph_lie, "elsewhere": elsewhere,
    "invented": invented, "apparatus": apparatus,
}  # fmt: skip
#: What a sentence must have for a kind that few sentences suit.
WANTED = {
    "negation_out": _NEGATION, "digit": r"\d", "roman": r"\b[IVXLC]{2,}\b", "figure_cut": r"\d[.,:/–-]\d",
    "compound_cut": r"[^\W\d_]{2,}-[^\W\d_]{2,}", "mood": r"\w[.!?]$", "inner_mood": r"\w[!?]$", "cut_from_question": r"\w\?$",
    "verse_skipped": r"\n.+\n", "number_word": rf"\b(?:{'|'.join(NUMBERS)})\b",
    "cut_from_denial": r"\b(?:[Nn]on|[Ss]enza|[Ss]e|[Ff]orse)\b",
    "cut_from_condition": r",\s+(?:ma|però|purché|tranne|salvo|se|forse|benché)\b", "slashes": r"\n", "straight_marks": "[«»“”]",
    "ligatures": "f[fil]", "apostrophe_accents": r"[àèéìòù]\b", "other_accents": r"[àèéìòù]\b",
}  # fmt: skip
