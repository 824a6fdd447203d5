"""Many clients at once: every one is answered or told when to come back, in the order they came."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving import QUESTION, Scripted, begin, sample_file, say, serving, until

CHAT = {"model": "stilnovo-chat", "messages": [{"role": "user", "content": "ciao"}]}


def test_fifty_clients_of_the_library_each_get_their_own_answer(tmp_path: Path) -> None:
    questions = [QUESTION, "Chi spense il faro?", "Chi è Anselmo Corvi?", "Chi è Vanni?", "Come morì Anselmo?"]
    with serving(sample_file(tmp_path)) as service:
        expected = [say(service, begin(service), question)[-1][1]["text"] for question in questions]

        def one(i: int) -> str:
            with httpx.Client(base_url=service.base_url, timeout=60) as client:
                return str(say(client, begin(client), questions[i % 5])[-1][1]["text"])

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(one, range(50)))
        assert answers == [expected[i % 5] for i in range(50)]
        assert len(service.get("/api/conversations").json()["conversations"]) == 55


def test_one_model_is_never_asked_for_two_answers_and_nobody_is_forgotten(tmp_path: Path) -> None:
    writer = Scripted(["a", "b", "c"], pause=0.003)
    with serving(sample_file(tmp_path), writer, answers=1) as service:

        def one(_: int) -> str:
            answer = httpx.post(f"{service.base_url}/v1/chat/completions", json=CHAT, timeout=60)
            return str(answer.json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(50) as pool:
            assert list(pool.map(one, range(50))) == ["abc"] * 50
        assert writer.most == 1


def test_a_full_queue_says_when_to_come_back_and_serves_those_inside(tmp_path: Path) -> None:
    gate = threading.Event()

    class Gated(Scripted):
        def stream(self, messages, sampling):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            gate.wait(20)
            yield "fatto"

    with serving(sample_file(tmp_path), Gated([]), answers=1, waiting=3) as service:
        url = f"{service.base_url}/v1/chat/completions"

        def one(_: int) -> httpx.Response:
            return httpx.post(url, json=CHAT, timeout=60)

        with ThreadPoolExecutor(10) as pool:
            pending = [pool.submit(one, i) for i in range(10)]
            until(lambda: sum(future.done() for future in pending) == 6)
            metrics = service.get("/metrics").text
            assert "stilnovo_answers_waiting 3" in metrics
            assert "stilnovo_answers_running 1" in metrics
            # The page goes on meanwhile, and says what is the matter in the conversation itself.
            number = begin(service)
            told = say(service, number, "ciao", mode="chat")
            assert told[-1][0] == "error"
            assert told[-1][1]["code"] == "busy"
            kept = service.get(f"/api/conversations/{number}").json()["messages"]
            assert [(one["role"], one["status"]) for one in kept] == [("user", "complete"), ("assistant", "failed")]
            gate.set()
            answers = [future.result() for future in pending]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) == 6
        assert all(
            int(answer.headers["retry-after"]) > 0 and answer.json()["error"]["code"] == "busy" for answer in refused
        )
        assert sum(answer.status_code == 200 for answer in answers) == 4
        again = service.post(f"/api/conversations/{number}/regenerate", json={"mode": "chat"})
        assert "fatto" in again.text


def test_clients_that_leave_free_the_model_and_the_queue(tmp_path: Path) -> None:
    writer = Scripted(["x"] * 5000, pause=0.01)
    with serving(sample_file(tmp_path), writer, answers=1) as service:
        url = f"{service.base_url}/v1/chat/completions"

        def impatient(stream: bool) -> None:
            if stream:
                with (
                    httpx.Client(timeout=60) as client,
                    client.stream("POST", url, json={**CHAT, "stream": True}) as answer,
                ):
                    next(answer.iter_lines())  # the first word, then the window is closed
            else:
                with pytest.raises(httpx.TimeoutException):
                    httpx.post(url, json=CHAT, timeout=0.7)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(impatient, [False, True] * 4))
        until(lambda: "stilnovo_answers_running 0" in service.get("/metrics").text)
        assert "stilnovo_answers_waiting 0" in service.get("/metrics").text
        until(lambda: writer.running == 0)
        writer.pieces = ["ancora ", "qui"]
        assert service.post(url, json=CHAT).json()["choices"][0]["message"]["content"] == "ancora qui"


def test_a_long_answer_does_not_hold_up_the_page(tmp_path: Path) -> None:
    writer = Scripted(["x"] * 200, pause=0.02)
    with serving(sample_file(tmp_path), writer, answers=1) as service:
        thread = threading.Thread(
            target=lambda: httpx.post(f"{service.base_url}/v1/chat/completions", json=CHAT, timeout=30)
        )
        thread.start()
        until(lambda: writer.running == 1)
        for _ in range(20):
            assert service.get("/api/conversations").status_code == 200
            assert service.get("/api/works").status_code == 200
        assert writer.running == 1  # it was still writing: nothing waited for it
        thread.join()
