"""A question to an answer that quotes: one turn of a conversation, gathered up.

Either way no quotation reaches the reader unchecked. Extractive answers are spans of the stored text by construction
and are verified all the same; a writer's quotations are looked up in the passage they cite, put right or marked, and
where none of them stands, the found sentence is added. When nothing relevant is found the answer says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from stilnovo.chat.conversation import ChatSession
from stilnovo.chat.events import Done, Kind, Mode, Notice
from stilnovo.chat.extract import NEAREST, NOTHING_FOUND
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import SYSTEM, AnswerWriter
from stilnovo.library.records import Passage
from stilnovo.library.store import Library

__all__ = ["NEAREST", "NOTHING_FOUND", "Answer", "ask"]


@dataclass(frozen=True)
class Answer:
    """An answer: its text, how it was made, the quotations in it as verified, the passages it rests on, best first.

    `sure` is whether the sentence found answers by the stated rule (`Chooser.sure`) or is only the nearest one. That a
    quotation is *verified* says that it stands in the source, not that it answers. `notices` are what else must be known.
    """

    question: str
    text: str
    kind: Kind
    quotes: tuple[Quote, ...]
    passages: tuple[Passage, ...]
    sure: bool = False
    mode: Mode = "library"
    notices: tuple[Notice, ...] = ()
    complete: bool = True

    @property
    def found(self) -> bool:
        """Whether the library had something to say."""
        return any(quote.sound for quote in self.quotes)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        first = next((quote for quote in self.quotes if quote.sound), None) or next(iter(self.quotes), None)
        return {
            "question": self.question,
            "answer": self.text,
            "mode": self.kind,
            "sources": self.mode,
            "found": self.found,
            "sure": self.sure,
            "complete": self.complete,
            "quote": first.text if first else None,
            "quote_verified": first is not None and first.status == "verified",
            "citation": first.citation if first else None,
            "citations": [quote.as_dict() for quote in self.quotes],
            "notices": [{"code": notice.code, "text": notice.text} for notice in self.notices],
        }


def ask(
    library: Library,
    question: str,
    writer: AnswerWriter | None = None,
    limit: int = 1,
    mode: Mode = "library",
    system: str = SYSTEM,
) -> Answer:
    """Answer a question from the library.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        writer: A model that writes; None gives the extractive answer.
        limit: How many quotations an extractive answer has at most.
        mode: Where the answer may come from.
        system: The system prompt.
    """
    events = list(ChatSession(writer, system, library=library, limit=limit).reply(question, mode))
    done = events[-1]
    assert isinstance(done, Done)
    notices = tuple(event for event in events if isinstance(event, Notice))
    complete = done.finish in ("stop", "length")
    return Answer(question, done.text, done.kind, done.quotes, done.passages, done.sure, done.mode, notices, complete)
