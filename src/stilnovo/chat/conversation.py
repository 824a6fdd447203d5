"""A conversation over several turns, kept within what the model can read by a rule that is told, never silently.

The rule: the model reads the instructions, then as many whole turns as fit, the latest ones, then the new message. The
oldest whole turn is left out first, and the reply says how many were. Passages of the library stand only in the turn
that asks; earlier turns keep their words. What does not fit even alone is refused.

A follow-up question is made self-contained before the library is searched. The rule: a message leans on the question
before it when it has no name of its own and is short, opens with *e*, *ma*, *allora*, or points back with a pronoun;
then the names of that question (its words, when it had no names) are added to the search, and only to the search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stilnovo.chat import writing
from stilnovo.chat.answer import FROM_THE_TEXT, Answer, ask
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import Writer
from stilnovo.errors import InputError
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.text.italian import tokens

if TYPE_CHECKING:
    from stilnovo.generate.sampling import Sampling

SYSTEM = "Sei un assistente cortese e preciso. Rispondi sempre in italiano corretto, in modo chiaro e breve."
#: A message with at most this many content words and no name leans on the question before.
SHORT = 2
_LEANING = re.compile(
    r"^(?:e|ed|ma|allora|poi|invece)\b|\b(?:lui|lei|egli|ella|esso|essa|essi|esse|loro|costui|costei|quest[oa]|quell[oa]"
    r"|su[oaei]|suoi|sue|gli|ne)\b"
)
_ASKING = re.compile(r"\?|^(?:chi|che|cosa|dove|quando|come|perche|qual|quale|quali|quant[oiae])\b")


def self_contained(message: str, before: str | None) -> str:
    """The message as it is searched for: with the names, or else the words, of the question it leans on."""
    if before is None:
        return message
    question, earlier = Question(message), Question(before)
    leans = len(question.terms) <= SHORT or _LEANING.search(question.folded)
    if question.names or not leans:
        return message
    wanted = set(earlier.names or earlier.terms) - set(question.terms)
    added = dict.fromkeys(before[t.start : t.end] for t in tokens(before) if t.form in wanted)
    return f"{message} ({' '.join(added)})" if added else message


@dataclass(frozen=True)
class Turn:
    """A message, its answer, and the quotations in it."""

    user: str
    assistant: str
    quotes: tuple[Quote, ...] = ()


@dataclass
class Reply:
    """An answer as it is written: iterate for its pieces; afterwards `turn` is the checked result.

    `dropped` is how many of the oldest turns the model no longer reads from now on; `searched` is what the library was
    asked, None when it was not. A reply that is broken off leaves the conversation as it was.
    """

    pieces: Iterator[str]
    dropped: int = 0
    searched: str | None = None
    passages: tuple[Passage, ...] = ()
    turn: Turn | None = None

    def __iter__(self) -> Iterator[str]:
        return self.pieces


@dataclass
class Conversation:
    """A conversation with a model, over a library, or both.

    Without a writer the library answers by itself (extractive); without a library the model talks.
    """

    writer: Writer | None = None
    library: Library | None = None
    system: str = SYSTEM
    sampling: Sampling | None = None
    turns: list[Turn] = field(default_factory=list)
    first_read: int = 0
    _asked: str | None = None

    def __post_init__(self) -> None:
        if self.writer is None and self.library is None:
            raise InputError("A conversation needs a model, a library, or both.")

    def clear(self) -> None:
        """Begin anew."""
        self.turns, self.first_read, self._asked = [], 0, None

    def say(self, message: str) -> Reply:
        """Say something. The answer is written while the reply is iterated.

        Raises:
            InputError: the message alone does not fit the model's context.
        """
        message = message.strip()
        if self.library is None:
            return self._talk(message, Reply(iter(())))
        searched = self_contained(message, self._asked)
        answer = ask(self.library, searched)
        reply = Reply(iter(()), searched=searched, passages=answer.passages)
        if self.writer is None or (not answer.found and _ASKING.search(Question(message).folded)):
            reply.pieces = self._told(reply, Turn(message, answer.text, answer.quotes))
            return reply
        return self._talk(message, reply, answer)

    def _told(self, reply: Reply, turn: Turn) -> Iterator[str]:
        yield turn.assistant
        self._keep(reply, turn)

    def _keep(self, reply: Reply, turn: Turn) -> None:
        reply.turn = turn
        self.turns.append(turn)
        self.first_read += reply.dropped
        self._asked = reply.searched or self._asked

    def _talk(self, message: str, reply: Reply, answer: Answer | None = None) -> Reply:
        """Let the model answer, with passages if the reply has any; the oldest turns give way first."""
        assert self.writer is not None
        sampling = self.sampling or writing.default_sampling()
        system = f"{self.system}\n\n{writing.INSTRUCTIONS}" if reply.passages else self.system
        for first in range(self.first_read, len(self.turns) + 1):
            history = [(turn.user, turn.assistant) for turn in self.turns[first:]]
            alone = first == len(self.turns)
            try:
                messages, given = writing.fitted(
                    system, history, message, reply.passages, self.writer, sampling.max_new_tokens
                )
            except InputError:
                if alone:
                    raise
                continue
            if alone or len(given) == min(len(reply.passages), writing.GIVEN):
                break
        reply.dropped = first - self.first_read
        reply.passages = tuple(given)
        reply.pieces = self._written(message, reply, answer, self.writer.stream(messages, sampling))
        return reply

    def _written(self, message: str, reply: Reply, answer: Answer | None, stream: Iterator[str]) -> Iterator[str]:
        written: list[str] = []
        for piece in stream:
            written.append(piece)
            yield piece
        text = "".join(written).strip()
        quotes: tuple[Quote, ...] = ()
        if self.library is not None and answer is not None and answer.found:
            text, quotes = writing.checked(text, reply.passages, self.library)
            if not any(quote.sound for quote in quotes):
                text, quotes = text + FROM_THE_TEXT + answer.text, (*answer.quotes, *quotes)
                yield FROM_THE_TEXT + answer.text
        self._keep(reply, Turn(message, text, quotes))
