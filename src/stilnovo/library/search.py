"""Questions and quotations to passages.

Three kinds of words are told apart. Words in quotation marks must stand in the passage, as a phrase, in the exact
field. A few words in a row that are no question are also tried as a phrase, which lifts a remembered line above its
own words. All others are alternatives, as they stand and as stems, function words aside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.library.index import Sought
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.text.italian import analyse, content_words, stem

_QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"]+)\"")
_ASKING = re.compile(r"\?|^\W*(?:chi|che|cosa|dove|quando|come|perch[eéè]|qual[ei]?|quant[oaie])\b", re.I)
_CUT = re.compile(r"[^\W_]+")
_PHRASE_WORDS = range(3, 13)


@dataclass(frozen=True)
class Hit:
    """A passage and its score (summed BM25; comparable within one search only)."""

    passage: Passage
    score: float


def _phrase(text: str) -> tuple[str, ...]:
    return tuple(_CUT.findall(analyse(text)[0]))


def sought(query: str) -> Sought:
    """What a query looks for; empty when it has no word to search for."""
    quoted = tuple(phrase for match in _QUOTED.findall(query) if (phrase := _phrase("".join(match))))
    free = _QUOTED.sub(" ", query)
    words = content_words(free) or ([] if quoted else list(dict.fromkeys(_phrase(free))))
    stems = tuple(dict.fromkeys(stem(word) for word in words))
    whole = _phrase(free)
    remembered = not quoted and not _ASKING.search(query) and len(whole) in _PHRASE_WORDS
    return Sought(
        # Words in quotation marks also count as words: a passage that has them often is found before one that does once.
        surface=tuple(dict.fromkeys([*words, *(word for phrase in quoted for word in phrase)])),
        stem=stems,
        context=stems,
        phrase=whole if remembered else (),
        demanded=quoted,
    )


def search(library: Library, query: str, limit: int = 10, works: Sequence[int] = ()) -> list[Hit]:
    """The best passages for a query, best first; within some works, if given.

    Quoted words that stand nowhere give no passage, and neither does a query without a word.
    """
    return search_for(library, sought(query), limit, works)


def search_for(library: Library, wanted: Sought, limit: int, works: Sequence[int] = ()) -> list[Hit]:
    """The best passages for what is looked for."""
    found = library.index.match(wanted, limit, works)
    passages = {passage.id: passage for passage in library.passages([number for number, _ in found])}
    # An index that another process is still writing may know passages that are gone.
    return [Hit(passages[number], score) for number, score in found if number in passages]
