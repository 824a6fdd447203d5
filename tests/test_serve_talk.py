"""Conversations: stored in the library's file, kept whatever breaks, exported, deleted."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import DIED, QUESTION, Scripted, begin, events, sample_file, say, serving, until
from stilnovo.library.store import Library
from stilnovo.remote import ServerWriter
from stilnovo.serve import workers
from stilnovo.serve.history import title_of
from stilnovo.serve.uploads import clean_name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return sample_file(tmp_path)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(sample_file(tmp_path_factory.mktemp("talk"))) as client:
        yield client


def messages(client: httpx.Client, number: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/conversations/{number}").json()["messages"]
    return found


def test_a_conversation_lives_in_the_librarys_file_and_survives_the_service(path: Path) -> None:
    with serving(path) as service:
        number = begin(service)
        told = say(service, number, QUESTION)
        assert [name for name, _ in told] == ["start", "token", "done"]
        assert told[-1][1]["details"]["citations"][0]["status"] == "verified"
        assert told[-1][1]["text"] == "".join(data["text"] for name, data in told if name == "token")
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT role, status FROM conversation_messages ORDER BY position").fetchall() == [
            ("user", "complete"), ("assistant", "complete"),
        ]  # fmt: skip
    with Library.open(path) as library:
        assert library.check() == []
    with serving(path) as service:
        listed = service.get("/api/conversations").json()["conversations"]
        assert [(one["id"], one["title"], one["messages"]) for one in listed] == [(number, QUESTION, 2)]
        assert messages(service, number)[1]["text"] == told[-1][1]["text"]


def test_rename_export_delete(service: httpx.Client) -> None:
    number, other = begin(service), begin(service)
    say(service, number, QUESTION)
    say(service, other, "Chi spense il faro?")
    assert (
        service.patch(f"/api/conversations/{number}", json={"title": "  Tecla\nlegge  "}).json()["title"]
        == "Tecla\nlegge"
    )
    assert service.patch(f"/api/conversations/{number}", json={"title": " "}).status_code == 422
    exported = service.get(f"/api/conversations/{number}/export", params={"format": "json"})
    content = json.loads(exported.text)
    assert content["title"] == "Tecla\nlegge"
    assert content["messages"] == messages(service, number)
    markdown = service.get(f"/api/conversations/{number}/export", params={"language": "en"})
    assert "\n" not in markdown.headers["content-disposition"]
    assert markdown.text.startswith("# Tecla legge\n")
    assert f"> **{QUESTION}**" in markdown.text
    assert "[verified]" in markdown.text
    assert service.delete(f"/api/conversations/{number}").status_code == 204
    for call in (service.get, service.delete):
        assert call(f"/api/conversations/{number}").status_code == 404
    assert len(messages(service, other)) == 2


def test_a_follow_up_leans_on_what_was_stored(service: httpx.Client) -> None:
    number = begin(service)
    say(service, number, "Chi è Anselmo Corvi?")
    after = say(service, number, "E dove vive?")[-1][1]
    alone = say(service, begin(service), "E dove vive?")[-1][1]
    assert after["text"] != alone["text"]
    assert [one["code"] for one in after["details"]["notices"]] == ["search"]


def test_answering_anew_replaces_the_answer_with_another_seed(path: Path) -> None:
    writer = Scripted(["Prima ", "risposta."])
    with serving(path, writer) as service:
        number = begin(service)
        ask = {"mode": "chat", "sampling": {"seed": 100}}
        say(service, number, "ciao", **ask)
        for _ in range(2):
            response = service.post(f"/api/conversations/{number}/regenerate", json=ask)
            assert response.status_code == 200
        assert writer.seeds == [100, 101, 102]
        assert [one["role"] for one in messages(service, number)] == ["user", "assistant"]
        assert service.post(f"/api/conversations/{begin(service)}/regenerate", json=ask).status_code == 404


def test_a_new_try_that_fails_keeps_the_answer_there_was(path: Path) -> None:
    writer = Scripted(["Buona."])
    with serving(path, writer) as service:
        number = begin(service)
        say(service, number, "ciao", mode="chat")
        writer.pieces, writer.after = [], DIED
        list(service.post(f"/api/conversations/{number}/regenerate", json={"mode": "chat"}).iter_lines())
        kept = messages(service, number)[1]
        assert (kept["text"], kept["status"]) == ("Buona.", "complete")
        assert kept["details"]["error"]["code"] == "model_failed"


def test_a_model_that_dies_leaves_what_had_arrived(path: Path) -> None:
    writer = Scripted(["Ecco ", "che "], after=DIED)
    with serving(path, writer) as service:
        number = begin(service)
        told = say(service, number, "ciao", mode="chat")
        assert told[-1][1]["status"] == "failed"
        assert "chiuso la connessione" in told[-1][1]["details"]["error"]["message"]
        assert messages(service, number)[1]["text"] == "Ecco che "
        writer.after = RuntimeError("una svista")  # and one that fails in a way nobody foresaw
        told = say(service, number, "ancora", mode="chat")
        assert told[-1][1]["details"]["error"]["code"] == "model_failed"
        assert "svista" not in json.dumps(told[-1][1])
        writer.after = None
        assert say(service, number, "e ora?", mode="chat")[-1][1]["status"] == "complete"


def test_a_reader_who_leaves_ends_the_writing_and_keeps_what_came(path: Path) -> None:
    writer = Scripted([f"parola{i} " for i in range(2000)], pause=0.01)
    with serving(path, writer) as service:
        number = begin(service)
        body = {"text": "racconta", "mode": "chat"}
        with service.stream("POST", f"/api/conversations/{number}/messages", json=body) as response:
            read = events(response)
            while next(read)[0] != "token":
                pass
        until(lambda: writer.closed == 1)
        assert writer.said < 1000
        until(lambda: messages(service, number)[1]["status"] == "stopped")
        text = messages(service, number)[1]["text"]
        assert text.startswith("parola0 ")
        assert service.get("/health").status_code == 200
        metrics = service.get("/metrics").text
        assert 'stilnovo_answers_total{mode="chat",outcome="stopped"} 1' in metrics
        assert "stilnovo_answers_running 0" in metrics


def test_a_service_that_was_killed_says_so_afterwards(path: Path) -> None:
    with serving(path) as service:
        number = begin(service)
        say(service, number, QUESTION)
    with sqlite3.connect(path) as db:  # as a process killed in mid-answer leaves it
        db.execute("UPDATE conversation_messages SET status = 'writing', text = 'A metà' WHERE role = 'assistant'")
    with serving(path) as service:
        left = messages(service, number)[1]
        assert (left["status"], left["text"]) == ("interrupted", "A metà")


def test_a_locked_database_is_told_and_nothing_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BUSY_MILLISECONDS", 50)
    with serving(path) as service:
        number = begin(service)
        say(service, number, QUESTION)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            refused = service.post(f"/api/conversations/{number}/messages", json={"text": "E poi?"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "locked"
            assert "retry-after" in refused.headers
            assert len(messages(service, number)) == 2  # reading goes on
            answered = service.post(
                "/v1/chat/completions",
                json={"model": "stilnovo-library", "messages": [{"role": "user", "content": QUESTION}]},
            )
            assert answered.status_code == 200  # and so does answering
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert say(service, number, "E poi?")[-1][1]["status"] == "complete"


@pytest.mark.parametrize(
    ("pragma", "code", "status"), [("max_page_count = 1", "disk_full", 507), ("query_only = 1", "read_only", 503)]
)
def test_a_full_disk_and_a_read_only_file_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, code: str, status: int
) -> None:
    """SQLite's own errors, brought about by its own limits."""
    with serving(path) as service:
        number = begin(service)
        say(service, number, QUESTION)
    opened = workers._opened

    def limited(*arguments: Any) -> Library:
        library = opened(*arguments)
        library.connection.execute(f"PRAGMA {pragma}")
        return library

    monkeypatch.setattr(workers, "_opened", limited)
    with serving(path) as service:
        # Fill what is left of the last pages, so that a row really needs a new one.
        refused = service.post(f"/api/conversations/{number}/messages", json={"text": "x" * 20_000})
        assert refused.status_code == status
        assert refused.json()["error"]["code"] == code
        assert len(messages(service, number)) == 2
        answered = service.post(
            "/v1/chat/completions",
            json={"model": "stilnovo-library", "messages": [{"role": "user", "content": QUESTION}]},
        )
        assert answered.status_code == 200


def test_an_answer_that_cannot_be_stored_is_shown_and_said_to_be_unsaved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BUSY_MILLISECONDS", 50)
    writer = Scripted(["uno ", "due ", "tre"], pause=0.3)
    with serving(path, writer) as service:
        number = begin(service)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        names = []
        body = {"text": "conta", "mode": "chat"}
        with service.stream("POST", f"/api/conversations/{number}/messages", json=body) as response:
            for name, _ in events(response):
                names.append(name)
                if name == "start":
                    other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        other.close()
        assert names == ["start", "token", "token", "token", "done", "unsaved"]


@pytest.mark.parametrize(
    "body", [{}, {"text": ""}, {"text": "  "}, {"text": "x" * 20_001}, {"text": "a", "sampling": {"seed": -1}}]
)
def test_bad_messages_are_refused(service: httpx.Client, body: dict[str, Any]) -> None:
    number = begin(service)
    assert service.post(f"/api/conversations/{number}/messages", json=body).status_code in (400, 422)
    assert messages(service, number) == []


def test_modes_need_a_model(service: httpx.Client) -> None:
    refused = service.post(f"/api/conversations/{begin(service)}/messages", json={"text": "ciao", "mode": "chat"})
    assert refused.json()["error"]["code"] == "mode"


@pytest.mark.parametrize("number", ["x", "../../etc", "0" * 32, "%00" * 10, "1 OR 1=1"])
def test_strange_conversations_are_not_there(service: httpx.Client, number: str) -> None:
    assert service.get(f"/api/conversations/{number}").status_code in (400, 404)


def test_markup_and_strange_characters_come_back_as_they_were(service: httpx.Client) -> None:
    text = "<script>alert(1)</script> \u202e\u200b 𝔘 \x00 «»"
    number = begin(service)
    say(service, number, text)
    response = service.get(f"/api/conversations/{number}")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["messages"][0]["text"] == text


def test_titles_end_between_words() -> None:
    assert title_of("breve") == "breve"
    long = title_of("una domanda " * 20)
    assert long.endswith("domanda …")
    assert len(long) <= 62


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\libri\\Inferno.txt", "Inferno.txt"),
        ("a\x00b\u202e.txt", "ab.txt"),
        ("..", "senza nome"),
        ("", "senza nome"),
        ("x" * 500 + ".epub", "x" * 154 + "….epub"),
    ],
)
def test_names_of_files_are_data(raw: str, shown: str) -> None:
    assert clean_name(raw) == shown


class Dying(BaseHTTPRequestHandler):
    """A chat server that sends two pieces and closes the connection without an end."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in ("Ecco ", "la risposta "):
            chunk = {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_model_server_that_dies_in_mid_answer_leaves_what_came_and_troubles_nobody_else(path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Dying) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        writer = ServerWriter(f"http://127.0.0.1:{upstream.server_address[1]}/v1", "prova", context=4000)
        with serving(path, writer) as service:
            number, other = begin(service), begin(service)
            told = say(service, number, "Racconta.", mode="chat")
            assert told[-1][1]["status"] == "failed"
            assert told[-1][1]["details"]["error"]["code"] == "model_failed"
            assert messages(service, number)[1]["text"] == "Ecco la risposta "
            upstream.shutdown()
            upstream.server_close()  # and now it is gone altogether
            gone = say(service, number, "E poi?", mode="chat")[-1][1]
            assert (gone["status"], gone["text"]) == ("failed", "")
            # Over the library the found sentence stands in for the model.
            found = say(service, other, QUESTION)[-1][1]
            assert found["details"]["citations"][0]["status"] == "verified"
            assert [one["text"] for one in messages(service, number)][:2] == ["Racconta.", "Ecco la risposta "]
