"""A conversation over several turns, kept within what the model can read by a rule that is told, never silently.

The rule: the instructions and the newest message always stay; when they, the history and the passages leave less than
`reserve` tokens for the answer, the oldest complete turns are dropped, one by one, and counted. Passages of the library
stand only in the message that asks; earlier turns keep their words. What does not fit even alone is refused.

A follow-up question is made self-contained before the library is searched. The rule: a message leans on the question
before it when it has no name of its own and is short, opens with *e*, *ma*, *allora*, or points back with a pronoun;
then the names of that question (its words, when it had no names) are added to the search, and only to the search.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.chat import writing
from stilnovo.chat.answer import FROM_THE_TEXT, Answer, ask
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import Writer
from stilnovo.errors import InputError
from stilnovo.library.records import Passage
from stilnovo.library.store import Library
from stilnovo.text.italian import tokens
from stilnovo.text.template import Message

if TYPE_CHECKING:
    from stilnovo.generate.sampling import Sampling

SYSTEM = "Sei un assistente che risponde in italiano, in modo chiaro, semplice ed esauriente."
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


class Turn(NamedTuple):
    """A message, its answer, and the quotations in it."""

    user: str
    assistant: str
    quotes: tuple[Quote, ...] = ()


class Reply:
    """An answer as it is written: iterate for its pieces; afterwards `turn` is the checked result.

    `dropped` is how many turns the model no longer reads from now on; `searched` is what the library was asked, None
    when it was not. A reply that is broken off or closed leaves the conversation as it was.
    """

    def __init__(self, pieces: Generator[str, None, Turn], searched: str | None) -> None:
        self.searched, self.dropped = searched, 0
        self.turn: Turn | None = None
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as done:
            self.turn = self.turn or done.value
            raise StopIteration from None

    def close(self) -> None:
        """Stop the answer; nothing of it is kept."""
        self._pieces.close()


class Conversation:
    """Turns between a person and a model, over a library, or both.

    Without a writer the library answers by itself (extractive); without a library the model talks.

    Attributes:
        turns: Complete turns kept, oldest first.
        dropped: How many complete turns have been dropped so far.
    """

    def __init__(
        self,
        writer: Writer | None = None,
        system: str = SYSTEM,
        reserve: int | None = None,
        library: Library | None = None,
    ) -> None:
        """`reserve`: tokens kept free for an answer; None for as many as the sampling asks."""
        if writer is None and library is None:
            raise InputError("A conversation needs a model, a library, or both.")
        self.writer, self.system, self.reserve, self.library = writer, system, reserve, library
        self.turns: list[Turn] = []
        self.dropped = 0
        self._asked: str | None = None

    def clear(self) -> None:
        """Begin anew."""
        self.turns, self.dropped, self._asked = [], 0, None

    def say(self, message: str, sampling: Sampling | None = None) -> Reply:
        """Say something; the answer is written while the reply is iterated, and the turn kept once it is complete.

        Raises:
            InputError: the message alone leaves the model no room to answer.
        """
        searched, answer = None, None
        if self.library is not None:
            searched = self_contained(message, self._asked)
            answer = ask(self.library, searched)
            asking = _ASKING.search(Question(message).folded)
            if self.writer is None or (asking and not answer.found):
                return Reply(self._told(message, searched, answer), searched)
        sampling = sampling or writing.default_sampling()
        passages = answer.passages if answer else ()
        messages, given, dropped = self._fitted(message, passages, self.reserve or sampling.max_new_tokens)
        reply = Reply(self._written(message, searched, answer, (messages, given, dropped), sampling), searched)
        reply.dropped = dropped
        return reply

    def _told(self, message: str, searched: str, answer: Answer) -> Generator[str, None, Turn]:
        yield answer.text
        return self._keep(Turn(message, answer.text, answer.quotes), searched, 0)

    def _written(
        self,
        message: str,
        searched: str | None,
        answer: Answer | None,
        fitted: tuple[list[Message], tuple[Passage, ...], int],
        sampling: Sampling,
    ) -> Generator[str, None, Turn]:
        messages, given, dropped = fitted
        assert self.writer is not None
        written: list[str] = []
        for piece in self.writer.stream(messages, sampling):
            written.append(piece)
            yield piece
        text = "".join(written)
        quotes: tuple[Quote, ...] = ()
        if self.library is not None and answer is not None and answer.found:
            text, quotes = writing.checked(text, given, self.library)
            if not any(quote.sound for quote in quotes):
                text, quotes = text + FROM_THE_TEXT + answer.text, (*answer.quotes, *quotes)
                yield FROM_THE_TEXT + answer.text
        return self._keep(Turn(message, text, quotes), searched, dropped)

    def _keep(self, turn: Turn, searched: str | None, dropped: int) -> Turn:
        del self.turns[:dropped]
        self.dropped += dropped
        self.turns.append(turn)
        self._asked = searched or self._asked
        return turn

    def _fitted(
        self, message: str, passages: tuple[Passage, ...], reserve: int
    ) -> tuple[list[Message], tuple[Passage, ...], int]:
        """What the model reads, the passages in it, and how many of the oldest turns gave way."""
        assert self.writer is not None
        system = f"{self.system}\n\n{writing.INSTRUCTIONS}" if passages else self.system
        for dropped in range(len(self.turns) + 1):
            history = [(turn.user, turn.assistant) for turn in self.turns[dropped:]]
            alone = dropped == len(self.turns)
            try:
                messages, given = writing.fitted(system, history, message, passages, self.writer, reserve)
            except InputError:
                if alone:
                    raise
                continue
            if alone or len(given) == min(len(passages), writing.GIVEN):
                return messages, tuple(given), dropped
        raise AssertionError("the last round returns or raises")
