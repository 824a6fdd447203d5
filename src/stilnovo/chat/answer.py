"""A question to an answer that quotes: found sentences by default, a model's own words where a writer is given.

Either way no quotation reaches the reader unchecked. Extractive answers are spans of the stored text by construction
and are verified all the same; a writer's quotations are looked up in the passage they cite, put right or marked, and
where none of them stands, the found sentence is added. When nothing relevant is found the answer says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stilnovo.chat import writing
from stilnovo.chat.candidates import unknown_names
from stilnovo.chat.choose import Choice, choose
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote, verify
from stilnovo.chat.writing import Writer
from stilnovo.library.records import Passage
from stilnovo.library.store import Library

NOTHING_FOUND = "Nella biblioteca non trovo nulla che risponda a questa domanda."
FROM_THE_TEXT = "\n\nDal testo: "
NEAREST = "Non trovo una risposta sicura; il passo più vicino è questo: "


@dataclass(frozen=True)
class Answer:
    """An answer: its text, how it was made, the quotations in it as verified, the passages it rests on, best first.

    `sure` is whether the sentence found answers by the stated rule (`Chooser.sure`) or is only the nearest one. That a
    quotation is *verified* says that it stands in the source, not that it answers.
    """

    question: str
    text: str
    kind: Literal["extractive", "written"]
    quotes: tuple[Quote, ...]
    passages: tuple[Passage, ...]
    sure: bool = False

    @property
    def found(self) -> bool:
        """Whether the library had something to say."""
        return bool(self.passages)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        first = next((quote for quote in self.quotes if quote.sound), None) or next(iter(self.quotes), None)
        return {
            "question": self.question,
            "answer": self.text,
            "mode": self.kind,
            "found": self.found,
            "sure": self.sure,
            "quote": first.text if first else None,
            "quote_verified": first is not None and first.status == "verified",
            "citation": first.citation if first else None,
            "citations": [quote.as_dict() for quote in self.quotes],
        }


def quoted(choice: Choice, library: Library) -> Quote:
    """A choice as a quotation, verified against the store; a fault here would be ours."""
    section = choice.passage.section
    quote = verify(choice.text, section, library.text(section.work))
    assert quote.status == "verified", f"a stored sentence is not in its section: {choice.text!r}"
    return quote


def sentence_for(quote: Quote) -> str:
    """*«…» (Autore, Opera, cap. I)*; an ellipsis shows where a sentence was entered midway."""
    midway = "… " if quote.shown[:1].islower() else ""
    left, right = "“”" if set("«»") & set(quote.shown) else "«»"
    return f"{left}{midway}{quote.shown}{right} ({quote.citation})"


def ask(library: Library, question: str, writer: Writer | None = None, limit: int = 1) -> Answer:
    """Answer a question from the library.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        writer: A model that writes; None gives the extractive answer.
        limit: How many quotations an extractive answer has at most.
    """
    asked = Question(question.strip())
    if unknown := unknown_names(asked, library):
        names = " né ".join(f"«{name}»" for name in unknown)
        return Answer(question, f"{NOTHING_FOUND} Non vi compare {names}.", "extractive", (), ())
    chosen = choose(asked, library, max(limit, writing.GIVEN))
    if not chosen:
        return Answer(question, NOTHING_FOUND, "extractive", (), ())
    found = tuple(quoted(choice, library) for choice in chosen[:limit])
    passages = tuple(choice.passage for choice in chosen)
    extract = "\n".join(sentence_for(quote) for quote in found)
    extract = extract if chosen[0].sure else NEAREST + extract
    if writer is None:
        return Answer(question, extract, "extractive", found, passages, chosen[0].sure)
    messages, given = writing.fitted(writing.INSTRUCTIONS, [], asked.text, passages, writer)
    text, quotes = writing.checked("".join(writer.stream(messages, writing.default_sampling())), given, library)
    if not any(quote.sound for quote in quotes):
        text, quotes = text + FROM_THE_TEXT + extract, (*found, *quotes)
    return Answer(question, text, "written", quotes, passages, chosen[0].sure)
