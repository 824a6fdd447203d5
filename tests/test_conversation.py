"""The rule by which a conversation fits its model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from stilnovo.chat.conversation import ChatSession
from stilnovo.chat.events import Answer, Event, Notice, TextToken
from stilnovo.errors import InputError, StilnovoError
from stilnovo.generate.sampling import Sampling
from stilnovo.text.template import Message


class Echo:
    """A writer that counts words and repeats the question."""

    context_tokens = 40

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        self.given = list(messages)
        try:
            yield from ("eco ", messages[-1].content)
        finally:
            self.closed = True


def text(events: Iterator[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextToken))


def test_oldest_turns_go_first_and_it_is_told() -> None:
    writer = Echo()
    talk = ChatSession(writer, system="breve", reserve=10)
    told = 0
    for number in range(6):
        events = list(talk.reply(f"domanda numero {number}", sampling=Sampling()))
        assert text(iter(events)) == f"eco domanda numero {number}"
        told += sum(event.count for event in events if isinstance(event, Notice) and event.code == "history")
        messages = writer.given
        assert messages[0].content == "breve"
        assert messages[-1].content == f"domanda numero {number}"
        assert writer.count(messages) + 10 <= 40
        assert [m.role for m in messages[1:]] == ["user", "assistant"] * (len(messages) // 2 - 1) + ["user"]
    assert talk.dropped == told > 0
    assert talk.dropped + len(talk.turns) == 6
    assert talk.turns[-1][0] == "domanda numero 5"
    talk.clear()
    assert (talk.turns, talk.dropped) == ([], 0)


def test_a_question_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        list(ChatSession(Echo(), reserve=10).reply("parola " * 40, sampling=Sampling()))
    with pytest.raises(InputError, match="empty"):
        list(ChatSession(Echo()).reply("  "))


def test_an_interrupted_answer_is_not_kept() -> None:
    talk = ChatSession(Echo(), reserve=10)
    answer = talk.reply("domanda", sampling=Sampling())
    next(answer)
    answer.close()
    assert talk.turns == []


def test_an_answer_is_cancelled_between_two_pieces() -> None:
    writer, stop = Echo(), threading.Event()
    talk = ChatSession(writer, reserve=10)
    events = talk.reply("domanda", sampling=Sampling(), cancel=stop)
    assert next(events) == TextToken("eco ")
    stop.set()
    *_, done = events
    assert isinstance(done, Answer)
    assert (done.finish, done.text, talk.turns) == ("cancelled", "eco ", [])
    assert writer.closed


class Breaking(Echo):
    """A writer that breaks off."""

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        yield "Comincio a "
        raise StilnovoError("The model server closed the connection.")


def test_a_model_that_breaks_off_leaves_what_it_said() -> None:
    talk = ChatSession(Breaking(), reserve=10)
    events = list(talk.reply("domanda", sampling=Sampling()))
    done = events[-1]
    assert isinstance(done, Answer)
    assert (done.finish, done.text, talk.turns) == ("failed", "Comincio a ", [])
    assert [event.code for event in events if isinstance(event, Notice)] == ["writer_failed"]
