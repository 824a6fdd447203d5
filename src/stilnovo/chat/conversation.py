"""A conversation that fits its model: what was said, under a rule for what goes when room runs out, never silently.

The rule: the system prompt and the newest question always stay; when they and the history leave less than `reserve`
tokens for the answer, the oldest complete turns (a question with its answer) are dropped, one by one, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from stilnovo.chat.writing import Writer
from stilnovo.errors import InputError
from stilnovo.generate.sampling import Sampling
from stilnovo.text.template import Message

SYSTEM = "Sei un assistente che risponde in italiano, in modo chiaro, semplice ed esauriente."
RESERVE = 256


class Conversation:
    """Turns between a person and a model.

    Attributes:
        turns: Complete turns kept, oldest first, as (question, answer).
        dropped: How many complete turns have been dropped so far.
    """

    def __init__(self, writer: Writer, system: str = SYSTEM, reserve: int = RESERVE) -> None:
        self.writer, self.system, self.reserve = writer, system, reserve
        self.turns: list[tuple[str, str]] = []
        self.dropped = 0

    def messages(self, question: str) -> list[Message]:
        """What the model is given for `question`; drops turns where the rule says so.

        Raises:
            InputError: when even without history the question leaves no room to answer.
        """
        while True:
            messages = [Message("system", self.system)]
            for asked, answered in self.turns:
                messages += [Message("user", asked), Message("assistant", answered)]
            messages.append(Message("user", question))
            size = self.writer.count(messages)
            if size + self.reserve <= self.writer.context_tokens:
                return messages
            if not self.turns:
                raise InputError(
                    "The question is too long for the model.",
                    f"{size} tokens, and {self.reserve} for the answer; the model reads {self.writer.context_tokens}.",
                    "Shorten it.",
                )
            del self.turns[0]
            self.dropped += 1

    def say(self, question: str, sampling: Sampling) -> Iterator[str]:
        """The answer in pieces; the turn is kept once it is complete (an interrupted answer leaves no trace)."""
        pieces: list[str] = []
        for piece in self.writer.stream(self.messages(question), sampling):
            pieces.append(piece)
            yield piece
        self.turns.append((question, "".join(pieces)))

    def clear(self) -> None:
        """Begin anew."""
        self.turns, self.dropped = [], 0
