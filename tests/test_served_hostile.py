"""Servers that are busy, broken or careless, and addresses and keys that are not what they should be: nothing is guessed, nothing told."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_openai import FakeModel, FakeServer
from stilnovo import remote
from stilnovo.benchmarks.items import Decoding
from stilnovo.errors import InputError, StilnovoError
from stilnovo.remote import ServerConnection
from stilnovo.remote_address import named_wait
from stilnovo.report.evaluation import evaluation_page, evaluation_text
from stilnovo.scoring.result import load_result
from stilnovo.scoring.server_reply import echoed, first_token, served_text
from test_served import ENDINGS, IDS, LETTERS, WAYS, WRITING, Run, task

TEXTS_ONLY = frozenset({"completions"})
KEY = "segretissimo"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)


@pytest.mark.parametrize(
    "url",
    ["http://io:{}@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?api_key={}", "http://127.0.0.1:1/v1#{}", "io:{}@127.0.0.1:abc"],
)  # fmt: skip
def test_a_key_in_an_address_is_refused_unseen(url: str) -> None:
    with pytest.raises(InputError, match=remote.KEY_VARIABLE) as error:
        ServerConnection(url.format(KEY))
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "http://", "http://..", "http://" + "a" * 70, "http://xn--/", "http://h:99999", "http://h:-1", "ftp://h", "::1:80"]
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no server's address"):
        ServerConnection(url)


@pytest.mark.parametrize("url", ["[::1]:1", "http://[::1]:1/v1/", "127.0.0.1:1/a/v1/", "http://127.0.0.1:1"])
def test_addresses_of_all_forms(url: str) -> None:
    with pytest.raises(StilnovoError, match="No model server answers"):
        ServerConnection(url).models()


@pytest.mark.parametrize("key", [KEY + "\n", f" {KEY}\r\n", "segretissimò", "segre\ttissimo", "segre\x1btissimo"])
def test_a_key_is_sent_whole_or_not_at_all(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.KEY_VARIABLE, key)
    with FakeServer(can=TEXTS_ONLY) as server:
        if key.strip() == KEY:
            Run()(server, task(WRITING))
        else:
            with pytest.raises(InputError, match=remote.KEY_VARIABLE) as error:
                Run()(server, task(WRITING))
            assert key.strip() not in str(error.value)
        assert {sent for _, _, sent in server.asked} <= {f"Bearer {KEY}"}


def test_a_server_that_repeats_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.KEY_VARIABLE, KEY)
    for body in ({"choices": [{"text": {"key": KEY}}]}, f"no {KEY}".encode(), {"error": KEY}):
        with (
            FakeServer(
                can=TEXTS_ONLY, fault=lambda handler, path, asked, body=body: handler.say(200, body) or True
            ) as server,
            pytest.raises(StilnovoError) as error,
        ):
            Run()(server, task(WRITING))
        assert KEY not in str(error.value)


def test_a_locked_list_of_models_wants_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    class Locked(FakeServer):
        def about(self, path: str) -> Any:
            return None

    monkeypatch.setattr(remote, "RETRIED", frozenset())
    with Locked() as server, pytest.raises(InputError, match="Add --model"):
        Run()(server, task(WRITING))
    status = ServerConnection("h")
    status.locked = InputError("401", next=remote.KEY_VARIABLE)
    monkeypatch.setattr(status, "models", list)
    from stilnovo.scoring.server_model import ServedModel

    with pytest.raises(InputError, match=remote.KEY_VARIABLE):
        ServedModel(status)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("way", ["echo of ids", "step", "prompt_logprobs"])
def test_a_busy_moment_at_first_is_no_inability(status: int, way: str) -> None:
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def busy(handler: Any, path: str, body: dict[str, Any]) -> bool:
        with lock:
            seen[path] += 1
            late = seen[path] > 5
        if not late:
            handler.say(status, {"error": {"message": "piano"}}, Retry_After="0")
        return not late

    with FakeServer(FakeModel(), WAYS[way]) as server:
        quiet = Run()(server, task(ENDINGS), task(WRITING, "scritti"))
        server.fault = busy
        loud = Run()(server, task(ENDINGS), task(WRITING, "scritti"))
    assert loud.settings["server"]["methods"] == quiet.settings["server"]["methods"]
    assert all(loud.tasks[name].items == task.items for name, task in quiet.tasks.items())


def test_a_server_that_stays_busy_is_asked_in_no_other_way() -> None:
    def busy(handler: Any, path: str, body: dict[str, Any]) -> bool:
        if path == "/v1/completions":
            handler.say(429, {"error": {"message": "piano"}}, Retry_After="0")
        return path == "/v1/completions"

    with (
        FakeServer(can=frozenset({"completions", "chat"}), fault=busy) as server,
        pytest.raises(StilnovoError, match=r"429[\s\S]*asked 9 times"),
    ):
        Run()(server, task(WRITING))


@pytest.mark.parametrize("finish", ["error", "abort", "cancelled"])
def test_an_answer_that_was_broken_off_is_none(finish: str) -> None:
    choices = {
        "choices": [
            {"text": "Rom", "finish_reason": finish, "message": {"content": "Rom"}, "logprobs": {"content": []}}
        ]
    }
    for read in (served_text, first_token):
        with pytest.raises(StilnovoError, match="broken off"):
            read(choices)
    with pytest.raises(StilnovoError, match="broken off"):
        served_text({"choices": [{"error": {"code": 502}, "message": {"content": ""}}]})


def test_thinking_that_is_only_counted() -> None:
    usage = {"completion_tokens_details": {"reasoning_tokens": 8}}
    cut = served_text({"choices": [{"message": {"content": ""}, "finish_reason": "length"}], "usage": usage})
    assert (cut.thinks, cut.unfinished) == (True, True)
    done = served_text({"choices": [{"message": {"content": "Roma"}, "finish_reason": "stop"}], "usage": usage})
    assert (done.text, done.thinks, done.unfinished) == ("Roma", True, False)


def test_an_echo_of_less_than_the_prompt_is_none() -> None:
    reply = {
        "choices": [{"text": "fine C", "logprobs": {"token_logprobs": [None, -1.0, -2.0]}}],
        "usage": {"prompt_tokens": 2},
    }
    assert echoed(reply, None, "fine") == [0.0, -1.0]
    assert echoed(reply, None, "un lungo inizio, e la fine") is None


@pytest.mark.parametrize("log", [-(10**400), float("-inf"), float("nan"), 10**400, True, "x", [], {}])
def test_numbers_that_are_none_end_by_name(log: Any) -> None:
    with FakeServer(FakeModel(), WAYS["step"]) as server:
        before = server.step
        server.step = lambda body: (  # type: ignore[method-assign]
            {"completion_probabilities": [{"id": body["logit_bias"][0][0], "logprob": log}]}
            if len(body["prompt"]) < 12 else before(body)
        )  # fmt: skip
        with pytest.raises(StilnovoError, match="of task prova"):
            Run()(server, task(ENDINGS))


@pytest.mark.parametrize("text", ["mezza \ud83d", "\udc00", "nulla \x00 qui", "intera \U0001f600", "\u202e" * 3])
def test_half_characters_are_kept_as_files_can_hold_them(text: str, tmp_path: Path) -> None:
    with FakeServer(can=frozenset({"chat"}), said=lambda *_: {"content": text}) as server:
        result = Run(tmp_path)(server, task([replace(item, decoding=Decoding(12)) for item in WRITING]))
    written = load_result(result.save(tmp_path / "run")).tasks["prova"].items[0].text
    assert written == text.encode("utf-8", "replace").decode()
    evaluation_page(result).encode()


def test_json_without_an_end_is_none() -> None:
    deep = b"[" * 200_000
    with (
        FakeServer(can=TEXTS_ONLY, fault=lambda handler, path, body: handler.say(200, deep) or True) as server,
        pytest.raises(StilnovoError, match="cannot be asked"),
    ):
        Run()(server, task(WRITING))


def test_odd_lists_of_models_and_waits() -> None:
    class Odd(FakeServer):
        def about(self, path: str) -> Any:
            names = [{"id": "a", "aliases": 5}, {"id": "a", "aliases": "bc"}, {"aliases": ["x"]}, 7, None]
            return {"data": names} if path == "/v1/models" else None

    with Odd(can=TEXTS_ONLY) as server:
        assert Run()(server, task(WRITING)).model == "a"
    assert [named_wait(text) for text in ("", "presto", "nan", "inf", "Mon, 99 Jan 99999 00:00:00 GMT")] == [None] * 5
    assert (named_wait("-3"), named_wait("Thu, 01 Jan 1970 00:00:00 GMT")) == (0, 0)


def test_a_prompt_that_the_server_cut_is_said() -> None:
    long = [replace(item, context="La casa è grande. " * 400 + item.context) for item in WRITING]

    class Cutting(FakeServer):
        def answer(self, path: str, body: dict[str, Any]) -> Any:
            found = super().answer(path, body)
            return {**found, "usage": {"prompt_tokens": 900}} if found and len(str(body)) > 5000 else found

    with Cutting(can=frozenset({"chat"})) as server:
        result = Run()(server, task(long))
    assert {item.remark for item in result.tasks["prova"].items} == {"shortened"}
    assert "probably cut the prompt" in "\n".join(map(str, evaluation_text(result)))


def test_letters_and_endings_do_not_depend_on_how_many_are_asked_at_once() -> None:
    for can in (WAYS["echo of ids"], WAYS["step"], IDS | {"top"}):
        with FakeServer(FakeModel(letters=12.0), can) as server:
            one, many = (Run()(server, task(LETTERS), task(WRITING, "scritti"), concurrency=count) for count in (1, 64))
        assert all(many.tasks[name].items == part.items for name, part in one.tasks.items())
