"""The paragraphs of a Word document as they are read: their pieces, the gaps between them, titles that only look so.

White space in Word is a habit, so blank paragraphs part stanzas from each other, and lines in the middle of the page in
bold part chapters where no paragraph has the style of a heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from stilnovo.reading.text_builder import ApparatusKind

#: A longer line is no verse.
_LONGEST_VERSE = 64


class WordPiece(NamedTuple):
    """Words of a paragraph: the author's where `kind` is empty."""

    kind: ApparatusKind | None
    text: str


@dataclass
class WordBlock:
    """A paragraph. `kind`: what it is as a whole; `initial`: a letter that opens the next one; `gap` stands before it."""

    pieces: list[WordPiece]
    kind: ApparatusKind | None = None
    level: int | None = None
    initial: bool = False
    gap: str = "\n\n"
    number: str = ""
    looks: tuple[bool, int] | None = None

    @property
    def words(self) -> str:
        """Its words, without what stands apart in it."""
        words = "".join(piece.text for piece in self.pieces if not piece.kind)
        return words if words.strip() else ""

    @property
    def plain(self) -> bool:
        """Whether it is running text."""
        return bool(self.words) and self.kind is None and self.level is None and not self.initial


def tidied(pieces: Sequence[WordPiece]) -> list[WordPiece]:
    """Join pieces of one kind that follow each other, and take out white space that says nothing."""
    joined: list[list[str]] = []
    kinds: list[ApparatusKind | None] = []
    for kind, text in pieces:
        if kinds and kinds[-1] == kind and kind != "note":
            joined[-1].append(text)
        else:
            kinds.append(kind)
            joined.append([text])
    tidy: list[WordPiece] = []
    open_ended = True  # nothing, or white space, stands before
    for kind, texts in zip(kinds, joined, strict=True):
        text = re.sub(r" ?\n ?", "\n", re.sub(r"[ \t]+", " ", "".join(texts).replace("\u00ad", "")))
        if kind:
            text = text.strip()
        else:
            text = text.lstrip(" \n") if open_ended else text
            open_ended = text[-1:] in ("", " ", "\n") and (open_ended or text != "")
        if text:
            tidy.append(WordPiece(kind, text))
    for i in range(len(tidy) - 1, -1, -1):
        if not tidy[i].kind:
            tidy[i] = WordPiece(None, tidy[i].text.rstrip(" \n"))
            if tidy[i].text:
                break
    return [piece for piece in tidy if piece.text]


def _verse(group: Sequence[WordBlock]) -> bool:
    """Whether paragraphs between blank ones are lines of a stanza."""
    lines = [line for block in group for line in block.words.split("\n")]
    return len(group) > 1 and max(map(len, lines)) <= _LONGEST_VERSE


def with_gaps(blocks: Sequence[WordBlock]) -> Iterator[WordBlock]:
    """Give paragraphs the gaps before them: a line's end inside a stanza, nothing after an initial."""
    separated = any(not block.pieces for block in blocks)
    before: WordBlock | None = None
    for plain, run in groupby(blocks, key=lambda block: block.plain):
        group = list(run)
        for block in group[1:] if plain and separated and _verse(group) else ():
            block.gap = "\n"
        if plain and before is not None and before.initial:
            group[0].gap = ""
        before = next((block for block in reversed(group) if block.words), before)
        yield from (block for block in group if block.pieces)


def mark_titles(blocks: Sequence[WordBlock]) -> None:
    """Make headings of the lines that look like titles, in a document in which no paragraph has the style of one.

    Text follows each of them; they are at least two, alike, and no more than a third of the paragraphs.
    """
    shown = [block for block in blocks if block.words]
    if any(block.level for block in shown):
        return
    titles = [
        block
        for block, after in pairwise(shown)
        if block.looks and not block.kind and after.looks is None and after.plain
    ]
    alike = {look: [block for block in titles if block.looks == look] for look in {block.looks for block in titles}}
    titles = [block for group in alike.values() if len(group) > 1 for block in group]
    if not titles or len(titles) * 3 > len(shown) + 2:
        return
    sizes = sorted({block.looks[1] for block in titles if block.looks}, reverse=True)
    for block in titles:
        block.level = 1 + min(2, sizes.index(block.looks[1])) if block.looks else None
