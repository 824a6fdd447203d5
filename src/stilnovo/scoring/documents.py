"""Held-out text as documents that a comparison can pair.

A bootstrap over documents needs documents: a corpus in one text file would be a single one, about which nothing could
be said. Where a source holds few, each is cut at line breaks into pieces of some thousand characters, and every piece
starts anew. Nothing is dropped but the line break at a cut.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from stilnovo.benchmarks.task import how_many
from stilnovo.data.sources import read_documents, training_text

ENOUGH_DOCUMENTS = 30
PIECE_CHARACTERS = 2000
SEED = 42


def held_out_texts(paths: Sequence[str | Path], limit: int | float | None = None, seed: int = SEED) -> list[str]:
    """The documents of the files, as they would be trained on; `limit` of them drawn at random, in their order.

    A limit below 1 is a share of them.

    Raises:
        InputError: a file is missing, empty or unreadable, or the limit makes no sense.
    """
    texts = [training_text(document) for document in read_documents(paths)]
    if len(texts) < ENOUGH_DOCUMENTS:
        texts = [piece for text in texts for piece in pieces(text)]
    count = how_many(limit, len(texts))
    if count is None or count >= len(texts):
        return texts
    return [texts[index] for index in sorted(random.Random(seed).sample(range(len(texts)), count))]


def pieces(text: str, characters: int = PIECE_CHARACTERS) -> list[str]:
    """`text` cut at line breaks into pieces of at least `characters`; a shorter rest joins the last piece."""
    cut: list[list[str]] = [[]]
    for line in text.split("\n"):
        if sum(map(len, cut[-1])) >= characters:
            cut.append([])
        cut[-1].append(line)
    if len(cut) > 1 and sum(map(len, cut[-1])) < characters:
        cut[-2:] = [cut[-2] + cut[-1]]
    joined = ["\n".join(lines) for lines in cut]
    return [piece for piece in joined if piece.strip()]
