"""Answers about the sections of works: how many, their titles, how they begin and end; and the sections that a question means."""

from __future__ import annotations

import re
from collections import Counter

from stilnovo.chat import readings
from stilnovo.chat.extracted import Extract
from stilnovo.chat.from_records import Inquiry, from_records, grouped, in_words, joined, of_one_work, titled, which
from stilnovo.chat.mentions import same_work
from stilnovo.chat.scope import named_section, numbered
from stilnovo.library.records import Chapter, Work
from stilnovo.reading import numerals
from stilnovo.reading.headings import KINDS
from stilnovo.text.italian import fold, listed, stem

#: A word for the parts of a book, in a masked question.
PART = (
    r"(?:capitol[oi]|cant[oi]|part[ei]|libr[oi]|att[oi]|scen[ae]|novell[ae]|raccont[oi]|poesi[ae]|sonett[oi]|letter[ae]|sezion[ei]"
    r"|giornat[ae]|canzon[ei]|cantic(?:a|he)|version?|paragraf[oi]|lirich?[ae])"
)
_FEMININE = listed("parte canzone ode notte sezione ottava")


def _kind_of(part: str) -> str:
    first, _, number = part.partition(" ")
    numbered_so = numerals.value(number.upper()) is not None
    return fold(first) if numbered_so and fold(first) in KINDS else ""


def plural(kind: str) -> str:
    """*capitoli*, *scene*, *parti*."""
    return kind[:-1] + {"a": "e", "o": "i", "e": "i"}.get(kind[-1], kind[-1])


def _counted(kind: str, count: int) -> str:
    feminine = kind.endswith("a") or kind in _FEMININE
    return (
        f"{count} {kind if count == 1 else plural(kind)}"
        if count > 10 or count == 1
        else in_words(count, kind, plural(kind), feminine)
    )


def how_many(asked: Inquiry) -> Extract | None:
    """How many chapters, cantos or parts a work has."""

    return of_one_work(asked, lambda work: from_records(f"{_divided(asked, work)}.", [work]))


def _divided(asked: Inquiry, work: Work) -> str:
    """How a work, or the part of it that is named, is divided: *«Piccolo mondo antico» ha 21 capitoli, in tre parti*."""
    sections = [section for section in readings.body_of(work, asked.library) if section.label != "INDICE"]
    within = {fold(asked.read.text[m.start : m.end]) for m in asked.read.of("P")}
    if (named := named_section(asked.read.text)) and (named.number or 0) > 0:
        within.add(f"{named.kind} {numerals.roman(named.number or 1).lower()}")
    inside = [s for s in sections if within & {fold(part) for part in s.label.split(", ")[:-1]}]
    name = f"«{work.title}»" + (f", {inside[0].label.rpartition(', ')[0]}," if inside else "")
    labels = list(dict.fromkeys(section.label for section in inside or sections))
    outer = list(dict.fromkeys(label.split(", ")[0] for label in labels if ", " in label))
    numbered_parts = [part for part in outer if _kind_of(part)]
    if numbered_parts and len(numbered_parts) < len(outer):  # a glossary, an appendix
        labels = [label for label in labels if ", " not in label or label.split(", ")[0] in numbered_parts]
    inner = Counter(_kind_of(label.split(", ")[-1]) for label in labels)
    kind = max((k for k in inner if k), key=inner.__getitem__, default="")
    wanted = re.search(rf"\bquant[ieoa] (?P<kind>{PART})", asked.read.masked)
    if len(labels) < 2:
        return f"{name} non è divisa in sezioni"
    if wanted and numbered_parts and stem(_kind_of(numbered_parts[0])) == stem(wanted["kind"]) and not inside:
        return f"{name} ha {_counted(_kind_of(numbered_parts[0]), len(numbered_parts))}"
    if not kind or inner[kind] * 2 < len(labels):
        tops = list(dict.fromkeys(label.split(", ")[0] for label in labels))
        if all(section.verse for section in inside or sections):
            return f"{name} ha {in_words(len(tops), 'componimento', 'componimenti', feminine=False)}"
        return f"{name} ha {in_words(len(tops), 'sezione con un suo nome', 'sezioni con un loro nome')}"
    where = (
        f", in {_counted(_kind_of(numbered_parts[0]), len(numbered_parts))}"
        if len(numbered_parts) > 1 and not inside
        else ""
    )
    others = [label for label in labels if not _kind_of(label.split(", ")[-1])]
    beside = f", e inoltre: {joined(others)}" if 0 < len(others) <= 4 else ""
    return f"{name} ha {_counted(kind, inner[kind])}{where}{beside}"


def index_of(asked: Inquiry) -> Extract | None:
    """The sections of a work with their titles."""

    def told(work: Work) -> Extract:
        names = [", ".join(filter(None, (s.label, s.title))) for s in readings.body_of(work, asked.library) if s.label]
        return from_records(
            f"«{work.title}»: {'; '.join(names)}." if names else f"«{work.title}» non è divisa in sezioni.", [work]
        )

    return of_one_work(asked, told)


def sections_meant(asked: Inquiry) -> list[Chapter]:
    """The sections that the question names by number or by a name of their own, in the works that it names, or in all.

    Of copies of one work the first that has the section counts.
    """
    named = named_section(asked.read.text)
    meant = asked.namer.sections(asked.read)
    if named is not None:
        works = list(asked.read.works) or asked.works() or asked.by_author()
        meant = [section for work in works for section in numbered(named, asked.library.sections(work))]
    return [
        section
        for i, section in enumerate(meant)
        if not any(same_work(section.work, other.work) and section.label == other.label for other in meant[:i])
    ]


def title_of(asked: Inquiry) -> Extract | None:
    """The title of a section that is named by its number."""

    meant = sections_meant(asked)
    if not meant or not asked.read.of("S"):
        return None
    works = list(dict.fromkeys(section.work for section in meant))
    if len(works) > 1:
        return which([titled(work) for work in works[:12]])
    said = [f"{readings.told_name(s)}: {f'si intitola «{s.title}»' if s.title else 'non ha un titolo'}" for s in meant]
    return from_records("; ".join(said) + ".", works)


def where_is(asked: Inquiry) -> Extract | None:
    """In which work, and at which number, a section of this title is."""

    meant = asked.namer.sections(asked.read)
    if not meant:
        return None
    said = [f"«{s.title or s.label}» è in {titled(s.work)}{f', {s.label}' if s.title else ''}" for s in meant]
    return from_records("; ".join(said) + ".", list(dict.fromkeys(section.work for section in meant)))


def extreme_section(asked: Inquiry) -> Extract | None:
    """The longest or shortest section of a work."""

    def told(work: Work) -> Extract:
        sections = readings.body_of(work, asked.library)
        longest = re.search(r"piu (lung|grand)", asked.read.masked)
        chosen = (max if longest else min)(sections, key=lambda section: section.end - section.body)
        return from_records(
            f"È {readings.told_name(chosen)}, con {grouped(chosen.end - chosen.body)} caratteri.", [work]
        )

    return of_one_work(asked, told)


def no_such_section(asked: Inquiry) -> Extract | None:
    """Say that a work has no section of this number; None where the question names neither or the work has it."""
    works, named = asked.works(), asked.read.of("S")
    if len(works) != 1 or not named or sections_meant(asked):
        return None
    what = ", ".join(asked.read.text[mention.start : mention.end] for mention in named)
    return from_records(f"In «{works[0].title}» non c'è: {what}. {_divided(asked, works[0])}.", works)


def places(asked: Inquiry, last: bool) -> list[Chapter] | Extract | None:
    """The section whose beginning or end is asked for: the one named, or that of the work or the part named; or a question back."""
    meant = sections_meant(asked) if asked.read.of("S") or asked.read.of("T") else []
    works = asked.works()
    if not meant and not works:
        return None
    if not meant and asked.read.of("S"):
        return no_such_section(asked)
    if not meant:
        if len(works) > 1:
            return which([titled(work) for work in works])
        if parts := {fold(asked.read.text[m.start : m.end]) for m in asked.read.of("P")}:
            inside = [s for s in asked.library.sections(works[0]) if parts & {fold(p) for p in s.label.split(", ")}]
            if inside:
                return [inside[-1 if last else 0]]
        return (
            readings.body_of(works[0], asked.library)[-1:] if last else readings.first_sections(works[0], asked.library)
        )
    named = named_section(asked.read.text)
    first = named is not None and named.number == 1 and len({section.work for section in meant}) == 1
    return meant[:1] if first or len(meant) == 1 else which([readings.told_name(section) for section in meant[:12]])


def beginning(asked: Inquiry) -> Extract | None:
    """How a work or a section begins."""
    found = places(asked, last=False)
    return readings.begins(found, asked.library) if isinstance(found, list) else found


def end(asked: Inquiry) -> Extract | None:
    """How a work or a section ends."""
    found = places(asked, last=True)
    return readings.ends(found, asked.library) if isinstance(found, list) else found


def reading(asked: Inquiry) -> Extract | None:
    """A section read out, a work from its beginning."""
    found = places(asked, last=False)
    return readings.read_out(found[-1], asked.library) if isinstance(found, list) else found


def content(asked: Inquiry) -> Extract | None:
    """What the records tell of a work as a whole; a section that is called by its own name is told."""
    if asked.read.of("S") or asked.read.of("P"):
        return None
    if asked.read.of("T"):
        found = places(asked, last=False)
        return readings.told(found[0], asked.library) if isinstance(found, list) else found
    return of_one_work(asked, lambda work: readings.about(work, asked.library))
