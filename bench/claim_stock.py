"""What quotations are made of, right ones and wrong ones (`true_claims.py`, `false_claims.py`), and their truth by brute force.

Needs: stilnovo.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from stilnovo.chat.units import units
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.store import Library
from stilnovo.text.italian import modern

#: A quotation is made of a sentence with so many words.
WORDS = range(6, 31)


@dataclass(frozen=True)
class Claim:
    """A quotation made from `original`, in `section`.

    `true` is whether it says what the source says there; `needs` are words that have to be shown with it, should it be
    accepted: those that deny, condition or ask what it says.
    """

    kind: str
    claimed: str
    original: str
    section: Chapter
    true: bool
    needs: str = ""


@dataclass
class Place:
    """A sentence of a book, and where it stands: offsets count in its section's own words, `source`."""

    section: Chapter
    source: str
    start: int
    end: int

    @property
    def sentence(self) -> str:
        return self.source[self.start : self.end]


@dataclass
class Made:
    """What a kind makes of a sentence; `needs` as in `Claim`, `exactly` whether case and accents are what is wrong with it."""

    claimed: str
    needs: str = ""
    exactly: bool = False
    original: str = ""


#: How a kind makes a claim of a sentence; None where the sentence does not suit it.
Kind = Callable[[random.Random, Place, "Stock"], Made | None]


@dataclass
class Stock:
    """What wrong words are taken from: the library's own vocabulary, names, sentences, notes and speakers."""

    vocabulary: list[str]
    names: list[str]
    places: list[Place]
    apparatus: dict[int, list[str]]
    of_work: dict[int, list[Place]]
    neighbours: dict[str, list[str]]
    pools: dict[str, list[Place]] = field(default_factory=dict)

    def pool(self, pattern: str) -> list[Place]:
        """The sentences that have what a kind needs."""
        if pattern not in self.pools:
            wanted = re.compile(pattern)
            self.pools[pattern] = [place for place in self.places if wanted.search(place.sentence)]
        return self.pools[pattern]


# Truth by brute force: words one after the other, compared in the plainest way.


def plain_words(text: str, exact: bool) -> list[str]:
    """Words of a text: letters and digits; `exact` keeps case and accents, else both are dropped."""
    text = unicodedata.normalize("NFC", text)
    for invisible in "\u00ad\u200b\u200c\u200d\u2060\ufeff":
        text = text.replace(invisible, "")
    for apostrophe in "’‘ʼ`´":
        text = text.replace(apostrophe, "'")
    found = re.findall(r"[^\W_]+", text)
    if exact:
        return found
    return ["".join(c for c in unicodedata.normalize("NFKD", w.lower()) if not unicodedata.combining(c)) for w in found]


@lru_cache(maxsize=200)
def _row(source: str, exact: bool) -> str:
    return f" {' '.join(plain_words(source, exact))} "


def stands(claimed: str, source: str, exact: bool) -> bool:
    """Whether the claimed words stand in the source one after the other."""
    needle = " ".join(plain_words(claimed, exact))
    return bool(needle) and f" {needle} " in _row(source, exact)


def times(claimed: str, source: str) -> int:
    """How often the claimed words stand in the source: cut out here, they may be whole there."""
    return _row(source, exact=False).count(f" {' '.join(plain_words(claimed, exact=False))} ")


def stands_whole(claimed: str, source: str) -> bool:
    """Whether the claim stands in the source letter for letter, with nothing at its ends that a word or a figure could go on with."""
    joints = "-‐‑–.,:/'’%°_"
    at = source.find(claimed)
    while at >= 0:
        before, behind = source[max(0, at - 2) : at], source[at + len(claimed) :][:2]
        inside_before = before[-1:].isalnum() or (before[-1:] in joints and before[:1].isalnum())
        inside_behind = behind[:1].isalnum() or behind[:1] in "%°" or (behind[:1] in joints and behind[1:2].isalnum())
        if not inside_before and not inside_behind:
            return True
        at = source.find(claimed, at + 1)
    return False


def stock_of(library: Library, draw: random.Random, passages: int = 4000) -> Stock:
    """Sentences of some passages, and the words they are made of."""
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    vocabulary, names = Counter[str](), Counter[str]()
    places: list[Place] = []
    for passage in library.passages(sorted(draw.sample(numbers, min(passages, len(numbers))))):
        source = _own_words(library, passage)
        shift = passage.start - passage.section.body
        for start, end in units(passage):
            sentence = passage.text[start:end]
            if len(plain_words(sentence, exact=True)) in WORDS and len(sentence.split()) > 4:
                places.append(Place(passage.section, source, start + shift, end + shift))
            words = sentence.split()
            vocabulary.update(word for word in words if word.isalpha() and word.islower() and len(word) > 3)
            names.update(word for word in words[1:] if word.isalpha() and word[0].isupper() and len(word) > 3)
    of_work: dict[int, list[Place]] = defaultdict(list)
    for place in places:
        of_work[place.section.work.id].append(place)
    notes = {work.id: _apparatus(library, work) for work in library.works()}
    return Stock(sorted(vocabulary), sorted(names), places, notes, of_work, _neighbours(vocabulary))


@lru_cache(maxsize=500)
def _section_words(text: str, start: int, end: int) -> str:
    return text[start:end]


def _own_words(library: Library, passage: Passage) -> str:
    return _section_words(library.text(passage.section.work), passage.section.body, passage.section.end)


def _apparatus(library: Library, work: Work) -> list[str]:
    """Notes, speakers and the like of a work."""
    texts = [piece.text for piece in library.apparatus(work)]
    return [text for text in texts if len(plain_words(text, exact=True)) in range(3, 60)]


def _neighbours(vocabulary: Counter[str]) -> dict[str, list[str]]:
    """For each word those that differ from it by one letter (put in, left out or exchanged) and are no old spelling of it."""
    holes: dict[str, list[str]] = defaultdict(list)
    for word in sorted(vocabulary):
        for at in range(len(word)):
            holes[f"{word[:at]}_{word[at + 1 :]}"].append(word)
        for at in range(len(word) + 1):
            holes[f"{word[:at]}_{word[at:]}"].append(word)
    near: dict[str, set[str]] = defaultdict(set)
    for words in holes.values():
        for word in words[:20]:
            near[word].update(other for other in words[:20] if modern(other) != modern(word))
    return {word: sorted(others) for word, others in near.items()}
