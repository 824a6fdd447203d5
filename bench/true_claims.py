"""Right quotations as people and programs write them: every kind of difference that is none in wording.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re
import unicodedata

from claim_stock import Kind, Made, Place, Stock, plain_words


def _words(place: Place) -> list[str]:
    return place.sentence.split()


def exact(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made(place.sentence)


def line_breaks(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made("".join(word + draw.choice([" ", "\n", "  ", "\u00a0", "\n\n", "\t"]) for word in _words(place)))


def slashes(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A line's end as a slash, as verse is quoted."""
    if "\n" not in place.sentence or "/" in place.sentence:
        return None
    return Made(re.sub(r"\s*\n\s*", draw.choice([" / ", " // ", " /\n"]), place.sentence))


def typographic(draw: random.Random, place: Place, stock: Stock) -> Made:
    text = place.sentence
    text = text.replace("’", "'") if "’" in text else text.replace("'", "’")
    text = text.replace("…", "...") if "…" in text else text.replace("...", "…")
    for pair in ("«“", "»”", "–—"):
        text = text.replace(pair[0], "\0").replace(pair[1], pair[0]).replace("\0", pair[1])
    return Made(text)


def straight_marks(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    if not set("«»“”") & set(place.sentence):
        return None
    return Made(re.sub("[«»“”„]", '"', place.sentence))


def french_spaces(draw: random.Random, place: Place, stock: Stock) -> Made:
    text = re.sub(r"(?<=\w)([;:!?])", "\u00a0\\1", place.sentence)
    return Made(text.replace("«", "«\u202f").replace("»", "\u202f»"))


def quoted(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """With the quoter's own marks around it."""
    left, right = draw.choice(["«»", "“”", "„“", '""'])
    if set("«»“”„\"‹›'‘’") & set(place.sentence[0] + place.sentence[-1]):
        return None
    return Made(f"{left}{place.sentence}{right}")


def final_mark(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Broken off before a comma or a semicolon, closed with a full stop or a comma."""
    cuts = [match.start() for match in re.finditer(r"(?<=\w)[,;:](?=\s)", place.sentence)]
    cuts = [cut for cut in cuts if len(plain_words(place.sentence[:cut], exact=True)) > 3]
    if not cuts:
        return None
    part = place.sentence[: draw.choice(cuts)]
    return Made(part + draw.choice([".", ",", "", "…"]), original=part)


def zero_width(draw: random.Random, place: Place, stock: Stock) -> Made:
    text = list(place.sentence)
    for _ in range(4):
        text.insert(draw.randrange(1, len(text)), draw.choice("\u200b\u200c\u200d\u2060\u00ad\ufeff"))
    return Made("".join(text))


def decomposed(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made(unicodedata.normalize("NFD", place.sentence))


def dotted(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    bare = place.sentence.rstrip(".,;: ")
    if bare[-1] in "!?…":
        return None
    return Made(draw.choice(["…{}", "... {} …", "{}…", "[...] {}", "{} […]"]).format(bare))


def note_marks(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """The number of the edition's note behind a word."""
    places = [match.end() for match in re.finditer(r"[^\W\d_]{3,}(?=[\s,;])", place.sentence)]
    if not places:
        return None
    at = draw.choice(places)
    return Made(place.sentence[:at] + draw.choice(["[1]", "[12]", "²", "¹⁴"]) + place.sentence[at:])


def upper(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made(place.sentence.upper())


def head_capital(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Entered in the middle of the sentence, the first letter made great, with brackets or without."""
    starts = [match.end() for match in re.finditer(r"[,;:]\s+(?=[^\W\d_])", place.sentence)]
    starts = [at for at in starts if place.sentence[at].islower() and len(place.sentence[at:].split()) > 4]
    if not starts:
        return None
    part = place.sentence[draw.choice(starts) :]
    head = draw.choice(["{}", "[{}]"]) if part[1].isalpha() else "{}"
    return Made(head.format(part[0].upper()) + part[1:], original=part)


def inserted_name(draw: random.Random, place: Place, stock: Stock) -> Made:
    """A name in brackets, as an editor explains a pronoun."""
    words = _words(place)
    at = draw.randrange(1, len(words))
    return Made(" ".join([*words[:at], f"[{draw.choice(stock.names)}]", *words[at:]]))


def omission(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Words left out, and said to be, that deny nothing."""
    words = _words(place)
    if len(words) < 12:
        return None
    first, last = 5, len(words) - 5
    left_out = set(plain_words(" ".join(words[first:last]), exact=True))
    turning = {"non", "no", "né", "se", "ma", "senza", "mai", "nulla", "niente", "nessuno", "nessuna", "però", "soltanto", "solo", "meno",
               "purché", "mica", "neppure", "nemmeno", "neanche", "salvo", "tranne", "eccetto", "invece", "falso", "impossibile",
               "nessun", "nè", "ne", "fuorché", "purchè", "anziché"}  # fmt: skip
    if {word.lower() for word in left_out} & turning:
        return None
    if words[first - 1].endswith(("'", "’")):
        return None
    if any(len(plain_words(" ".join(part), exact=True)) < 4 for part in (words[:first], words[last:])):
        return None
    return Made(" ".join(words[:first]) + draw.choice([" […] ", " [...] ", " (…) "]) + " ".join(words[last:]))


def broken_word(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """A word broken by the quoter's own line."""
    places = [match.start() + 3 for match in re.finditer(r"[^\W\d_]{7,}", place.sentence)]
    if not places:
        return None
    at = draw.choice(places)
    return Made(f"{place.sentence[:at]}-\n{place.sentence[at:]}")


def bare(draw: random.Random, place: Place, stock: Stock) -> Made:
    """No accent, no punctuation, no capital."""
    return Made(" ".join(plain_words(place.sentence, exact=False)))


def apostrophe_accents(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """Accents typed as apostrophes: *perche'*, *citta'*."""
    text = re.sub(r"[àèéìòù](?!\w)", lambda m: unicodedata.normalize("NFD", m.group())[0] + "'", place.sentence)
    doubtful = re.search(r"\b(?:ne|da|e|di|se|fa|fe|de|va|sta|be|mo|po|pie|fe|su|to|te|a|i|co)'(?!\w)", text)
    return Made(text) if text != place.sentence and not doubtful else None


def other_accents(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    """The other accent on a final letter: *perchè*, *nè*."""
    pairs = {"é": "è", "è": "é", "ì": "í", "ù": "ú", "à": "á", "ò": "ó"}
    text = re.sub(r"[éèìùàò](?!\w)", lambda m: pairs[m.group()], place.sentence)
    return Made(text) if text != place.sentence else None


def homoglyphs(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made(place.sentence.translate(str.maketrans("aeopc", "аеорс")))


def ligatures(draw: random.Random, place: Place, stock: Stock) -> Made | None:
    text = place.sentence.replace("ffi", "ﬃ").replace("fi", "ﬁ").replace("fl", "ﬂ").replace("ff", "ﬀ")
    return Made(text) if text != place.sentence else None


def fullwidth(draw: random.Random, place: Place, stock: Stock) -> Made:
    return Made("".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in place.sentence))


#: Kind → how a true quotation is written; those in SAME_WORDING must be verified, the others at least put right.
TRUE: dict[str, Kind] = {
    "exact": exact, "line_breaks": line_breaks, "slashes": slashes, "typographic": typographic, "straight_marks": straight_marks,
    "french_spaces": french_spaces, "quoted": quoted, "final_mark": final_mark, "zero_width": zero_width, "decomposed": decomposed,
    "dotted": dotted, "note_marks": note_marks, "upper": upper, "head_capital": head_capital, "inserted_name": inserted_name,
    "omission": omission, "broken_word": broken_word, "bare": bare, "apostrophe_accents": apostrophe_accents,
    "other_accents": other_accents, "homoglyphs": homoglyphs, "ligatures": ligatures, "fullwidth": fullwidth,
}  # fmt: skip
SAME_WORDING = (
    "exact", "line_breaks", "slashes", "typographic", "straight_marks", "french_spaces", "quoted", "final_mark", "zero_width", "decomposed",
    "dotted", "note_marks", "broken_word",
)  # fmt: skip
