"""Understand first what a question is about: the library itself, an author, a work, a section; only the rest is searched for.

The order: questions about records are answered from them; a section that is asked for as a whole is told; a name that the library
lacks is said to be missing; everything else goes to the search, confined to the works and the sections that the question names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat import library_questions, readings
from stilnovo.chat.extracted import Extract
from stilnovo.chat.from_records import Inquiry
from stilnovo.chat.from_sections import no_such_section
from stilnovo.chat.mentions import Mention, Namer, Read, same_work
from stilnovo.chat.question import Question
from stilnovo.chat.scope import heading, scope, without_section
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library
from stilnovo.text.italian import content_words

#: Sections named when a question fits several.
NAMED = 12
#: An author's name confines the search where it says whose words are meant, not of whom they speak.
_BY_AUTHOR = re.compile(
    r"\b(?:romanz\w+|oper[ae]|libr[oi]|novell[ae]|poesi[ae]|raccont[oi]|vers[oi]|personagg\w+|protagonist\w+|capitol\w+|canto|[WTP])"
    r" (?:di|da) A\b"
    r"|\b(?:secondo|in|per) A\b|\bA (?:dice|scrive|descrive|racconta|chiama|paragona|definisce|parla|immagina|presenta)\b"
    r"|\b(?:dice|scrive|descrive|racconta|chiama|paragona|definisce|immagina|presenta) A\b"
)


@dataclass(frozen=True)
class Understood:
    """What a question is about.

    Attributes:
        answer: The whole answer, where the records or a section named give it.
        works: Those that the search is confined to; empty for all.
        sections: Those that it is confined to; empty for all.
        rest: The question without the words that only say where to look.
    """

    answer: Extract | None = None
    works: tuple[Work, ...] = ()
    sections: tuple[Chapter, ...] = ()
    rest: str = ""


def understood(text: str, library: Library, before: Work | None = None) -> Understood:
    """Read a question: see the module.

    Args:
        text: The question.
        library: Where to look.
        before: The work last spoken of; it decides between sections of the same name.
    """
    namer = Namer(library)
    read = namer.read(text)
    works = _confined(read, library)
    section_works = [before] if before and not works and _has(before, text, library) else works
    if (answer := library_questions.answered(text, namer)) is not None and not (
        answer.asks_back and before and not works
    ):
        return Understood(answer)
    confined = scope(Question(text), library, section_works, before)
    if confined is not None and len(confined.sections) > 1:
        names = list(dict.fromkeys(map(heading, confined.sections)))
        more = f" e altri {len(names) - NAMED}" if len(names) > NAMED else ""
        which = f"Di quale? La biblioteca ne ha più d'uno: {'; '.join(names[:NAMED])}{more}."
        return Understood(Extract(which, asks_back=True, final=True))
    if confined is not None and confined.whole:
        return Understood(readings.told(confined.sections[0], library))
    if confined is None and (answer := no_such_section(Inquiry(read, namer))) is not None:
        return Understood(answer)
    sections = confined.sections if confined else ()
    rest = without_section(_rest(read, works)) if sections else _rest(read, works)
    return Understood(None, tuple(works), sections, rest if content_words(rest) else text)


def _has(work: Work, text: str, library: Library) -> bool:
    return scope(Question(text), library, [work]) is not None


def _rest(read: Read, works: Sequence[Work]) -> str:
    """The question without the names of the works and authors that confine it."""
    return read.without(_confining(read)) if works else read.text


def _confining(read: Read) -> list[Mention]:
    by_author = bool(_BY_AUTHOR.search(read.masked)) or bool(read.works)
    return [m for m in read.mentions if m.kind == "W" or (m.kind == "A" and by_author)]


def _confined(read: Read, library: Library) -> list[Work]:
    """The works that a question names, copies included, or those of the author whose words it asks for."""
    if read.works:
        return [work for work in library.works() if any(same_work(work, named) for named in read.works)]
    if read.authors and _BY_AUTHOR.search(read.masked):
        return [work for work in library.works() if work.author in read.authors]
    return []


def same_again(message: str, before: str, library: Library) -> str | None:
    """Resolve *E di Verga?* after *Quali opere di Deledda ci sono?*: that question with the new name; None where it is no such message."""
    namer = Namer(library)
    mine, earlier = namer.read(message), namer.read(before)
    if len(mine.mentions) != 1 or not re.fullmatch(
        r"(?:e|ed|allora|invece|ma)? ?(?:quell\w+|cosa|che cosa|di|in|da|su|per|a|del|nel)* ?[AWTYP] ?\??", mine.masked
    ):
        return None
    new = mine.mentions[0]
    old = next((mention for mention in earlier.mentions if mention.kind == new.kind), None)
    return None if old is None else before[: old.start] + message[new.start : new.end] + before[old.end :]
