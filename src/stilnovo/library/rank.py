"""Exact nearest-neighbour search and reciprocal rank fusion.

Exact search over 100,000 vectors of 384 numbers is one product of 25 ms, so nothing approximate is kept. Lists are
fused by reciprocal rank (Cormack, Clarke and Buettcher 2009, k = 60), as a cosine and a BM25 score have no common measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stilnovo.errors import StilnovoError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

RRF_K = 60


def nearest(matrix: Matrix, ids: NDArray[np.int64], query: Matrix, limit: int) -> list[tuple[int, float]]:
    """Ids and cosine similarities of the rows nearest to a query (exact; ties by id).

    Args:
        matrix: Unit vectors, (n, d).
        ids: Their ids, (n,).
        query: A unit vector, (d,).
        limit: How many.

    Raises:
        StilnovoError: the query has other dimensions than the rows.
    """
    import numpy as np

    if not len(matrix):
        return []
    if matrix.shape[1] != query.shape[0]:
        raise StilnovoError(
            "The embedding model has changed.", f"{matrix.shape[1]} numbers are stored, it gives {query.shape[0]}.",
            "Make the vectors anew: stilnovo library embed --again",
        )  # fmt: skip
    scores = matrix @ query
    best = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    order = best[np.lexsort((ids[best], -scores[best]))]
    return [(int(ids[i]), float(scores[i])) for i in order]


def fused(lists: Iterable[Sequence[int]], limit: int) -> list[tuple[int, float]]:
    """Fuse ranked lists of ids by reciprocal rank: the sum over the lists of 1 / (60 + rank), ranks from 1."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, passage in enumerate(ranked, start=1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:limit]
