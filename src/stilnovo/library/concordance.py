"""Concordance: every place of a word or of a phrase, each in the middle of its line (keyword in context).

By default a word stands for its whole family as the search knows it: all forms with its stem, old spellings too (*core* with
*cuore*, *amori* with *amore*). Irregular verbs have several stems (*vado*, *andò*); name each. Every place counts: the index
only says which passages to read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stilnovo.errors import InputError
from stilnovo.library.records import Chapter, Passage, Work, citation
from stilnovo.library.store import Library
from stilnovo.text.italian import Word, fold, stem, tokens

Order = Literal["text", "left", "right", "word"]
#: Characters on each side.
WIDTH = 50


@dataclass(frozen=True)
class ConcordanceLine:
    """A place of the word: `text[start:end]` of its work, with what stands on each side on one line, cut between words."""

    section: Chapter
    start: int
    end: int
    before: str
    word: str
    after: str
    verses: str

    @property
    def citation(self) -> str:
        """Author, work, section and verse."""
        return citation(self.section, self.verses)

    def as_dict(self) -> dict[str, Any]:
        """The line as a JSON object."""
        work = self.section.work
        return {
            "before": self.before, "word": self.word, "after": self.after, "citation": self.citation, "author": work.author,
            "work": work.title, "section": self.section.label, "verses": self.verses, "sha256": work.sha256,
            "start": self.start, "end": self.end,
        }  # fmt: skip


def concordance(
    library: Library,
    query: str,
    works: Sequence[Work] = (),
    *,
    exact: bool = False,
    order: Order = "text",
    width: int = WIDTH,
) -> list[ConcordanceLine]:
    """Find every place of a word, or of several words in a row.

    Args:
        library: Where to look.
        query: One word or a phrase.
        works: Only these; empty for all.
        exact: Only these forms, accents and case aside, and not their families.
        order: As they stand in the works; by the words after, or before (the nearest first); or by the form.
        width: Characters on each side.

    Raises:
        InputError: the query has no word.
    """
    asked = [word.form for word in tokens(query)]
    if not asked:
        raise InputError(
            "A concordance needs a word.", f"Given: {query!r}", "Such as: stilnovo library concordance amore"
        )
    wanted = asked if exact else [stem(form) for form in asked]
    lines = [
        _line(library, passage, first, last, width)
        for passage in _passages(library, wanted, [work.id for work in works], exact)
        for first, last in _places(passage.text, wanted, exact)
    ]
    return sorted(lines, key=lambda line: _key(line, order)) if order != "text" else lines


def _key(line: ConcordanceLine, order: Order) -> list[str]:
    if order == "left":
        return [word.form for word in tokens(line.before)][::-1]
    return [word.form for word in tokens(line.after)] if order == "right" else [fold(line.word)]


def _passages(library: Library, wanted: Sequence[str], works: Sequence[int], exact: bool) -> Iterator[Passage]:
    """The passages that have all the words, in the order of the works and of their texts."""
    index, field = library.index, "surface" if exact else "stem"
    found = [
        {work: set(ids) for work, ids in index.mentions(form, "surface" if exact else "stem").items()}
        # An elided word has no stem in the index.
        for form in dict.fromkeys(wanted) if field == "surface" or index.occurs(form)
    ]  # fmt: skip
    for work in library.works():
        ids = set.intersection(*(places.get(work.id, set()) for places in found)) if found else set[int]()
        if ids and (not works or work.id in works):
            yield from sorted(library.passages(sorted(ids)), key=lambda passage: passage.start)


def _places(text: str, wanted: Sequence[str], exact: bool) -> Iterator[tuple[Word, Word]]:
    """First and last word of every place where the words stand in a row."""
    every = tokens(text)
    forms = [word.form if exact else stem(word.form) for word in every]
    for at in range(len(forms) - len(wanted) + 1):
        if forms[at : at + len(wanted)] == list(wanted):
            yield every[at], every[at + len(wanted) - 1]


def _line(library: Library, passage: Passage, first: Word, last: Word, width: int) -> ConcordanceLine:
    section, text = passage.section, library.text(passage.section.work)
    start, end = passage.start + first.start, passage.start + last.end
    before = " ".join(text[max(section.body, start - 3 * width) : start].split())
    after = " ".join(text[end : min(section.end, end + 3 * width)].split())
    # The blank beside the word is the text's: *l'amore* has none.
    left = before + " " * text[start - 1 : start].isspace()
    right = " " * text[end : end + 1].isspace() + after
    return ConcordanceLine(
        section, start, end, _cut(left[::-1], width)[::-1], " ".join(text[start:end].split()), _cut(right, width),
        section.verses(start, end),
    )  # fmt: skip


def _cut(text: str, width: int) -> str:
    """At most so many characters, whole words."""
    if len(text) <= width:
        return text
    cut = text[: width + 1].rfind(" ")
    return text[: cut if cut > 0 else width]


def aligned(lines: Sequence[ConcordanceLine], width: int = WIDTH) -> list[str]:
    """The lines with the word in one column, and the citation behind."""
    word = max((len(line.word) for line in lines), default=0)
    return [
        f"{line.before:>{width}}[{line.word}]{line.after:<{width + word - len(line.word)}}  {line.citation}"
        for line in lines
    ]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a heading; empty for none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
