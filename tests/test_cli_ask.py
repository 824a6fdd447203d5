"""`stilnovo ask` and `stilnovo chat` as people and machines use them: JSON, servers, prompts, modes, refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stilnovo.chat.extract import NEAREST
from stilnovo.cli.main import app
from stilnovo.errors import InputError


def run(*arguments: str, lines: str = "", monkeypatch: pytest.MonkeyPatch, home: Path) -> Result:
    monkeypatch.setenv("STILNOVO_LIBRARY", str(home / "none.sqlite"))
    return CliRunner().invoke(app, list(arguments), input=lines)


class Model(BaseHTTPRequestHandler):
    """Answers every conversation with one true quotation, or dies after its first words."""

    asked: list[dict[str, Any]]
    dies = False

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("completions"):
            self.do_GET()
            return
        self.asked.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for text in ("Fu Anselmo: «Anselmo avrebbe ", "insegnato a leggere a Tecla» [P1]."):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n")
            if self.dies:
                return
        self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def server() -> Iterator[tuple[str, type[Model]]]:
    kind = type("Told", (Model,), {"asked": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}/v1", kind
    http.shutdown()
    http.server_close()


def test_ask_for_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = run("ask", "Chi ha insegnato a leggere a Tecla?", "--json", monkeypatch=monkeypatch, home=tmp_path)
    assert done.exit_code == 0
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mode"] == "extractive"
    assert result["sure"] != result["nearest"]
    assert "Anselmo avrebbe insegnato a leggere a Tecla" in result["quote"]
    cited = result["citations"][0]
    assert {"quote", "status", "work", "section", "verses"} <= set(cited)
    assert (cited["status"], cited["section"]) == ("verified", "Capitolo III")


def test_a_server_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[str, type[Model]]) -> None:
    url, kind = server
    (tmp_path / "system.txt").write_text("Rispondi come un bidello.", encoding="utf-8")
    arguments = ["ask", "Chi ha insegnato a leggere a Tecla?", "--json", "--server", url, "--server-model", "m"]
    arguments += ["--system-file", str(tmp_path / "system.txt"), "--server-context", "4000"]
    done = run(*arguments, monkeypatch=monkeypatch, home=tmp_path)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["mode"], result["model"]) == ("written", "m")
    assert result["citations"][0]["status"] == "verified"
    assert kind.asked[0]["messages"][0]["content"].startswith("Rispondi come un bidello.")
    kind.dies = True
    broken = run(*arguments, monkeypatch=monkeypatch, home=tmp_path)
    assert broken.exit_code == 1
    result = json.loads(broken.stdout.splitlines()[-1])
    assert result["complete"] is False
    assert "Dal testo:" in result["answer"] or NEAREST in result["answer"]
    assert "middle of the answer" in broken.stderr


def test_a_conversation_over_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[str, type[Model]]
) -> None:
    url, kind = server
    lines = "Chi ha insegnato a leggere a Tecla?\n/nuova\n/esci\n"
    arguments = [
        "chat",
        "--library",
        "sample",
        "--server",
        url,
        "--server-model",
        "m",
        "--mode",
        "library_plus",
        "--json",
    ]
    done = run(*arguments, lines=lines, monkeypatch=monkeypatch, home=tmp_path)
    assert done.exit_code == 0, done.output
    assert "Dalla biblioteca:" in done.stdout
    assert "Dalla conoscenza del modello" in done.stdout
    assert "[verified: stilnovo, Il faro di Pietranera, cap. III]" in done.stdout
    assert len(kind.asked) == 2
    assert "--server-context" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "http://127.0.0.1:9/v1"], "name of a model"),
        (["--server-model", "m"], "need a server"),
        (["--server", "x", "--server-model", "m", "--model", "smollm2"], "cannot be combined"),
        (["--server", "ftp://x", "--server-model", "m"], "no server's address"),
        (["--adapter", "a"], "needs the model"),
        (["--system-file", "missing.txt"], "Cannot read"),
    ],
)
def test_options_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("ask", "Chi è Tecla?", *arguments, monkeypatch=monkeypatch, home=tmp_path)
    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)
