"""Search passages by question or quotation.

Three kinds of words are told apart. Words in quotation marks must stand in the passage, as a phrase, in the exact
field. A few words in a row that are no question are also tried as a phrase, which lifts a remembered line above its
own words; so are five and more that only begin like a question, without its mark (*che volge a mezzogiorno, tra due*).
All others are alternatives, as they stand and as stems, function words aside.

Where the passages have vectors, those near by meaning are candidates too. Both scores of every candidate are scaled to mean
0 and deviation 1 over the candidates and added (Bruch, Gai and Ingber 2023, arXiv:2210.11934): on SQuAD-it that finds more
than their ranks do. `bench/retrieval.py` fits and measures the share of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stilnovo.errors import check_types
from stilnovo.library.index import Sought
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.text.italian import analyse, content_words, stem

_QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"]+)\"")
_ASKING = re.compile(r"\?|^\W*(?:chi|che|cosa|dove|quando|come|perch[eéè]|qual[ei]?|quant[oaie])\b", re.I)
_CUT = re.compile(r"[^\W_]+")
_PHRASE_WORDS, _PHRASE_THOUGH_ASKING = range(3, 13), 5
#: How many candidates words and meaning give each, and how many passages a reranker reads.
DEPTH, RERANKED = 100, 50
#: What meaning counts beside words, of 1: for a question, and for a few words that are none, which are remembered rather than
#: meant. (Six-word quotations of novels by .6: the right passage first for .91; by .3 for all. bench/meaning.py)
MEANING, MEANING_OF_WORDS = 0.6, 0.3


@dataclass(frozen=True)
class Hit:
    """A passage and its score, comparable within one search only: summed BM25, or by meaning too, of 1 for the best."""

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
    asking = "?" in query or (len(whole) < _PHRASE_THOUGH_ASKING and _ASKING.search(query) is not None)
    remembered = not quoted and not asking and len(whole) in _PHRASE_WORDS
    return Sought(
        # Words in quotation marks also count as words: a passage that has them often is found before one that does once.
        surface=tuple(dict.fromkeys([*words, *(word for phrase in quoted for word in phrase)])),
        stem=stems,
        context=stems,
        phrase=whole if remembered else (),
        demanded=quoted,
    )


def search(
    library: Library, query: str, limit: int = 10, works: Sequence[int] = (), *, words_only: bool = False
) -> list[Hit]:
    """Search the library: passages best first; restricted to some works, if given.

    Quoted words that stand nowhere give no passage, and neither does a query without a word. Where the library has
    vectors of its embedding model, passages are found by words and by meaning, but for quoted words or `words_only`; where
    it has a reranker, that has the last word on the first fifty.
    """
    check_types(Library, library=library)
    check_types(str, query=query)
    wanted = sought(query)
    if wanted == Sought():
        return []
    by_meaning = not wanted.demanded and not words_only and library.searching() is not None
    reranker = None if wanted.demanded else library.reranker
    ranking = library.index.match(wanted, max(limit, DEPTH) if by_meaning or reranker else limit, works)
    if by_meaning:
        ranking = _by_both(library, query, wanted, dict(ranking), max(limit, DEPTH), works)
    if reranker is None:
        return _hits(library, ranking[:limit])
    first = _hits(library, ranking[: max(limit, RERANKED)])
    scores = reranker(query, [hit.passage.text for hit in first])
    ranked = sorted(zip(scores, first, strict=True), key=lambda pair: -pair[0])
    return [Hit(hit.passage, float(score)) for score, hit in ranked[:limit]]


def _by_both(
    library: Library, query: str, wanted: Sought, words: Mapping[int, float], depth: int, works: Sequence[int]
) -> list[tuple[int, float]]:
    """Rank the passages found by words together with those near by meaning, every one with both scores."""
    cosines = dict(library.nearest(query, depth, works, also=words))
    if not cosines:  # no passage has a vector yet
        return list(words.items())
    others = [passage for passage in cosines if passage not in words]
    meant = len(_phrase(query)) > max(_PHRASE_WORDS) or (
        _ASKING.search(query) is not None
        and not (wanted.phrase and library.index.match(Sought(demanded=(wanted.phrase,)), 1, works))
    )
    scores = {**words, **library.index.scores(wanted, others)}
    return added(scores, cosines, MEANING if meant else MEANING_OF_WORDS)


def added(words: Mapping[int, float], cosines: Mapping[int, float], share: float = MEANING) -> list[tuple[int, float]]:
    """Add the scaled scores of candidates by words and by meaning; best first, of 1 for the best to 0 for the last.

    Args:
        words: BM25 of every candidate.
        cosines: Cosines of those that have a vector; the others count as the mean.
        share: What meaning counts, of 1.
    """
    by_words, by_meaning = _scaled(words), _scaled(cosines)
    sums = {key: (1 - share) * value + share * by_meaning.get(key, 0.0) for key, value in by_words.items()}
    last, first = min(sums.values(), default=0.0), max(sums.values(), default=0.0)
    scores = {key: (value - last) / (first - last) if first > last else 1.0 for key, value in sums.items()}
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))


def _scaled(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores of mean 0 and deviation 1; all 0 where they do not differ."""
    if not scores:
        return {}
    mean = math.fsum(scores.values()) / len(scores)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in scores.values()) / len(scores)) or 1.0
    return {key: (value - mean) / deviation for key, value in scores.items()}


def _hits(library: Library, ranking: Sequence[tuple[int, float]]) -> list[Hit]:
    passages = {passage.id: passage for passage in library.passages([passage_id for passage_id, _ in ranking])}
    # An index that another process is still writing may know passages that are gone.
    return [Hit(passages[passage_id], score) for passage_id, score in ranking if passage_id in passages]
