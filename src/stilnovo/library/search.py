"""Questions and quotations to passages.

Three kinds of words are told apart. Words in quotation marks must stand in the passage, as a phrase, in the exact
field. A few words in a row that are no question are also tried as a phrase, which lifts a remembered line above its
own words. All others are alternatives, as they stand and as stems, function words aside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.library import index
from stilnovo.library.records import Passage
from stilnovo.library.store import Library, guard
from stilnovo.text.italian import content_words, stem, tokens

_QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"]+)\"")
_ASKING = re.compile(r"\?|^\W*(?:chi|che|cosa|dove|quando|come|perch[eéè]|qual[ei]?|quant[oaie])\b", re.I)
_PHRASE_WORDS = range(3, 13)


@dataclass(frozen=True)
class Hit:
    """A passage and its score (summed BM25; comparable within one search only)."""

    passage: Passage
    score: float


def _phrase(text: str) -> str:
    return " ".join(token.form for token in tokens(text))


def expression(query: str) -> str:
    """The FTS5 expression of a query; empty when it has no word to search for."""
    quoted = [phrase for match in _QUOTED.findall(query) if (phrase := _phrase("".join(match)))]
    free = _QUOTED.sub(" ", query)
    words = content_words(free) or ([] if quoted else [token.form for token in tokens(free)])
    wanted = []
    if words:
        wanted.append("surface : (" + " OR ".join(f'"{word}"' for word in words) + ")")
        stemmed = dict.fromkeys(stem(word) for word in words)
        alternatives = " OR ".join(f'"{form}"' for form in stemmed)
        wanted += [f"stem : ({alternatives})", f"context : ({alternatives})"]
        whole = _phrase(free)
        if not quoted and not _ASKING.search(query) and len(whole.split()) in _PHRASE_WORDS:
            wanted.append(f'surface : "{whole}"')
    demanded = [f'surface : "{phrase}"' for phrase in quoted]
    if not demanded:
        return " OR ".join(wanted)
    needed = " AND ".join(demanded)
    return f"({needed}) AND ({' OR '.join([*demanded, *wanted])})" if wanted else needed


def search(library: Library, query: str, limit: int = 10, works: Sequence[int] = ()) -> list[Hit]:
    """The best passages for a query, best first; within some works, if given.

    Quoted words that stand nowhere give no passage, and neither does a query without a word.
    """
    return search_for(library, expression(query), limit, works)


def search_for(library: Library, sought: str, limit: int, works: Sequence[int] = ()) -> list[Hit]:
    """The best passages for an FTS5 expression over the fields surface, stem and context."""
    if not sought:
        return []
    with guard(library.path):
        found = index.match(library.connection, sought, limit, works)
    passages = {passage.id: passage for passage in library.passages([number for number, _ in found])}
    return [Hit(passages[number], score) for number, score in found]
