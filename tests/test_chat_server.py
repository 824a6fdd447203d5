"""A writer behind a server, against a small real one: well, dying in mid-answer, refusing, talking nonsense, silent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stilnovo.chat.conversation import ChatSession, ask
from stilnovo.chat.events import Answer, Notice
from stilnovo.errors import InputError, StilnovoError
from stilnovo.generate.sampling import Sampling
from stilnovo.library.location import sample_library
from stilnovo.remote import UNTOLD_CONTEXT, ServerWriter
from stilnovo.text.template import Message

MESSAGES, SAMPLING = [Message("system", "s"), Message("user", "Chi è?")], Sampling(0.0, 1.0, 20, 7, ("FINE",))
Reaction = Callable[["Handler", dict[str, Any]], None]


def piece(text: str | None = None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


class Handler(BaseHTTPRequestHandler):
    answer: Reaction
    told: dict[str, Any]
    asked: list[dict[str, Any]]

    def log_message(self, *_: Any) -> None: ...

    def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path in self.told:
            self.say(200, json.dumps(self.told[self.path]).encode())
        else:
            self.say(404, b"no")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.do_GET()
            return
        self.asked.append({**body, "authorization": self.headers.get("Authorization")})
        type(self).answer(self, body)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers = []

    def start(answer: Reaction, told: dict[str, Any] | None = None) -> str:
        kind = type("Told", (Handler,), {"answer": staticmethod(answer), "told": told or {}, "asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        start.kind = kind  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def streaming(*parts: bytes) -> Reaction:
    return lambda handler, _: handler.say(200, b"".join(parts), "text/event-stream")


def test_an_answer_streams(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILNOVO_SERVER_KEY", "segreto")
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9}}\n\n'
    body = (b": a comment\n\n", piece("Perché "), piece("no?"), piece(finish="length"), usage, b"data: [DONE]\n\n")
    writer = ServerWriter(serve(streaming(*body), {"/props": {"default_generation_settings": {"n_ctx": 512}}}), "m")
    assert (writer.context_tokens, writer.warnings) == (512, [])
    assert list(writer.stream(MESSAGES, SAMPLING)) == ["Perché ", "no?"]
    assert writer.finish == "length"
    sent = serve.kind.asked[0]
    assert sent["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "Chi è?"}]
    assert (sent["model"], sent["max_tokens"], sent["stop"], sent["seed"]) == ("m", 20, ["FINE"], 7)
    assert sent["authorization"] == "Bearer segreto"


def test_an_answer_cut_by_its_tokens_says_so(serve: Any) -> None:
    writer = ServerWriter(serve(streaming(piece("Un pezzo"), piece(finish="length"), b"data: [DONE]\n\n")), "m", 4000)
    done = list(ChatSession(writer).reply("Ciao"))[-1]
    assert isinstance(done, Answer)
    assert (done.finish, done.text) == ("length", "Un pezzo")


def test_a_server_that_does_not_stream(serve: Any) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Intero."}}]}).encode()
    writer = ServerWriter(serve(lambda handler, _: handler.say(200, body)), "m")
    assert list(writer.stream(MESSAGES, SAMPLING)) == ["Intero."]


def hanging(handler: Handler, _: dict[str, Any]) -> None:
    handler.say(200, piece("Un "), "text/event-stream")
    handler.wfile.flush()
    time.sleep(1.5)


@pytest.mark.parametrize(
    ("answer", "pieces", "message"),
    [
        (streaming(piece("Un pezzo")), ["Un pezzo"], "in the middle of the answer"),
        (streaming(piece("Un pezzo"), b"data: {broken\n\n"), ["Un pezzo"], "no answer"),
        (streaming(piece("Un pezzo"), b"data: [1, 2]\n\n"), ["Un pezzo"], "no answer"),
        (streaming(b'data: {"choices": [3]}\n\n'), [], "no answer"),
        (streaming(b"<html>hello</html>"), [], "in the middle"),
        (streaming(b'data: {"error": {"message": "out of memory"}}\n\n'), [], "out of memory"),
        (lambda handler, _: handler.say(500, b'{"error": {"message": "kaputt"}}'), [], "kaputt"),
        (lambda handler, _: handler.say(302, b""), [], "refused: 302"),
        (lambda handler, _: handler.say(200, b"{}"), [], "no answer"),
        (lambda handler, _: handler.connection.close(), [], "model server"),
        (hanging, ["Un "], "sent nothing for 0.3 s"),
    ],
)
def test_a_server_in_trouble_is_told(serve: Any, answer: Reaction, pieces: list[str], message: str) -> None:
    writer = ServerWriter(serve(answer), "m", silence=0.3)
    got: list[str] = []
    with pytest.raises(StilnovoError, match=message):
        got.extend(writer.stream(MESSAGES, SAMPLING))  # keeps what came before the error
    assert got == pieces


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "http://", "http://host:port/v1", "http://a:b@host/v1", "http://h/v1?k=1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no server's address"):
        ServerWriter(url, "m")


def test_nobody_there() -> None:
    with pytest.raises(StilnovoError, match="No model server answers"):
        ServerWriter("127.0.0.1:9", "m")


@pytest.mark.parametrize(
    ("told", "wanted", "context", "warned"),
    [
        ({"/v1/models": {"data": [{"id": "m", "max_model_len": 2048}]}}, None, 2048, 0),
        ({"/v1/models": {"data": [{"id": "m", "max_model_len": 2048}]}}, 8192, 2048, 1),
        ({"/v1/models": {"data": [{"id": "other", "max_model_len": 9}]}, "/props": {"n_ctx": 1024}}, 512, 512, 0),
        ({"/api/show": {"parameters": "stop x\nnum_ctx   4000"}}, None, 4000, 0),
        ({"/v1/models": [1], "/props": "?", "/api/show": {"parameters": 3}}, None, UNTOLD_CONTEXT, 1),
        ({}, 3000, 3000, 0),
    ],
)
def test_what_a_server_says_of_its_context(
    serve: Any, told: Any, wanted: int | None, context: int, warned: int
) -> None:
    writer = ServerWriter(serve(streaming(), told), "m", wanted)
    assert (writer.context_tokens, len(writer.warnings)) == (context, warned)


def test_a_prompt_that_was_cut_is_noticed(serve: Any) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 300}}\n\n'
    writer = ServerWriter(serve(streaming(piece("Sì."), piece(finish="stop"), usage)), "m", 16000)
    list(writer.stream([Message("user", "parola " * 2000)], SAMPLING))
    assert [warning[0] for warning in writer.warnings] == ["context_cut"]
    notices = [event for event in ChatSession(writer).reply("Ciao") if isinstance(event, Notice)]
    assert "troppo piccolo" in notices[0].text


def test_a_server_that_dies_in_mid_answer_leaves_the_library_answering(serve: Any) -> None:
    url = serve(streaming(piece("Fu «Anselmo avrebbe insegnato a leg")))
    with sample_library() as library:
        talk = ChatSession(ServerWriter(url, "m", 4000), library=library)
        events = list(talk.reply("Chi ha insegnato a leggere a Tecla?"))
        done = events[-1]
        assert isinstance(done, Answer)
        assert done.finish == "failed"
        assert "Anselmo avrebbe insegnato a leggere a Tecla" in done.text
        assert ("Dal testo: «" in done.text) == done.sure
        assert done.quotes[0].status == "verified"
        assert any(isinstance(event, Notice) and event.code == "writer_failed" for event in events)
        assert talk.turns == []
        assert not ask(library, "Chi ha insegnato a leggere a Tecla?", ServerWriter(url, "m", 4000)).complete
