"""Places of the library shown because they were asked for: how a work or a section begins and ends, what it is about, what an author says.

Everything quoted stands in the works that the question names, and in no others. Nothing here claims to answer: a beginning is a
beginning, and a passage on the moon is one that speaks of the moon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stilnovo.chat.extracted import Extract, quoted
from stilnovo.chat.scope import heading
from stilnovo.chat.units import central, units
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.text.italian import stem, words

#: Characters quoted of a beginning or an end, and of a section that is read out.
EDGE, READ_OUT = 260, 1800
#: Passages looked at for what an author says, those quoted, and the share of the words asked about that they must have.
LOOKED_AT, SAID, SPOKEN = 60, 3, 0.5
#: Words of a sentence from which on it is not too short to be quoted by itself.
FULL = 12
#: Headings named of a work.
HEADINGS = 40
_OPENINGS = re.compile(r"introduzione|prefazione|prologo|proemio|preambolo|dedica|al lettore|avvertenza", re.I)
_CLOSING = re.compile(r"\W*(?:fine|finis|explicit|the end)\b.{0,40}|\W*", re.I | re.S)


def told_name(section: Chapter) -> str:
    """A section as it is named in an answer: *«Malombra», Capitolo I*."""
    return ", ".join(part for part in (f"«{section.work.title}»", section.label) if part)


def body_of(work: Work, library: Library) -> list[Chapter]:
    """The sections of a work without what stands before the first one that has a name."""
    sections = library.sections(work)
    return [section for section in sections if section.label] or sections


def begins(places: Sequence[Chapter], library: Library) -> Extract:
    """How sections begin; where the first is an introduction, the next one too."""
    spans = [span for section in places if (span := _edge(section, library, last=False))]
    return _shown("Comincia così:" if len(places) == 1 else "Cominciano così:", places, spans, library)


def ends(places: Sequence[Chapter], library: Library) -> Extract:
    """How sections end."""
    spans = [span for section in places if (span := _edge(section, library, last=True))]
    return _shown("Finisce così:" if len(places) == 1 else "Finiscono così:", places, spans, library)


def _shown(says: str, places: Sequence[Chapter], spans: Sequence[tuple[Chapter, str]], library: Library) -> Extract:
    text, quotes = quoted(f"{says}\n", spans, library)
    works = tuple(dict.fromkeys(section.work for section in places))
    return Extract(text, quotes, records=works, final=True)


def first_sections(work: Work, library: Library) -> list[Chapter]:
    """Where a work begins: its first section, and the first chapter after an introduction."""
    sections = body_of(work, library)
    count = 2 if _OPENINGS.match(sections[0].label) and len(sections) > 1 else 1
    return sections[:count]


def _edge(section: Chapter, library: Library, last: bool) -> tuple[Chapter, str] | None:
    """The first or the last sentences of a section, as many as fit, in one passage."""
    passages = library.passages_of(section)
    for passage in reversed(passages) if last else passages:
        spans = [span for span in units(passage) if not _CLOSING.fullmatch(passage.text[slice(*span)])]
        if not spans:
            continue
        if last:
            inside = [start for start, _ in spans if spans[-1][1] - start <= EDGE] or [spans[-1][0]]
            return section, passage.text[inside[0] : spans[-1][1]]
        inside = [end for _, end in spans if end - spans[0][0] <= EDGE] or [spans[0][1]]
        return section, passage.text[spans[0][0] : inside[-1]]
    return None


def read_out(section: Chapter, library: Library) -> Extract:
    """A section's own words from its beginning, whole where it is short."""
    passages, spans, length = library.passages_of(section), list[tuple[Chapter, str]](), 0
    for passage in passages:
        if spans and length + len(passage.text) > READ_OUT:
            break
        spans.append((section, passage.text.strip()))
        length += len(passage.text)
    rest = len(passages) - len(spans)
    text, quotes = quoted(f"{told_name(section)}{', dal principio' if rest else ''}:\n", spans, library)
    more = f"\n(Continua: {'resta un altro brano' if rest == 1 else f'restano altri {rest} brani'}.)" if rest else ""
    return Extract(text + more, quotes, tuple(passages[: len(spans)]), records=(section.work,), final=True)


def told(section: Chapter, library: Library) -> Extract:
    """The course of a section in its most central sentences."""
    passages = library.passages_of(section)
    chosen = [(section, passage.text[start:end]) for passage, start, end in central(passages)]
    if not chosen:
        return Extract(f"{heading(section)} non ha un testo.", records=(section.work,))
    opening = f"{heading(section)}, nelle sue frasi più centrali, nell'ordine del testo:\n"
    text, quotes = quoted(opening, chosen, library)
    return Extract(text, quotes, tuple(passages), True, section)


def about(work: Work, library: Library) -> Extract:
    """What the records tell of a whole work: how it begins, and its sections. What it is about only a model can tell."""
    sections = body_of(work, library)
    spans = [span for section in first_sections(work, library) if (span := _edge(section, library, last=False))]
    text, quotes = quoted(
        f"Le schede non dicono di che cosa parli «{work.title}», e senza un modello non so riassumere un'opera intera. Comincia così:\n",
        spans, library,
    )  # fmt: skip
    named = [
        ", ".join(part for part in (section.label, section.title) if part) for section in sections if section.label
    ]
    if named:
        more = f"; e altre {len(named) - HEADINGS}" if len(named) > HEADINGS else ""
        text += f"\nLe sue sezioni: {'; '.join(named[:HEADINGS])}{more}."
    openings = [passage for section in sections for passage in library.passages_of(section)[:1]]
    return Extract(text, quotes, tuple(openings), records=(work,))


def said(topic: Sequence[str], works: Sequence[Work], library: Library, whose: str) -> Extract:
    """Sentences of some works that speak of something.

    Args:
        topic: The words asked about.
        works: Where to look; nowhere else is looked.
        library: Their library.
        whose: How the answer calls them: *Grazia Deledda*, *«Malombra»*.
    """
    stems = {stem(word) for word in topic}
    rarity = library.index.rarity(stems)
    weight = sum(rarity.values()) or 1.0

    def share(text: str) -> float:
        return sum(rarity[form] for form in stems & {stem(word) for word in words(text)}) / weight

    found: list[tuple[float, int, Passage, str]] = []
    for rank, hit in enumerate(search(library, " ".join(topic), LOOKED_AT, [work.id for work in works])):
        passage = hit.passage
        inside = share(passage.text)
        best = max(
            units(passage), key=lambda span: (share(passage.text[slice(*span)]), span[0] - span[1]), default=None
        )
        if best is not None and inside >= SPOKEN and (own := share(passage.text[slice(*best)])) > 0:
            length = min(1.0, len(words(passage.text[slice(*best)])) / FULL)  # a cry says less than a sentence
            found.append((own + inside / 2 + length / 2, -rank, passage, passage.text[slice(*best)]))
    chosen = sorted(found, key=lambda item: (item[0], item[1]), reverse=True)[:SAID]
    asked = " ".join(topic)
    if not chosen:
        return Extract(f"Nelle opere di {whose} che la biblioteca ha non trovo nulla su «{asked}»." if "«" not in whose
                       else f"In {whose} non trovo nulla su «{asked}».", final=True)  # fmt: skip
    text, quotes = quoted(
        f"{whose}, dove parla di «{asked}»:\n", [(p.section, span) for *_, p, span in chosen], library
    )
    return Extract(text, quotes, tuple(passage for *_, passage, _ in chosen))
