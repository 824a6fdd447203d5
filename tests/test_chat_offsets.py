"""Where a quotation stands in its answer: from the checker through events, storage and history, letter for letter."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving import QUESTION, Scripted, begin, sample_file, say, serving
from stilnovo.chat import conversation
from stilnovo.chat.conversation import ChatSession, ask
from stilnovo.chat.events import Answer, Mode, Turn
from stilnovo.chat.writing import UNVERIFIED, Checker
from stilnovo.library.location import sample_library
from stilnovo.library.search import search
from stilnovo.library.store import Library

TRUE, FALSE = "Anselmo avrebbe insegnato a leggere a Tecla", "il faro fu venduto ai pirati"
#: Beyond the basic plane: one character here, two UTF-16 units in a browser.
STRANGE = "𝔘n 🙂 segno: "


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with sample_library() as library:
        yield library


def places(answer: Answer) -> list[str]:
    return [answer.text[quote.answer_start : quote.answer_end] for quote in answer.quotes]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_the_checker_says_where_each_quotation_stands(library: Library, size: int) -> None:
    passages = [hit.passage for hit in search(library, QUESTION, 3)]
    said = f"  {STRANGE}«{TRUE}» [P1], e ancora «{TRUE}». Ma «{FALSE}» [P2] no."
    checker = Checker(passages, library, start=100)
    shown = "".join(checker.feed(said[i : i + size]) for i in range(0, len(said), size)) + checker.end()
    found = [shown[quote.answer_start - 100 : quote.answer_end - 100] for quote in checker.quotes]
    first, second, third = checker.quotes
    assert found == [first.printed(), second.printed(), f"«{FALSE}» {UNVERIFIED}"]
    assert (first.status, second.status, third.status) == ("verified", "verified", "unverified")
    assert shown.startswith(STRANGE)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_librarys_own_answer_says_it_too(library: Library, limit: int) -> None:
    for question in (QUESTION, "Chi è Anselmo Corvi?", "Riassumi il capitolo II del Faro di Pietranera"):
        answer = ask(library, question, limit=limit)
        assert answer.quotes
        for quote, place in zip(answer.quotes, places(answer), strict=True):
            assert place in (quote.printed(), quote.printed("… "))


@pytest.mark.parametrize("mode", ["library", "library_plus"])
def test_what_stands_before_is_counted(library: Library, mode: Mode) -> None:
    answer = ask(library, QUESTION, Scripted([STRANGE, f"«{FALSE}» forse."]), mode=mode)
    assert {quote.status for quote in answer.quotes} == {"verified", "unverified"}
    for quote, place in zip(answer.quotes, places(answer), strict=True):
        assert place in (quote.printed(), quote.printed("… "), f"«{FALSE}» {UNVERIFIED}")


def stored(path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT details FROM conversation_messages WHERE role = 'assistant' ORDER BY position")
        return [json.loads(row[0]) for row in rows]


def test_it_is_stored_and_comes_back(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    with serving(path, Scripted([STRANGE, f"«{TRUE}» [P1] e «{TRUE}» [P1]."])) as service:
        conversation_id = begin(service)
        text = say(service, conversation_id, QUESTION)[-1][1]["text"]
        message = service.get(f"/api/conversations/{conversation_id}").json()["messages"][1]
        citations = message["details"]["citations"]
        assert [citation["status"] for citation in citations] == ["verified", "verified"]
        assert citations[0]["answer_end"] <= citations[1]["answer_start"]
        for citation in citations:
            place = text[citation["answer_start"] : citation["answer_end"]]
            assert place == f"«{citation['shown']}» ({citation['citation']})"
        assert stored(path)[0]["searched"] == QUESTION


def test_conversations_of_an_older_version_still_show_their_quotations(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    with serving(path) as service:
        conversation_id = begin(service)
        say(service, conversation_id, "Chi è Anselmo Corvi?")
        new = say(service, conversation_id, "E dove vive?")[-1][1]["details"]
    with sqlite3.connect(path) as db:  # as it was stored before
        for row, details in zip((1, 3), stored(path), strict=True):
            for citation in details["citations"]:
                del citation["answer_start"], citation["answer_end"]
            for notice in details.get("notices", []):
                del notice["detail"]
            del details["searched"]
            db.execute("UPDATE conversation_messages SET details = ? WHERE position = ?", (json.dumps(details), row))
    with serving(path) as service:
        old = service.get(f"/api/conversations/{conversation_id}").json()["messages"][3]["details"]
        assert old["citations"] == new["citations"]
        assert old["notices"] == new["notices"]
        follow = say(service, conversation_id, "E quanti gradini saliva?")[-1][1]["details"]["notices"][0]
        assert follow["detail"].startswith("E quanti gradini saliva? (")


def test_what_was_searched_is_not_found_out_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(message: str, before: str | None, work: str = "") -> str:
        asked.append(message)
        return message

    monkeypatch.setattr(conversation, "self_contained", counted)
    work = library.works()[0]
    turns: Sequence[Turn] = [Turn(f"Domanda {i}?", "Risposta.", searched=f"Domanda {i}?", work=work) for i in range(5)]
    talk = ChatSession(library=library, history=turns)
    assert asked == []
    list(talk.reply("E dove vive?"))
    assert asked == ["E dove vive?"]
