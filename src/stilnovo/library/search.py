"""Search passages by question or quotation.

Three kinds of words are told apart. Words in quotation marks must stand in the passage, as a phrase, in the exact
field. A few words in a row that are no question are also tried as a phrase, which lifts a remembered line above its
own words. All others are alternatives, as they stand and as stems, function words aside.

Lists are fused by reciprocal rank (Cormack, Clarke and Buettcher 2009, k = 60), as a cosine and a BM25 score have no common
measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stilnovo.errors import check_types
from stilnovo.library.index import Sought
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.text.italian import analyse, content_words, stem

_QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"]+)\"")
_ASKING = re.compile(r"\?|^\W*(?:chi|che|cosa|dove|quando|come|perch[eéè]|qual[ei]?|quant[oaie])\b", re.I)
_CUT = re.compile(r"[^\W_]+")
_PHRASE_WORDS = range(3, 13)
#: How deep each of two lists is read before they are fused, and how many passages a reranker reads.
DEPTH, RERANKED, RRF_K = 100, 50, 60


@dataclass(frozen=True)
class Hit:
    """A passage and its score (summed BM25; comparable within one search only)."""

    passage: Passage
    score: float


def _phrase(text: str) -> tuple[str, ...]:
    return tuple(_CUT.findall(analyse(text)[0]))


def sought(query: str) -> Sought:
    """Parse a query; empty when it has no word to search for."""
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
    """Search the library: passages best first; restricted to some works, if given.

    Quoted words that stand nowhere give no passage, and neither does a query without a word. Where the library has an
    embedder, passages near by meaning are fused with those by words, but for quoted words; where it has a reranker, that
    has the last word on the first fifty.
    """
    check_types(Library, library=library)
    check_types(str, query=query)
    wanted = sought(query)
    if wanted == Sought():
        return []
    if (library.embedder is None and library.reranker is None) or wanted.demanded:
        return _hits(library, library.index.match(wanted, limit, works))
    ranking = library.index.match(wanted, max(limit, DEPTH), works)
    if library.embedder is not None:
        lists = (ranking, library.nearest(query, max(limit, DEPTH), works))
        ranking = fused([[passage for passage, _ in ranked] for ranked in lists], max(limit, DEPTH))
    if library.reranker is None:
        return _hits(library, ranking[:limit])
    first = _hits(library, ranking[: max(limit, RERANKED)])
    scores = library.reranker(query, [hit.passage.text for hit in first])
    ranked = sorted(zip(scores, first, strict=True), key=lambda pair: -pair[0])
    return [Hit(hit.passage, float(score)) for score, hit in ranked[:limit]]


def _hits(library: Library, ranking: Sequence[tuple[int, float]]) -> list[Hit]:
    passages = {passage.id: passage for passage in library.passages([passage_id for passage_id, _ in ranking])}
    # An index that another process is still writing may know passages that are gone.
    return [Hit(passages[passage_id], score) for passage_id, score in ranking if passage_id in passages]


def fused(lists: Iterable[Sequence[int]], limit: int) -> list[tuple[int, float]]:
    """Fuse ranked lists of ids by reciprocal rank: the sum over the lists of 1 / (60 + rank), ranks from 1."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, passage in enumerate(ranked, start=1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:limit]
