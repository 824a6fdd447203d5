"""Quotations made from real books, with their truth: ways of getting one wrong, and of writing a right one otherwise.

The kinds' truth is known by how they are made; what chance makes true (a changed word that restores another sentence) is
found by a brute-force comparison of word lists, which shares no code with the verifier. `quotations.py` and `retrieval.py`
check them.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from stilnovo.chat.units import units
from stilnovo.library.records import Chapter, Passage
from stilnovo.library.store import Library

SEED, COUNT = 20261125, 1000
#: A quotation is made of a sentence with so many words.
WORDS = range(6, 31)


@dataclass(frozen=True)
class Claim:
    """A quotation made from `original`, in `section`; `true` is whether its words stand in the source, in this order."""

    kind: str
    claimed: str
    original: str
    section: Chapter
    true: bool


# Truth by brute force: lists of words, cut and compared in the plainest way.


def plain_words(text: str, exact: bool) -> list[str]:
    """Words of a text: letters, digits and apostrophes; `exact` keeps case and accents, else both are dropped."""
    text = unicodedata.normalize("NFC", text)
    for invisible in "\u00ad\u200b\u200c\u200d\u2060\ufeff":
        text = text.replace(invisible, "")
    for apostrophe in "’‘ʼ`´":
        text = text.replace(apostrophe, "'")
    found = re.findall(r"[^\W_]+", text)
    if exact:
        return found
    return ["".join(c for c in unicodedata.normalize("NFKD", w.lower()) if not unicodedata.combining(c)) for w in found]


def stands(claimed: str, source: str, exact: bool) -> bool:
    """Whether the claimed words stand in the source one after the other."""
    needle, hay = plain_words(claimed, exact), plain_words(source, exact)
    size = len(needle)
    return size > 0 and any(hay[i : i + size] == needle for i in range(len(hay) - size + 1))


# Ways of getting a quotation wrong, and of writing a right one otherwise. Each takes the sentence's words.

Change = Callable[[random.Random, list[str], "Stock"], list[str] | str | None]


@dataclass
class Stock:
    """What wrong words are taken from: the library's own vocabulary, names and sentences."""

    vocabulary: list[str]
    names: list[str]
    sentences: list[tuple[Passage, str]]


def _at(draw: random.Random, words: list[str]) -> int:
    return draw.randrange(1, len(words) - 1)


def changed(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], draw.choice(stock.vocabulary), *words[place + 1 :]]


def inserted(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], draw.choice(stock.vocabulary), *words[place:]]


def dropped(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return words[:place] + words[place + 1 :]


def swapped(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def negated(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], "non", *words[place:]]


def joined(draw: random.Random, words: list[str], stock: Stock) -> str:
    """The first half of one sentence, the second of another, as if they followed each other."""
    other = draw.choice(stock.sentences)[1].split()
    mark = draw.choice([" ", " / ", " … ", " [...] "])
    return " ".join(words[: len(words) // 2]) + mark + " ".join(other[len(other) // 2 :])


def elsewhere(draw: random.Random, words: list[str], stock: Stock) -> str:
    """A true sentence of another work."""
    return draw.choice(stock.sentences)[1]


def invented(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    return [draw.choice(stock.vocabulary) for _ in range(draw.randrange(6, 12))]


def renamed(draw: random.Random, words: list[str], stock: Stock) -> list[str] | None:
    places = [i for i, word in enumerate(words) if i and word[:1].isupper() and word.isalpha() and len(word) > 3]
    if not places:
        return None
    place = draw.choice(places)
    return [*words[:place], draw.choice(stock.names), *words[place + 1 :]]


def renumbered(draw: random.Random, words: list[str], stock: Stock) -> str | None:
    text = " ".join(words)
    found = re.search(r"\d+", text)
    if found:
        return text[: found.start()] + str(int(found.group()) + draw.randrange(1, 9)) + text[found.end() :]
    numbers = ["due", "tre", "quattro", "cinque", "sei", "sette", "otto", "dieci", "venti", "trenta", "cento", "mille"]
    places = [i for i, word in enumerate(words) if word in numbers]
    if not places:
        return None
    place = draw.choice(places)
    return " ".join([*words[:place], draw.choice([n for n in numbers if n != words[place]]), *words[place + 1 :]])


def ending(draw: random.Random, words: list[str], stock: Stock) -> list[str] | None:
    """Another ending: *amava* for *amavo*, the smallest lie there is."""
    places = [
        i for i, word in enumerate(words) if word.isalpha() and len(word) > 4 and word[-1] in "aeio" and word.islower()
    ]
    if not places:
        return None
    place = draw.choice(places)
    vowel = draw.choice([v for v in "aeio" if v != words[place][-1]])
    return [*words[:place], words[place][:-1] + vowel, *words[place + 1 :]]


def homoglyph_lie(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    """A changed word, with letters of another alphabet over the whole."""
    return " ".join(changed(draw, words, stock)).translate(str.maketrans("aeopc", "аеорс")).split()


FALSE: dict[str, Change] = {
    "changed": changed, "inserted": inserted, "dropped": dropped, "swapped": swapped, "negated": negated, "joined": joined,
    "elsewhere": elsewhere, "invented": invented, "renamed": renamed, "renumbered": renumbered, "ending": ending,
    "homoglyph_lie": homoglyph_lie,
}  # fmt: skip


def exact(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    return words


def line_breaks(draw: random.Random, words: list[str], stock: Stock) -> str:
    return "".join(word + draw.choice([" ", "\n", "  ", "\u00a0", "\n\n"]) for word in words)


def typographic(draw: random.Random, words: list[str], stock: Stock) -> str:
    text = " ".join(words)
    if "’" in text:
        text = text.replace("’", "'")
    else:
        text = text.replace("'", "’")
    text = text.replace("…", "...") if "…" in text else text.replace("...", "…")
    for pair in ("«“", "»”", "–—"):
        text = text.replace(pair[0], "\0").replace(pair[1], pair[0]).replace("\0", pair[1])
    return text


def zero_width(draw: random.Random, words: list[str], stock: Stock) -> str:
    text = list(" ".join(words))
    for _ in range(4):
        text.insert(draw.randrange(1, len(text)), draw.choice("\u200b\u200c\u200d\u2060\u00ad\ufeff"))
    return "".join(text)


def decomposed(draw: random.Random, words: list[str], stock: Stock) -> str:
    return unicodedata.normalize("NFD", " ".join(words))


def dotted(draw: random.Random, words: list[str], stock: Stock) -> str:
    return draw.choice(["…{}", "... {} …", "{}…", "[...] {}"]).format(" ".join(words).rstrip(".,;:!?… "))


def upper(draw: random.Random, words: list[str], stock: Stock) -> str:
    return " ".join(words).upper()


def bare(draw: random.Random, words: list[str], stock: Stock) -> str:
    """No accent, no punctuation, no capital."""
    return " ".join(plain_words(" ".join(words), exact=False))


def homoglyphs(draw: random.Random, words: list[str], stock: Stock) -> str:
    return " ".join(words).translate(str.maketrans("aeopc", "аеорс"))


#: Kind → how a true quotation is written; those in SAME_WORDING must be verified, the others at least put right.
TRUE: dict[str, Change] = {
    "exact": exact, "line_breaks": line_breaks, "typographic": typographic, "zero_width": zero_width,
    "decomposed": decomposed, "dotted": dotted, "upper": upper, "bare": bare, "homoglyphs": homoglyphs,
}  # fmt: skip
SAME_WORDING = ("exact", "line_breaks", "typographic", "zero_width", "decomposed", "dotted")


def stock_of(library: Library, draw: random.Random, passages: int = 1500) -> Stock:
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    sentences, vocabulary, names = [], Counter[str](), Counter[str]()
    for passage in library.passages(sorted(draw.sample(numbers, min(passages, len(numbers))))):
        for start, end in units(passage):
            sentence = passage.text[start:end]
            if len(plain_words(sentence, exact=True)) in WORDS:
                sentences.append((passage, sentence))
            words = sentence.split()
            vocabulary.update(word for word in words if word.isalpha() and word.islower() and len(word) > 3)
            names.update(word for word in words[1:] if word.isalpha() and word[0].isupper() and len(word) > 3)
    return Stock(sorted(vocabulary), sorted(names), sentences)


def claims(library: Library, count: int = COUNT, seed: int = SEED) -> list[Claim]:
    """Quotations of every kind in turn, false and true, with their truth; the same for the same library and seed."""
    draw = random.Random(seed)
    stock = stock_of(library, draw)
    kinds = {**FALSE, **TRUE}
    made: list[Claim] = []
    turn = 0
    while len(made) < count:
        kind = list(kinds)[turn % len(kinds)]
        passage, sentence = draw.choice(stock.sentences)
        source = library.text(passage.section.work)[passage.section.body : passage.section.end]
        words = sentence.split()
        result = kinds[kind](draw, words, stock) if len(words) > 4 else None
        if result is None:
            continue
        turn += 1
        claimed = result if isinstance(result, str) else " ".join(result)
        true = kind in TRUE or stands(claimed, source, exact=False)
        made.append(Claim(kind, claimed, sentence, passage.section, true))
    return made
