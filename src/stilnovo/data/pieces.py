"""Where documents are cut so that each piece fits a pack.

A text is cut anywhere. A conversation, of which the answers alone have a loss, is cut at its turns: each piece begins with a
question and holds as many whole exchanges as fit; of an exchange that is longer by itself, the question loses its beginning.
A piece without any loss token is left out: a step on it would learn nothing.

Unusual: it knows turns by their loss alone, so that it cuts tokens of a prepared corpus as well. The system turn stays with
the first piece; where the messages themselves are at hand, `stilnovo.train.corpus.supervised_all` repeats it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stilnovo.data.packing import IntArray, Pieces


def at_turns(pieces: Pieces, documents: Sequence[IntArray], conversations: Iterable[int], pack_tokens: int) -> Pieces:
    """The pieces with those of some documents, of which not all tokens have a loss, cut at turns and idle ones left out."""
    anew: dict[int, list[tuple[int, int]]] = {}
    split = shortened = idle = 0
    for at in conversations:
        document = documents[at]
        if len(document) - 1 <= pack_tokens:
            if not (document[1:] >= 0).any():
                anew[at], idle = [], idle + (len(document) > 1)
            continue
        exchanges = list(_exchanges(document))
        anew[at], cut_short = _pieces(exchanges, pack_tokens)
        split, shortened = split + (len(exchanges) > 1), shortened + cut_short
        idle += not exchanges
    if not anew:
        return pieces
    kept = ~np.isin(pieces.document, list(anew))
    added = np.array([(at, *piece) for at, found in anew.items() for piece in found], dtype=np.int64).reshape(-1, 3)
    document = np.concatenate([pieces.document[kept], added[:, 0].astype(np.int32)])
    start = np.concatenate([pieces.start[kept], added[:, 1]])
    length = np.concatenate([pieces.length[kept], added[:, 2].astype(np.int32)])
    order = np.lexsort((start, document))
    return Pieces(document[order], start[order], length[order], split, shortened, idle)


def without_idle(pieces: Pieces, documents: Sequence[IntArray], conversations: Iterable[int]) -> Pieces:
    """The pieces without those of some documents that hold no loss token; each document has one piece at most."""
    lengths = dict(zip(pieces.document.tolist(), pieces.length.tolist(), strict=True))
    idle = [at for at in conversations if at in lengths and not (documents[at][1 : lengths[at] + 1] >= 0).any()]
    kept = ~np.isin(pieces.document, idle)
    return Pieces(pieces.document[kept], pieces.start[kept], pieces.length[kept], idle=len(idle))


def shortened_to(answer: int, end: int, pack_tokens: int) -> int:
    """Where an exchange of `end` tokens that is longer than a pack begins instead of at 0, with its answer at `answer`.

    The question keeps what the answer leaves of a pack, half of one at least; a longer answer is then cut like a text.
    """
    return max(0, min(end - pack_tokens - 1, answer - pack_tokens // 2))


def _exchanges(document: IntArray) -> Iterator[tuple[int, int, int]]:
    """Begin of each question, begin of its answer, and end of that; what follows the last answer is left out."""
    learnt = np.concatenate([[False], document >= 0, [False]]).astype(np.int8)
    borders = np.diff(learnt)
    begin = 0
    for answer, end in zip(np.flatnonzero(borders == 1).tolist(), np.flatnonzero(borders == -1).tolist(), strict=True):
        if end > 1:  # a document's first token is never predicted
            yield begin, answer, end
            begin = end


def _pieces(exchanges: Sequence[tuple[int, int, int]], pack_tokens: int) -> tuple[list[tuple[int, int]], int]:
    """Start and length of pieces of whole exchanges, and the number of questions that lost their beginning."""
    pieces, shortened, is_open = list[tuple[int, int]](), 0, False
    for begin, answer, end in exchanges:
        if is_open and end - pieces[-1][0] - 1 <= pack_tokens:
            pieces[-1] = pieces[-1][0], end - pieces[-1][0] - 1
            continue
        is_open = end - begin - 1 <= pack_tokens
        if is_open:
            pieces.append((begin, end - begin - 1))
            continue
        start = begin + shortened_to(answer - begin, end - begin, pack_tokens)
        shortened += start > begin
        borders = itertools.pairwise([*range(start, end - 1, pack_tokens), end - 1])
        pieces += [(left, right - left) for left, right in borders]
    return pieces, shortened
