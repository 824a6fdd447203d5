"""What a model is given to read, and what gives way when it does not fit: oldest turns first, then the last passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat.writing import AnswerWriter, prompt
from stilnovo.errors import InputError
from stilnovo.library.records import Passage
from stilnovo.text.template import Message


@dataclass(frozen=True)
class Fitted:
    """The messages, the passages in them, and how many of the oldest turns gave way."""

    messages: list[Message]
    passages: Sequence[Passage]
    dropped: int


def fitted(
    system: str,
    history: Sequence[tuple[str, str]],
    message: str,
    passages: Sequence[Passage],
    writer: AnswerWriter,
    new_tokens: int,
) -> Fitted:
    """Fit a conversation into a writer's context.

    Args:
        system: Instructions; they stay.
        history: Earlier turns, (user, assistant), oldest first.
        message: The new message; it stays.
        passages: Given with the message, in order of worth; at least one stays.
        writer: Who reads.
        new_tokens: Kept free for the answer.

    Raises:
        InputError: when it does not fit even without history and with one passage.
    """

    def built(dropped: int, kept: int) -> list[Message]:
        past = [
            part for user, said in history[dropped:] for part in (Message("user", user), Message("assistant", said))
        ]
        return [Message("system", system), *past, Message("user", prompt(message, passages[:kept]))]

    def fits(dropped: int, kept: int) -> bool:
        return writer.count(built(dropped, kept)) + new_tokens <= writer.context_tokens

    every, least = len(passages), min(1, len(passages))
    for dropped in range(len(history) + 1):
        if fits(dropped, every):
            return Fitted(built(dropped, every), passages, dropped)
    dropped = len(history)
    if not fits(dropped, least):
        raise InputError(
            "The message is too long for the model.",
            f"{writer.count(built(dropped, least))} tokens, and {new_tokens} for the answer; "
            f"the model reads {writer.context_tokens}.",
            "Shorten it, or use a model with a longer context.",
        )
    low, high = least, every  # the most passages that fit, by halving: a chapter has hundreds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(dropped, middle) else (low, middle)
    return Fitted(built(dropped, low), passages[:low], dropped)
