"""Wrong quotations: every kind of fault that a person, a model or a machine puts into one, and what a forger would try.

Here those of whole sentences: cut, joined, skipped, exchanged, told in another mood. `false_words.py` has those of words.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re

from claim_stock import Kind, Made, Place, Stock, plain_words
from false_words import (
    NEGATION,
    NUMBERS,
    accent,
    changed,
    clitic,
    digit,
    dropped,
    ending,
    first_name,
    function_word,
    glued,
    inserted,
    negation_in,
    negation_out,
    number_word,
    one_letter,
    prefix,
    renamed,
    roman,
    sentence_words,
    swapped,
    tense,
)


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


def word_cut(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Begins or ends inside a word."""
    text = re.sub(r"^\W+|\W+$", "", place.sentence)
    if not re.match(r"[^\W\d_]{3}", text) or not re.search(r"[^\W\d_]{3}$", text):
        return None
    return Made(draw.choice([text[:-1], text[1:]]), exactly=True)


def clauses_swapped(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    parts = re.split(r"(?<=\w),\s+", place.sentence.rstrip(".!?…»” "))
    return Made(", ".join([*parts[1:], parts[0]]) + ".") if len(parts) > 1 else None


def joined(draw: random.Random, place: Place, stock: Stock) -> Made:
    """The first half of one sentence, the second of another, as if they followed each other."""
    words, other = sentence_words(place), sentence_words(draw.choice(stock.places))
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
    words = sentence_words(place)
    part = " ".join(words[1:-1]) if draw.random() < 0.5 else " ".join(words[1:])[:-1]
    return Made(part, needs="?", original=part) if len(plain_words(part, exact=True)) > 2 else None


def omitted_denial(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Words left out, and said to be, among them the denial."""
    words = sentence_words(place)
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
    "negation_out": NEGATION, "digit": r"\d", "roman": r"\b[IVXLC]{2,}\b", "figure_cut": r"\d[.,:/–-]\d",
    "compound_cut": r"[^\W\d_]{2,}-[^\W\d_]{2,}", "mood": r"\w[.!?]$", "inner_mood": r"\w[!?]$", "cut_from_question": r"\w\?$",
    "verse_skipped": r"\n.+\n", "number_word": rf"\b(?:{'|'.join(NUMBERS)})\b",
    "cut_from_denial": r"\b(?:[Nn]on|[Ss]enza|[Ss]e|[Ff]orse)\b",
    "cut_from_condition": r",\s+(?:ma|però|purché|tranne|salvo|se|forse|benché)\b", "slashes": r"\n", "straight_marks": "[«»“”]",
    "ligatures": "f[fil]", "apostrophe_accents": r"[àèéìòù]\b", "other_accents": r"[àèéìòù]\b",
}  # fmt: skip
