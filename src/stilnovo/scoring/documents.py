"""Split held-out text into documents that a comparison can pair.

A bootstrap over documents needs documents: a corpus in one text file would be a single one, about which nothing could
be said. Where a source holds few, each is cut at line breaks into pieces of some thousand characters, and every piece
starts anew. Nothing is dropped but the line break at a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stilnovo.benchmarks.task import Draw
from stilnovo.data.sources import read_documents, training_text
from stilnovo.scoring.encode import filled

ENOUGH_DOCUMENTS = 30
PIECE_CHARACTERS = 2000


def held_out_texts(paths: Sequence[str | Path], draw: Draw = Draw()) -> list[str]:  # noqa: B008 - frozen
    """Read and sample the documents of the files, formatted as in training.

    Raises:
        InputError: a file is missing, empty or unreadable, or the limit makes no sense.
    """
    texts = [training_text(document) for document in read_documents(paths)]
    if len(texts) < ENOUGH_DOCUMENTS:
        texts = [piece for text in texts for piece in pieces(text)]
    return draw.sample(texts)


def pieces(text: str, characters: int = PIECE_CHARACTERS) -> list[str]:
    """Cut `text` at line breaks into pieces of at least `characters`; a shorter rest joins the last piece."""
    cut = list(filled(text.split("\n"), lambda lines, _: sum(map(len, lines)) < characters))
    if len(cut) > 1 and sum(map(len, cut[-1])) < characters:
        cut[-2:] = [cut[-2] + cut[-1]]
    joined = ["\n".join(lines) for lines in cut]
    return [piece for piece in joined if piece.strip()]
