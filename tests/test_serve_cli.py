"""`stilnovo serve` as a process: it starts, refuses, ends, and is killed without losing what was said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving import QUESTION, begin, say


def command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "STILNOVO_LIBRARY": str(folder / "library.sqlite"), "HF_HUB_OFFLINE": "1"}
    environment.pop("STILNOVO_TOKEN", None)
    return [sys.executable, "-m", "stilnovo.cli.main", "serve", *arguments], environment


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    line, environment = command(folder, "--port", "0", "--json", *arguments)
    running = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        told = next(text for text in running.stdout if text.startswith("{"))
        yield running, json.loads(told)
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "no token is set"),
        (["--host", "0.0.0.0", "--token", "corta"], "The token cannot be used"),
        (["--adapter", "x"], "--adapter needs the model"),
        (["--server", "http://127.0.0.1:9"], "--server needs the name of a model"),
        (["--port", "99999"], "Port, sizes and counts"),
        (["--library", "niente.txt"], "is not a library"),
    ],
)
def test_bad_settings_are_refused_in_three_lines(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "niente.txt").write_text(
        "questo non è un file di SQLite, ma soltanto un testo qualsiasi, abbastanza lungo" * 9
    )
    line, environment = command(tmp_path, *arguments)
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_it_serves_ends_cleanly_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    with process(tmp_path, "--sample") as (running, told):
        assert told["works"] == 2
        with httpx.Client(base_url=str(told["address"]), timeout=30) as client:
            assert client.get("/health").json()["status"] == "ok"
            number = begin(client)
            answer = say(client, number, QUESTION)[-1][1]["text"]
            port = client.base_url.port
            line, environment = command(tmp_path, "--port", str(port))
            second = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
            assert second.returncode == 2
            assert f"Cannot listen on 127.0.0.1, port {port}" in second.stderr
        running.send_signal(signal.SIGKILL)
        running.wait(30)
    with process(tmp_path) as (running, told):
        with httpx.Client(base_url=str(told["address"]), timeout=30) as client:
            kept = client.get(f"/api/conversations/{number}").json()["messages"]
            assert [one["text"] for one in kept] == [QUESTION, answer]
        running.send_signal(signal.SIGINT)
        assert running.wait(30) in (0, 130)
        assert running.stderr is not None
        assert "Traceback" not in running.stderr.read()
    assert not (tmp_path / "library.sqlite.uploads").exists()


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; sys.argv = ['stilnovo', 'serve']; from stilnovo.cli.main import main; main()"
    _, environment = command(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'stilnovo[serve]'" in done.stderr
