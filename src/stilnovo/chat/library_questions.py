"""Questions about the library itself, answered from its records: authors, years, titles, numbers, headings, what is there.

A table of intents. Each is recognised by a pattern over the question with its names masked (`chat/mentions.py`), and only if
nothing else is asked: the words beside the pattern and the names must all be ones that a question about books is made of. So
*Quanti capitoli ha Malombra?* is one, *Quanti figli ha Marina in Malombra?* is not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from stilnovo.chat import from_records, from_sections, readings
from stilnovo.chat.extracted import Extract
from stilnovo.chat.from_records import NOT_HERE, Inquiry
from stilnovo.chat.intents import BOOK, FILLER, INTENTS, OPENER, Answerer, Intent
from stilnovo.chat.mentions import PARTICLES, Mention, Namer, Read
from stilnovo.library.catalogue import catalogue
from stilnovo.text.italian import STOP_WORDS, listed, stem, tokens, words

#: Of these the name may be one that the library lacks: what is then said not to be there, an author's works or a work.
_OF_AN_AUTHOR = frozenset([from_records.which_works, from_records.who_wrote])
_OF_A_WORK = frozenset([
    from_records.who_wrote, from_records.of_what_year, from_records.is_there, from_sections.how_many, from_sections.index_of,
    from_sections.beginning, from_sections.end, from_sections.reading, from_sections.content,
])  # fmt: skip
#: Those in which any capital begins a title; in the others a name may also be that of somebody in a book.
_OF_BOOKS_ONLY = frozenset([from_records.who_wrote, from_sections.how_many])
#: Of whom somebody asks this, that is an author.
_WORKS_OF = re.compile(rf"\b(?:{BOOK}|qualcosa|nulla|niente) (?:\w+ )?(?:di|da) A\b")
#: What only somebody who keeps books is asked.
_FOR_READERS = re.compile(r"(?:e )?(?:hai|avete|possied\w+|posso leggere|posso trovare|conosci)\b")
_TELLING = r"(?:dic\w+|scriv\w+|scriss\w+|scritto|pens\w+|racconta\w*|descriv\w+|parla\w*|dett[oa]|vede\w*|dipinge\w*|canta\w*)"
_PIECE = (
    r"(?:bran[oi]|pass[oi]|fras[ei]|citazion[ei]|vers[oi]|pagin[ae]|pezz[oi]|pensier[oi]|descrizion[ei]|battut[ae])"
)
#: Words that what somebody says may be about; more are a question of their own.
_TOPIC = 3
#: An author, or a work, as the one who speaks: *cosa dice A*, *un brano di W*, *A parla*, *secondo A*.
_SAYS = re.compile(
    rf"\b{_TELLING}(?: mai)? (?P<who>[AW])\b|\b(?P<by>[AW]) (?:ha )?{_TELLING}\b|\b{_PIECE}(?: \w+){{0,2}}? (?:di|da|in) (?P<of>[AW])\b"
    rf"|\b(?:secondo|per) (?P<sec>A)\b"
)
_ASKS_FOR = re.compile(
    rf"\b(?:{_TELLING}|{_PIECE}|sai|mi|dimmi|dammi|fammi|cerco|cercami|trovami|trova|mostrami|citami|cita|leggimi|leggere|vorrei|voglio|puoi"
    r"|proposito|riguardo|intorno|argomento|tema|qualche|bel|bella|famos[oa]|punto|luogo|dove|opere|opera|libri|libro|romanzi|romanzo)\b"
)


def _left(masked: str, intent: Intent) -> list[str]:
    """The words of a question that neither the intent, nor a name, nor talk of books accounts for."""
    # *XII L'infinito*: the number of a poem that is named belongs to its name.
    masked = re.sub(r"\b(?:[ivxlcdm]+|\d+) T\b", "T", masked)
    rest = re.findall(r"[a-z0-9]+", intent.pattern.sub(" ", OPENER.sub(" ", masked)))
    known = FILLER | intent.own
    return [
        word
        for word in rest
        if word not in STOP_WORDS and stem(word) not in known and not (len(word) == 1 and word.isalpha())
    ]


def _fits(read: Read, intent: Intent) -> bool:
    kinds = {mention.kind for mention in read.mentions}
    needed = bool(kinds & set(intent.needs)) or ("-" in intent.needs and not kinds & set("AWTPS"))
    return needed and bool(intent.pattern.search(read.masked)) and not _left(read.masked, intent)


def answered(text: str, namer: Namer) -> Extract | None:
    """Answer a question about the library from its records; None when it asks for something else.

    Names are first taken as they are surely meant, then as they may be; and if none is one that the library has, a name that it lacks
    is said to be missing.
    """
    for unsure, lines in ((False, False), (False, True), (True, True)):
        asked = Inquiry(namer.read(text, unsure, lines), namer)
        for intent in INTENTS:
            if _fits(asked.read, intent) and (answer := intent.answer(asked)) is not None:
                return answer
        if (answer := said_by(asked)) is not None:
            return answer
    return absent(text, namer)


def said_by(asked: Inquiry) -> Extract | None:
    """What an author or a work says of something: *Cosa dice Leopardi della luna?*, *Un brano dei Malavoglia sulla tempesta*."""
    read, match = asked.read, _SAYS.search(asked.read.masked)
    who = [mention for mention in read.mentions if mention.kind in "AW"]
    if (
        match is None
        or len({m.kind for m in who}) != 1
        or read.of("S")
        or any(m.kind == "W" and not m.sure for m in who)
    ):
        return None
    works = asked.by_author() if read.authors else asked.works()
    topic = _topic(read, match)
    if not works or not 0 < len(topic) <= _TOPIC or (read.works and not match["of"]):
        return None
    whose = from_records.joined(read.authors or [f"«{work.title}»" for work in works])
    return readings.said(topic, works, asked.library, whose)


def _topic(read: Read, match: re.Match[str]) -> list[str]:
    rest = _ASKS_FOR.sub(" ", f"{read.masked[: match.start()]} {read.masked[match.end() :]}")
    return [word for word in dict.fromkeys(re.findall(r"[a-z]{2,}", rest)) if word not in STOP_WORDS]


# Names that the library lacks


def absent(text: str, namer: Namer) -> Extract | None:
    """Say that an author or a work is not there, where a question about the library names one that it lacks."""
    known = namer.read(text).mentions
    for unknown in _unknown(text, namer):
        name = text[unknown.start : unknown.end].strip(' «»“”"?.!,')
        others = [m for m in known if m.end <= unknown.start or unknown.end <= m.start]
        as_author, as_work = (_with(text, others, unknown._replace(kind=kind)) for kind in ("A", "W"))
        intent = _first(as_author, _OF_AN_AUTHOR)
        if intent is not None and intent.answer is from_records.who_wrote:
            return from_records.who_wrote(Inquiry(as_author, namer, name))
        says = _SAYS.search(as_author.masked)
        wanted = intent is not None or (says is not None and 0 < len(_topic(as_author, says)) <= _TOPIC)
        alone = not any(m.kind in "AW" for m in others)
        if wanted and alone and _is_person(name) and (_WORKS_OF.search(as_author.masked) or _is_author(name, namer)):
            return Extract(NOT_HERE.format(f"nulla di {name}"), final=True)
        intent = _first(as_work, _OF_A_WORK)
        if intent is not None and (
            intent.answer in _OF_BOOKS_ONLY or _FOR_READERS.match(as_work.masked) or _is_title(text, unknown, namer)
        ):
            return Extract(NOT_HERE.format(_untitled(name)), final=True)
    return None


def _with(text: str, others: Iterable[Mention], one: Mention) -> Read:
    return Read(text, tuple(sorted([*others, one], key=lambda mention: mention.start)))


def _first(read: Read, answers: Collection[Answerer]) -> Intent | None:
    return next((intent for intent in INTENTS if intent.answer in answers and _fits(read, intent)), None)


def _unknown(text: str, namer: Namer) -> Iterator[Mention]:
    """Words with a capital, or in quotation marks, that name nothing of the library: the shortest first, then to the question's end."""
    known = namer.read(text).mentions
    for quoted in re.finditer(r"«[^»]+»|“[^”]+”|\"[^\"]+\"", text):
        if not any(m.start < quoted.end() and quoted.start() < m.end for m in known):
            yield Mention("U", quoted.start(), quoted.end())
    every = tokens(text)
    starts = [
        i
        for i, t in enumerate(every)
        if i and text[t.start].isupper() and not any(m.start <= t.start < m.end for m in known)
    ]
    for at in starts:
        for last in range(at, len(every)):
            if any(m.start < every[last].end and every[at].start < m.end for m in known):
                break
            if not (every[last].form in STOP_WORDS or every[last].elided):
                yield Mention("U", every[at].start, every[last].end)
        return


def _is_person(name: str) -> bool:
    """Whether a name can be a person's: every word of it has a capital, but *di*, *de*, *della* and their like."""
    return (
        all(name[t.start].isupper() or (t.form in PARTICLES and t.start) for t in tokens(name))
        and len(words(name)) <= 4
    )


def _is_title(text: str, mention: Mention, namer: Namer) -> bool:
    """Whether a name is a title: in quotation marks, with an article of its own, or not a word of the library's books."""
    named = text[mention.start : mention.end]
    first = tokens(named)[0]
    article = first.form in listed("il lo la l i gli le un uno una") and len(words(named)) > (0 if first.elided else 1)
    return named[0] in '«“"' or article or not namer.library.index.mentions(first.form)


def _untitled(name: str) -> str:
    """*un'opera intitolata «L'infinito»*: without the author that may stand behind a title."""
    title, _, author = name.rpartition(" di ")
    of_author = bool(title) and words(author)[-1:] and words(author)[-1] in _surnames()
    return f"un'opera intitolata «{title}» di {author}" if of_author else f"un'opera intitolata «{name}»"


def _surnames() -> set[str]:
    return {words(entry.author)[-1] for entry in catalogue()}


def _is_author(name: str, namer: Namer) -> bool:
    """Whether a name that the library has no work of is an author's: of the catalogue, or of nobody in the library's books."""
    form = words(name)[-1]
    spoken_of = sum(map(len, namer.library.index.mentions(form).values()))
    return spoken_of == 0 or (form in _surnames() and spoken_of < _SPOKEN_OF)


#: A name that stands in this many passages is that of somebody in the books.
_SPOKEN_OF = 40
