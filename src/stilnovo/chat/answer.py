"""A question to an answer that quotes: found sentences by default, a model's own words where a writer is given.

Either way no quotation reaches the reader unchecked. Extractive answers are spans of the stored text by construction
and are verified all the same; a writer's quotations are looked up in the passage they cite, put right or marked, and
where none of them stands, the found sentence is added. When nothing relevant is found the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stilnovo.chat import writing
from stilnovo.chat.choose import RELEVANT, Choice, Chooser, named_works
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote, verify
from stilnovo.chat.thesaurus import kin
from stilnovo.chat.writing import Writer
from stilnovo.library import index
from stilnovo.library.records import Passage
from stilnovo.library.search import Hit, search, search_for
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, stem

NOTHING_FOUND = "Nella biblioteca non trovo nulla che risponda a questa domanda."
#: Passages whose sentences are weighed.
READ = 40


@dataclass(frozen=True)
class Answer:
    """An answer: its text, how it was made, the quotations in it as verified, the passages it rests on, best first."""

    question: str
    text: str
    kind: Literal["extractive", "written"]
    quotes: tuple[Quote, ...]
    passages: tuple[Passage, ...]

    @property
    def found(self) -> bool:
        """Whether the library had something to say."""
        return bool(self.passages)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        first = self.quotes[0] if self.quotes else None
        return {
            "question": self.question,
            "answer": self.text,
            "mode": self.kind,
            "found": self.found,
            "quote": first.text if first else None,
            "quote_verified": first is not None and first.status == "verified",
            "citation": first.citation if first else None,
            "citations": [quote.as_dict() for quote in self.quotes],
        }


def _candidates(
    question: Question, chooser: Chooser, library: Library, works: Sequence[int]
) -> list[tuple[Hit, float]]:
    """Passages to read, each with what its rank and its work are worth."""
    hits = search(library, question.text, READ, works)
    best = hits[0].score if hits else 1.0
    found = {hit.passage.id: (hit, 0.15 * hit.score / best) for hit in hits}
    forms = set(chooser.stems.values())
    related = forms.union(*(kin(chooser.stems[term]) for term in chooser.stems if term not in question.names))
    wider = "stem : (" + " OR ".join(f'"{form}"' for form in sorted(related)) + ")" if related else ""
    for hit in search_for(library, wider, READ // 2, works):
        found.setdefault(hit.passage.id, (hit, 0.0))
    # A name belongs to the work that speaks of it most, and is introduced where it first stands.
    names = [name for name in question.names if name in chooser.weights]
    if names:
        rarest = max(names, key=lambda name: chooser.weights[name])
        by_work = index.mentions(library.connection, rarest)
        by_work = {work: ids for work, ids in by_work.items() if not works or work in works}
        most = max((len(ids) for ids in by_work.values()), default=1)
        first = {ids[0]: work for work, ids in by_work.items()} if question.being else {}
        for passage in library.passages(list(first)):
            found.setdefault(passage.id, (Hit(passage, 0.0), 0.0))
        for number, (hit, bonus) in found.items():
            share = len(by_work.get(hit.passage.section.work.id, ())) / most
            found[number] = (hit, bonus + 0.2 * share + (0.15 * share if number in first else 0.0))
    return list(found.values())


def choose(question: Question, library: Library, limit: int = 3) -> list[Choice]:
    """The best quotations for a question, best first, at most one a passage; empty when nothing is relevant.

    Relevant is a passage that covers at least `RELEVANT` of the question's weight and has at least one of its names.
    """
    works = named_works(question, library)
    titles = frozenset(stem(form) for work in works for form in fold(work.title).replace("'", " ").split())
    chooser = Chooser(question, library, titles)
    best: list[Choice] = []
    for hit, bonus in _candidates(question, chooser, library, [work.id for work in works]):
        choices = chooser.choices(hit, bonus)
        if choices and choices[0].coverage >= RELEVANT and chooser.named(hit.passage):
            best.append(max(choices, key=lambda choice: choice.score))
    best.sort(key=lambda choice: (-choice.score, choice.passage.id))
    kept: list[Choice] = []
    for choice in best:
        if all(fold(choice.text) != fold(other.text) for other in kept):
            kept.append(choice)
    return kept[:limit]


def quoted(choice: Choice, library: Library) -> Quote:
    """A choice as a quotation, verified against the store; a fault here would be ours."""
    section = choice.passage.section
    quote = verify(choice.text, section, library.text(section.work))
    assert quote.status == "verified", f"a stored sentence is not in its section: {choice.text!r}"
    return quote


def sentence_for(quote: Quote) -> str:
    """*«…» (Autore, Opera, cap. I)*; an ellipsis shows where a sentence was entered midway."""
    midway = "… " if quote.shown[:1].islower() else ""
    return f"«{midway}{quote.shown.strip('«»')}» ({quote.citation})"


def ask(library: Library, question: str, writer: Writer | None = None, limit: int = 1) -> Answer:
    """Answer a question from the library.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        writer: A model that writes; None gives the extractive answer.
        limit: How many quotations an extractive answer has at most.
    """
    asked = Question(question.strip())
    chosen = choose(asked, library, max(limit, writing.GIVEN))
    if not chosen:
        return Answer(question, NOTHING_FOUND, "extractive", (), ())
    found = tuple(quoted(choice, library) for choice in chosen[:limit])
    passages = tuple(choice.passage for choice in chosen)
    extract = "\n".join(sentence_for(quote) for quote in found)
    if writer is None:
        return Answer(question, extract, "extractive", found, passages)
    text, quotes = writing.write(asked.text, passages, library, writer)
    if not any(quote.sound for quote in quotes):
        text, quotes = f"{text}\n\nDal testo: {extract}", (*found, *quotes)
    return Answer(question, text, "written", quotes, passages)
