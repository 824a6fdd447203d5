"""Decontamination: passages of a corpus that contain a benchmark's items are found by n-grams of words and removed.

A model that has read a question with its answer is not measured by it any more. Each text of a benchmark's files (question,
options, passages) is cut to words, folded to lower case without punctuation. A passage (paragraph) of the corpus is
removed when it shares `NGRAM` words in a row with an item (13 as in Brown et al. 2020, appendix C), or holds the whole of a
shorter question of at least `SHORTEST` words. Other short texts (an option, a name) cannot be told from ordinary phrases:
they are counted, not searched.

Hashes are 64-bit polynomial ones over Python's string hashes, computed for all places of a text at once; a hit is
confirmed word by word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stilnovo.io.rows import iter_rows
from stilnovo.io.streams import suffix_of

NGRAM, SHORTEST = 13, 8
_WORD = re.compile(r"[^\W_]+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴
_INVERSE = pow(_BASE, -1, 1 << 64)
_BITS = 1 << 24

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class BenchmarkOverlap:
    """A removed passage: the item it contains, and the shared words."""

    item: str
    words: str
    passage: str


class ItemIndex:
    """The n-grams of all items of some benchmark files: 16 bytes each, and the items' texts.

    Attributes:
        items, too_short: Texts of the files, and how many of them are too short to be searched for.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.items = self.too_short = 0
        self._texts: list[tuple[str, str]] = []  # (item, text), searched again only to confirm a hit
        grams: dict[int, list[tuple[Hashes, int]]] = {}
        for path in files:
            for item, text in _texts(path):
                self.items += 1
                cut = words(text)
                if len(cut) < (SHORTEST if "?" in text else NGRAM):
                    self.too_short += 1
                    continue
                size = min(NGRAM, len(cut))
                grams.setdefault(size, []).append((_rolling(_word_hashes(cut), size), len(self._texts)))
                self._texts.append((item, text))
        self._grams = {size: _sorted(grams[size]) for size in sorted(grams)}
        # One bit a size: for almost every place of a text one lookup tells that no item is there.
        self._seen = np.zeros(_BITS, dtype=np.uint8)
        for size, (hashes, _) in self._grams.items():
            self._seen[hashes & np.uint64(_BITS - 1)] |= np.uint8(1 << (size - SHORTEST))

    def find(self, passage: str) -> BenchmarkOverlap | None:
        """The first item that a passage contains."""
        text = words(passage) if self._grams else []
        if len(text) < SHORTEST:
            return None
        hashes = _word_hashes(text)
        for size, (known, owners) in self._grams.items():
            rolled = _rolling(hashes, size) if len(text) >= size else hashes[:0]
            at = np.flatnonzero(self._seen[rolled & np.uint64(_BITS - 1)] & np.uint8(1 << (size - SHORTEST)))
            place = np.minimum(np.searchsorted(known, rolled[at]), len(known) - 1)
            equal = known[place] == rolled[at]
            for word, owner in zip(at[equal].tolist(), owners[place[equal]].tolist(), strict=True):
                item, whole = self._texts[owner]
                shared = " ".join(text[word : word + size])
                if f" {shared} " in f" {' '.join(words(whole))} ":
                    return BenchmarkOverlap(item, shared, passage[:200])
        return None

    def clean(self, text: str) -> tuple[str, list[BenchmarkOverlap]]:
        """A text without the passages that contain an item."""
        # The whole text is searched first: almost every text is clean.
        if self.find(text) is None:
            return text, []
        searched = [(passage, self.find(passage)) for passage in text.split("\n")]
        hits = [hit for _, hit in searched if hit is not None]
        rest = "\n".join(passage for passage, hit in searched if hit is None)
        across = self.find(rest)  # an item that runs across paragraphs: the whole text goes
        return (rest, hits) if across is None else ("", [*hits, across])


def _sorted(grams: list[tuple[Hashes, int]]) -> tuple[Hashes, npt.NDArray[np.int32]]:
    hashes = np.concatenate([rolled for rolled, _ in grams])
    owners = np.repeat(np.array([owner for _, owner in grams], np.int32), [len(rolled) for rolled, _ in grams])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], owners[order]


def words(text: str) -> list[str]:
    """Split a text into lower-case runs of letters and digits."""
    return _WORD.findall(text.lower())


def _word_hashes(text: list[str]) -> Hashes:
    return np.fromiter(map(hash, text), np.int64, len(text)).view(np.uint64)


def _rolling(hashes: Hashes, size: int) -> Hashes:
    """Rolling hash of every n-gram: h(i) = Σ_k w(i+k) bᵏ mod 2⁶⁴, by prefix sums: (P(i+size) − P(i)) b⁻ⁱ."""
    count = len(hashes)
    powers, inverses = _power_table(max(1 << 14, 1 << count.bit_length()))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers[:count], dtype=np.uint64)])
    rolled: Hashes = (sums[size:] - sums[:-size]) * inverses[: count - size + 1]
    return rolled


@lru_cache
def _power_table(size: int) -> list[Hashes]:
    steps = (np.full(size, base, dtype=np.uint64) for base in (_BASE, _INVERSE))
    return [np.cumprod(np.concatenate([np.ones(1, np.uint64), step[1:]]), dtype=np.uint64) for step in steps]


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    rows = iter_rows(path)
    if suffix_of(path) == ".txt":  # an item a line
        rows = ({"text": line} for row in rows for line in row["text"].split("\n") if line.strip())
    for at, row in enumerate(rows, 1):
        item = row.get("id", row.get("ID", at))
        for text in _leaves(row):
            yield f"{path.parent.name}/{path.name}:{item}", text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _leaves(child)
