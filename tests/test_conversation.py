"""The rule by which a conversation fits its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from stilnovo.chat.conversation import Conversation
from stilnovo.errors import InputError
from stilnovo.generate.sampling import Sampling
from stilnovo.text.template import Message


class Echo:
    """A writer that counts words and repeats the question."""

    context_tokens = 40

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        self.given = list(messages)
        yield from ("eco ", messages[-1].content)


def test_oldest_turns_go_first_and_are_counted() -> None:
    talk = Conversation(Echo(), system="breve", reserve=10)
    for number in range(6):
        assert "".join(talk.say(f"domanda numero {number}", Sampling())) == f"eco domanda numero {number}"
        messages = talk.writer.given  # type: ignore[attr-defined]
        assert messages[0].content == "breve"
        assert messages[-1].content == f"domanda numero {number}"
        assert talk.writer.count(messages) + 10 <= 40
        assert [m.role for m in messages[1:]] == ["user", "assistant"] * (len(messages) // 2 - 1) + ["user"]
    assert talk.dropped > 0
    assert talk.dropped + len(talk.turns) == 6
    assert talk.turns[-1][0] == "domanda numero 5"
    talk.clear()
    assert (talk.turns, talk.dropped) == ([], 0)


def test_a_question_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        list(Conversation(Echo(), reserve=10).say("parola " * 40, Sampling()))


def test_an_interrupted_answer_is_not_kept() -> None:
    talk = Conversation(Echo(), reserve=10)
    answer = talk.say("domanda", Sampling())
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert talk.turns == []
