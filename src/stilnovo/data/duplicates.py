"""Near-duplicate documents: of those that say almost the same, the first is learnt.

MinHash signatures (Broder 1997; rensa computes them) of runs of three words estimate the Jaccard similarity of two
documents; banding (Leskovec et al., Mining of Massive Datasets, ch. 3) finds the pairs worth comparing. Signatures lie on
disk and are read a file at a time; memory holds one band's hashes and one index, some 40 bytes a document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

PERMUTATIONS, BANDS = 128, 16  # 8 rows a band: a pair of similarity 0.8 is found with 95 %, one of 0.5 with 6 %
SHINGLE = 3
_SEED = 42
_WINDOW = 8  # how many earlier documents of the same band are compared with one

Signatures = npt.NDArray[np.uint32]


def signatures(texts: Sequence[str]) -> Signatures:
    """MinHash signatures (n, 128) of texts; a text shorter than a shingle is one shingle."""
    from rensa import RMinHash

    digests = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for at, text in enumerate(texts):
        words = text.lower().split()
        pairs = [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]
        sketch = RMinHash(PERMUTATIONS, _SEED)
        sketch.update(pairs)
        digests[at] = sketch.digest()
    return digests


def near_duplicates(files: Sequence[Path], threshold: float) -> npt.NDArray[np.int64]:
    """(pairs, 2): each document to remove and the earlier one that it repeats, as indices over all files.

    Args:
        files: `.npy` files of signatures, in the order of the corpus.
        threshold: Estimated Jaccard similarity from which two documents are the same.
    """
    starts = np.cumsum([0, *(len(np.load(path, mmap_mode="r")) for path in files)])
    load = lru_cache(16)(np.load)

    def signature(document: int) -> Signatures:
        file = int(np.searchsorted(starts, document, side="right")) - 1
        return load(files[file])[document - starts[file]]  # type: ignore[no-any-return]

    repeats = np.full(starts[-1], -1, dtype=np.int64)  # the earlier document that each repeats
    for band in np.split(np.arange(PERMUTATIONS), BANDS):
        keys = np.concatenate([np.empty(0, np.uint64), *(_mixed(np.load(path)[:, band]) for path in files)])
        order = np.argsort(keys, kind="stable")
        same = np.concatenate([[False], keys[order[1:]] == keys[order[:-1]], [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8))).tolist()  # first and last of each run of equal keys
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            _compare(order[first : last + 1], signature, threshold, repeats)
    removed = np.flatnonzero(repeats >= 0)
    return np.stack([removed, repeats[removed]], axis=1)


def _mixed(rows: Signatures) -> npt.NDArray[np.uint64]:
    """Combine one band of each document's signature into a 64-bit hash."""
    value = np.full(len(rows), 0xCBF29CE484222325, dtype=np.uint64)
    for column in rows.T.astype(np.uint64):
        value = (value ^ column) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return value


def _compare(
    group: npt.NDArray[np.int64], signature: Callable[[int], Signatures], threshold: float, repeats: npt.NDArray[np.int64]
) -> None:  # fmt: skip
    distinct: list[tuple[int, Signatures]] = []
    for index in group[repeats[group] < 0].tolist():
        own = signature(index)
        for earlier, other in distinct[-_WINDOW:]:
            if np.count_nonzero(own == other) >= threshold * PERMUTATIONS:
                repeats[index] = earlier
                break
        else:
            distinct.append((index, own))
