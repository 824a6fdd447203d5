"""Check stored works: text unchanged, sections tile it, passages are exact spans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from stilnovo.library.records import Chapter, Passage, Work


def problems(work: Work, text: str, parts: Iterable[tuple[Chapter, Sequence[Passage]]]) -> Iterator[str]:
    """Problems of one work, given its stored text and its sections in order, each with its passages."""
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != work.sha256:
        yield "the stored text has changed since it was added."
    position = 0
    for section, passages in parts:
        if section.start != position:
            yield f"text between {position} and {section.start} is in no section, or in two."
        position = section.end
        for passage in passages:
            inside = section.body <= passage.start < passage.end <= section.end
            if not inside or passage.text != text[passage.start : passage.end]:
                yield f"passage {passage.id} is not its span {passage.start}-{passage.end}."
    if position != len(text):
        yield f"text from {position} on is in no section."
