"""Conversations over a library: follow-up questions, checked quotations, and what is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from stilnovo.chat.conversation import ChatSession, self_contained
from stilnovo.chat.events import Answer, Event, Notice, TextToken
from stilnovo.errors import InputError
from stilnovo.library.location import sample_library
from stilnovo.library.store import Library
from stilnovo.text.italian import words
from stilnovo.text.template import Message


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with sample_library() as library:
        yield library


class Quoting:
    """A writer that quotes the first passage it is given."""

    context_tokens = 900

    def __init__(self) -> None:
        self.given: list[Sequence[Message]] = []

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Any) -> Iterator[str]:
        self.given.append(messages)
        content = messages[-1].content
        if "<<<" not in content:
            yield "Buongiorno."
            return
        words = re.split(r"<<<\w{8}\n", content)[1].split()[:6]
        yield "Ecco: «"
        yield " ".join(words)
        yield "» [P1]."


@pytest.mark.parametrize(
    ("message", "before", "searched"),
    [
        ("Chi è Tecla?", None, "Chi è Tecla?"),
        ("E dove vive?", "Chi è Anselmo Corvi?", "E dove vive? (Anselmo Corvi)"),
        ("Perché lo fece?", "Chi spense il faro?", "Perché lo fece? (spense faro)"),
        ("E Tecla?", "Chi è Anselmo?", "E Tecla?"),
        ("In che modo si salvò il registro dalla tempesta notturna?", "Chi è Anselmo?", None),
        ("Che cosa disse sua madre al guardiano del porto?", "Chi è Tecla?", "(Tecla)"),
    ],
)
def test_follow_ups_are_made_self_contained(message: str, before: str | None, searched: str | None) -> None:
    found = self_contained(message, before)
    assert found.startswith(message)
    assert found == message if searched is None else found.endswith(searched)


def told(events: Iterator[Event]) -> Answer:
    """The end of an answer; its tokens are its text."""
    every = list(events)
    done = every[-1]
    assert isinstance(done, Answer)
    assert "".join(event.text for event in every if isinstance(event, TextToken)) == done.text
    return done


def test_without_a_writer_the_library_answers(library: Library) -> None:
    talk = ChatSession(library=library)
    events = talk.reply("Chi è Anselmo Corvi?")
    assert talk.turns == []
    done = told(events)
    assert done.quotes[0].status == "verified"
    assert done.text == talk.turns[0].assistant
    follow = told(talk.reply("E quanti gradini saliva?"))
    assert follow.searched == "E quanti gradini saliva? (Anselmo Corvi, Il faro di Pietranera)"
    assert "centotrentadue" in follow.text
    talk.clear()
    assert told(talk.reply("E quanti gradini saliva?")).searched == "E quanti gradini saliva?"


def test_a_conversation_goes_on_from_its_history(library: Library) -> None:
    first = ChatSession(library=library)
    done = told(first.reply("Chi è Anselmo Corvi?"))
    again = ChatSession(library=library, history=[("Chi è Anselmo Corvi?", done.text)])
    follow = "E quanti gradini saliva?"
    assert told(again.reply(follow)).searched == told(first.reply(follow)).searched != follow


def test_a_writer_over_a_library_is_checked_and_history_keeps_no_passages(library: Library) -> None:
    writer = Quoting()
    writer.context_tokens = 3000
    talk = ChatSession(writer, library=library, reserve=50)
    done = told(talk.reply("Chi ha insegnato a leggere a Tecla?"))
    assert done.kind == "written"
    assert done.quotes[0].status == "verified"
    assert "[P1]" not in done.text
    assert done.quotes[0].citation in done.text
    told(talk.reply("E chi ha spento il faro?"))
    history = writer.given[-1][1:-1]
    assert [message.role for message in history] == ["user", "assistant"]
    assert history[0].content == "Chi ha insegnato a leggere a Tecla?"
    assert all("<<<" not in message.content for message in history)


def test_unknown_things_are_not_left_to_the_model(library: Library) -> None:
    writer = Quoting()
    talk = ChatSession(writer, library=library, reserve=50)
    assert "Non vi compare «Napoleone»" in told(talk.reply("Dove morì Napoleone?")).text
    assert writer.given == []
    assert told(talk.reply("Buongiorno a te")).text == "Buongiorno."


def test_oldest_turns_give_way_before_passages(library: Library) -> None:
    writer = Quoting()
    talk = ChatSession(writer, library=library, reserve=50)
    notices = []
    for number in range(8):
        events = list(talk.reply(f"Chi ha insegnato a leggere a Tecla? {'davvero ' * 60}"))
        notices += [event.code for event in events if isinstance(event, Notice)]
        assert writer.count(writer.given[-1]) + 50 <= writer.context_tokens
        assert len(talk.turns) + talk.dropped == number + 1
    assert talk.dropped > 0
    assert {"history", "passages"} <= set(notices)


def test_something_is_needed() -> None:
    with pytest.raises(InputError, match="a model, a library, or both"):
        ChatSession()


def test_a_library_answers_without_torch() -> None:
    code = (
        "import sys; from stilnovo.chat.conversation import ask; from stilnovo.library.location import sample_library\n"
        "assert ask(sample_library(), 'Chi è Tecla?').found; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


DIALOGUES = [
    ["Chi è Anselmo Corvi?", ("E quanti anni ha?", "anselmo corvi"), ("Dove dorme lui?", "anselmo corvi")],
    ["Chi ha insegnato a leggere a Tecla?", ("E perché?", "insegnato leggere tecla"), ("E sua madre?", "tecla")],
    [
        "Chi è Bastiano Brandi?",
        ("Come si chiama la sua barca?", "bastiano brandi"),
        ("E sua moglie?", "bastiano brandi"),
    ],
    ["Chi è Tecla?", ("Chi è Vanni?", ""), ("E dove vive?", "vanni")],
    [
        "Chi è Anselmo nel Faro di Pietranera?",
        ("Che cosa fa?", "anselmo"),
        ("E poi?", "anselmo"),
        ("Ma chi lo tradì?", "anselmo"),
    ],
    ["Chi è Tecla?", ("ciao", ""), ("Grazie", ""), ("Quando è nata?", "tecla")],
    ["Chi è Vanni?", ("Davvero?", ""), ("Perché fuggì?", "vanni")],
    ["Chi accompagna Tecla?", ("Dove?", "accompagna tecla"), ("E quando?", "accompagna tecla")],
    ["Come si chiama il maestro di Tecla?", ("Che cosa le insegna?", "tecla")],
    ["Chi è Altieri?", ("Com'è d'aspetto?", "altieri"), ("Che mestiere fa?", "altieri")],
    ["Che cosa fece Vanni la notte del naufragio?", ("E Anselmo?", ""), ("E lui che cosa disse?", "anselmo")],
    ["Dove è nascosto il registro?", ("Da chi?", "nascosto registro"), ("E Tecla lo sa?", "")],
]


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue[0])
def test_a_dialogue_keeps_person_and_work(library: Library, dialogue: list[Any]) -> None:
    talk = ChatSession(library=library)
    told(talk.reply(dialogue[0]))
    for message, kept in dialogue[1:]:
        answer = told(talk.reply(message))
        added = words(answer.searched)[len(words(message)) :]
        assert set(kept.split()) <= set(added), answer.searched
        assert bool(kept) == bool(added), answer.searched
        assert not kept or {q.section.work.title for q in answer.quotes if q.section} == {"Il faro di Pietranera"}
