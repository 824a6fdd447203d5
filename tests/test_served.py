"""A model behind a server is scored as one of our own, or not at all; against a fake server with all abilities and faults."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from fake_openai import EOT, FakeModel, FakeServer
from stilnovo import remote
from stilnovo.benchmarks.chat_form import ChatForm, choices
from stilnovo.benchmarks.items import Decoding, FewShot, Generation, Item, MultipleChoice, item_sha256
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.protocol import REPORT2024, STILNOVO
from stilnovo.benchmarks.task import Selection, Task
from stilnovo.cli.main import app
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError, NonFiniteScore, StilnovoError
from stilnovo.report.evaluation import evaluation_page, evaluation_text
from stilnovo.scoring.answer_cache import AnswerCache
from stilnovo.scoring.perplexity import HeldOutTexts
from stilnovo.scoring.result import EvaluationResult, load_result
from stilnovo.scoring.served import Served, evaluate_served
from stilnovo.scoring.server_answers import at_once
from stilnovo.scoring.server_probe import TEXT
from stilnovo.scoring.server_reply import first_token, served_text

COMPLETIONS = "/v1/completions"
LETTERS = [MultipleChoice(f"l{n}", f"Quale?\nRisposta {n}:", (" A", " B", " C", " D"), n % 4) for n in range(6)]
ENDINGS = [
    MultipleChoice("lungo", "La citta di", (" Roma e bella", " Pisa"), 0),
    MultipleChoice("spazio", "La citta di ", ("Roma", "la Spezia"), 1),
    MultipleChoice("unito", "Scegli", (":A", ":B"), 1),  # `:A` is one token
    MultipleChoice("fuso", "Ris", ("posta: la", "ma"), 0),  # `Risposta:` swallows the context
    MultipleChoice("due", "", ("Il cane", "Il gatto"), 1, contexts=("Uno ", "Tre ")),
]
WRITING = [
    Generation(f"w{n}", f"Scrivi {n}:", ("x",), Decoding(max_tokens=12, stop=("q", "\n", "z", "ù", "ò")))
    for n in range(4)
]
TEXTS = [f"Documento {n}: la casa." + " Passa il tempo." * (n % 5) for n in range(8)]
IDS = frozenset({"completions", "chat", "tokenize"})
WAYS = {
    "echo of ids": IDS | {"echo", "top"},
    "echo of text": frozenset({"completions", "echo", "top"}),
    "new form": IDS | {"echo", "top", "new"},
    "prompt_logprobs": IDS | {"prompt_logprobs", "top"},
    "step": IDS | {"step"},
    "step by halves": IDS | {"step", "half"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.002)


def task(items: list[Item], name: str = "prova") -> Selection:
    graded = Task(
        name, "1.0", "qui", "libera", ("acc",), ("test",), lambda request: items,
        grade=lambda text, item: {"acc": float(len(text) > 3)},
    )  # fmt: skip
    return Selection(graded, "test", tuple(items), len(items), 42)


PLAIN = Prompting()


class Run:
    """Evaluations with one cache and what they noted."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.notes = folder, list[str]()

    def __call__(
        self, server: FakeServer, *parts: Selection, texts: list[str] | None = None, context: int | None = None,
        model: str | None = None, concurrency: int = 3, how: Prompting = PLAIN,
    ) -> EvaluationResult:  # fmt: skip
        documents = HeldOutTexts(texts or (), map(str, range(len(texts or ()))))
        settings = {"text": ["testi"] if texts else []}
        served = Served(server.url, model, context, concurrency)
        with AnswerCache(self.folder, self.notes.append) as answers:
            return evaluate_served(
                served, STILNOVO, how, parts, documents, settings, answers, self.notes.append, lambda *_: None
            )


def expected(model: FakeModel, context: str, ending: str, *, ids: bool = True) -> float:
    """The log-likelihood of an ending by the harness' rule, straight from the table."""
    opening = [] if model.opens or context.rstrip() else [EOT]
    stem, whole = (opening + model.prompt(text) for text in (context.rstrip(), context + ending))
    return sum(model.logs(whole)[min(len(stem), len(whole) - 1) - 1 :])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("opens", [False, True])
def test_endings_have_their_own_sums(way: str, opens: bool) -> None:
    model = FakeModel(opens=opens)
    with FakeServer(model, WAYS[way]) as server:
        result = Run()(server, task([*ENDINGS, *LETTERS]))
    for item, score in zip([*ENDINGS, *LETTERS], result.tasks["prova"].items, strict=True):
        sums = [expected(model, *pair) for pair in item.pairs]
        assert score.loglikelihoods == pytest.approx(sums, abs=1e-9), item.id
        assert score.choice == item.choice(sums)
    assert result.tasks["prova"].hashes == tuple(map(item_sha256, [*ENDINGS, *LETTERS]))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "echo of text"])
def test_texts_are_read_in_our_windows(way: str) -> None:
    model = FakeModel()
    with FakeServer(model, WAYS[way], context=60) as server:
        result = Run()(server, texts=TEXTS)
    assert result.text is not None
    assert (result.text.window, result.text.stride) == (58, 29)
    for text, nats, tokens in zip(TEXTS, result.text.nats, result.text.tokens, strict=True):
        own = [EOT, *model.encode(text)]
        assert tokens == len(own) - 1
        assert nats == pytest.approx(-sum(model.logs(own)), abs=1e-9)  # the table looks three tokens back


def test_what_opens_a_question_or_a_text_is_not_guessed() -> None:
    empty = MultipleChoice("vuoto", "", ("Il cane", "Un cane"), 0)
    with FakeServer(FakeModel(), WAYS["echo of ids"]) as server:
        sums = Run()(server, task([empty])).tasks["prova"].items[0].loglikelihoods
    assert sums == pytest.approx([expected(FakeModel(), "", ending) for ending in empty.endings])
    with FakeServer(FakeModel(), WAYS["echo of text"]) as server:
        with pytest.raises(InputError, match="begins with its endings"):
            Run()(server, task([empty]))
        with pytest.raises(InputError, match="/tokenize"):
            Run()(server, texts=TEXTS)


def test_long_questions_are_cut_on_the_left_and_long_endings_read_in_windows() -> None:
    model = FakeModel()
    items: list[Item] = [
        MultipleChoice("lungo", "parola " * 20 + "fine", (" si", " no"), 0),
        MultipleChoice("finale", "Uno", (" due", " tre" * 40), 0),
    ]
    with FakeServer(model, WAYS["echo of ids"], context=62) as server:
        scores = Run()(server, task(items)).tasks["prova"].items
    assert [score.truncated for score in scores] == [True, True]
    for item, score in zip(items, scores, strict=True):
        assert isinstance(item, MultipleChoice)
        assert score.loglikelihoods == pytest.approx([expected(model, *pair) for pair in item.pairs])
    asked = [body["prompt"] for path, body, _ in server.asked if path == COMPLETIONS]
    own = [ids for ids in asked if not isinstance(ids, str) and ids[:9] != model.encode(TEXT)[:9]]
    assert max(map(len, own)) == 61, "room is left for the token that a server must write"


@pytest.mark.parametrize("can", [{"completions", "top"}, {"completions", "top", "new"}, {"chat", "chat_top"}])
def test_letters_by_the_likeliest_tokens(can: set[str]) -> None:
    model = FakeModel(letters=12.0)
    with FakeServer(model, frozenset(can)) as server:
        run = Run()
        result = run(server, task(LETTERS), task(ENDINGS, "finali"), task(WRITING, "scritti"))
    assert set(result.tasks) == {"prova", "scritti"}
    about = result.settings["server"]
    assert "whole endings" in about["not_scored"]["finali"]
    assert any(line.startswith("Not scored: finali") for line in run.notes)
    chat = "chat" in can
    assert ("chat answer" in about["methods"]["prova"]) == ("server's template" in about["methods"]["scritti"]) == chat
    for item, score in zip(LETTERS, result.tasks["prova"].items, strict=True):
        tokens = model.encode(item.context + "\n" * chat)
        spelled = [[ending.strip(), ending] if chat else [ending] for ending in item.endings]
        sums = [max(model.next(tokens)[model.ids[word]] for word in words) for words in spelled]
        assert score.loglikelihoods == pytest.approx(sums)


def test_a_letter_that_is_not_told_is_a_bound_and_no_letter_is_no_score() -> None:
    model = FakeModel(letters=3.0)
    items = [
        replace(item, id=f"{item.id}/{n}", context=f"{item.context[:-1]}{n}:") for n in range(20) for item in LETTERS
    ]
    tops = [sorted(model.next(model.encode(item.context)), reverse=True)[:5] for item in items]
    places = [model.ids[letter] for letter in LETTERS[0].endings]
    shown = [
        sum(model.next(model.encode(item.context))[place] >= top[-1] for place in places)
        for item, top in zip(items, tops, strict=True)
    ]
    some = [item for item, count in zip(items, shown, strict=True) if 2 <= count < 4]
    none = [item for item, count in zip(items, shown, strict=True) if count == 0]
    assert some
    with FakeServer(model, frozenset({"completions", "top"}), top=5) as server:
        result = Run()(server, task(some))
        for item, score in zip(some, result.tasks["prova"].items, strict=True):
            full = [model.next(model.encode(item.context))[place] for place in places]
            assert score.choice == full.index(max(full)), "the choice is that of all the numbers"
            assert score.remark == "bounded"
            assert all(told >= log - 1e-9 for told, log in zip(score.loglikelihoods, full, strict=True))
        assert f"{len(some)} item" in "\n".join(map(str, evaluation_text(result)))
        if none:
            with pytest.raises(InputError, match="none of its letters"):
                Run()(server, task(none[:1]))


@pytest.mark.parametrize("can", [{"completions"}, {"completions", "tokenize"}, {"chat"}])
def test_written_answers(can: set[str]) -> None:
    model = FakeModel(letters=0)
    with FakeServer(model, frozenset(can)) as server:
        result = Run()(server, task(WRITING))
    for item, score in zip(WRITING, result.tasks["prova"].items, strict=True):
        text = model.text(model.greedy(model.encode(item.context + "\n" * ("chat" in can)), 12))
        for stop in item.decoding.stop:
            text = text.split(stop)[0]
        assert score.text == text
    sent = [body for _, body, _ in server.asked if body.get("stop")]
    assert all(len(body["stop"]) == 4 for body in sent), "OpenAI takes four; the fifth is cut here"
    assert len({body["seed"] for body in sent}) == len(WRITING)


def test_thinking_is_no_part_of_an_answer() -> None:
    def said(prompt: str, text: str) -> dict[str, Any]:
        return {
            "Scrivi 0:": {"content": "<think>Roma\no Pisa?</think>\n\nUna città"},
            "Scrivi 1:": {"content": "Firenze", "reasoning_content": "hm"},
            "Scrivi 2:": {"content": "<think>ancora"},
        }.get(prompt, {"content": None, "reasoning": "mai finito"})

    with FakeServer(FakeModel(), frozenset({"chat"}), said=said) as server:
        result = Run()(server, task([replace(item, decoding=Decoding(12, ("\n",))) for item in WRITING]))
    scores = result.tasks["prova"].items
    assert [score.text for score in scores] == ["Una città", "Firenze", "", ""]
    assert [score.remark for score in scores] == ["", "", "unfinished", "unfinished"]
    lines = "\n".join(map(str, evaluation_text(result)))
    assert "4,096 tokens more" in lines
    assert "2 items: the answer ended inside the model's thinking" in lines
    asked = [body for path, body, _ in server.asked if body.get("seed")]
    assert all("stop" not in body and body["max_tokens"] == 12 + 4096 for body in asked)


def test_replies_of_all_shapes() -> None:
    assert served_text({"choices": [{"text": "a</think>b", "finish_reason": "stop"}]}).text == "b"
    assert served_text({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}).text == ""
    for bad in ({}, {"choices": []}, {"choices": [3]}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]}):
        with pytest.raises(StilnovoError, match="cannot be used"):
            served_text(bad)
    old = {"choices": [{"logprobs": {"top_logprobs": [{"\u2581A": -1.0, "B": -9999.0}]}}]}
    assert first_token(old) == {" A": -1.0}
    with pytest.raises(StilnovoError, match="no log-probability"):
        first_token({"choices": [{"logprobs": {"top_logprobs": [{"A": 0.7}]}}]})


def failing(
    *faults: Callable[[Any], None], after: int = 0, on: str = COMPLETIONS
) -> Callable[[Any, str, dict[str, Any]], bool]:
    """Answer the requests of scored items with these faults, one after another, then well."""
    left, seen, lock = list(faults), [0], threading.Lock()

    def fault(handler: Any, path: str, body: dict[str, Any]) -> bool:
        with lock:
            if path != on or not body.get("seed") or not left:
                return False
            seen[0] += 1
            if seen[0] <= after:
                return False
            now = left.pop(0)
        now(handler)
        return True

    return fault


def cut(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.close()


def half(handler: Any) -> None:
    handler.say(200, b'{"choices": [{"text": "Un pez')


@pytest.mark.parametrize(
    "fault",
    [lambda h: h.say(429, {"error": {"message": "piano"}}, Retry_After="0"), lambda h: h.say(503, b"no"), lambda h: h.say(500, b"<html>"),
     cut, half, lambda h: h.say(200, b"[1]")],
    ids=["429", "503", "500", "cut", "half", "list"],
)  # fmt: skip
def test_what_may_pass_is_asked_again(fault: Any, tmp_path: Path) -> None:
    with FakeServer(FakeModel(), frozenset({"completions"}), fault=failing(fault, fault)) as server:
        spoiled = Run()(server, task(WRITING))
    with FakeServer(FakeModel(), frozenset({"completions"})) as server:
        assert Run()(server, task(WRITING)).tasks["prova"].items == spoiled.tasks["prova"].items


def test_a_named_wait_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(
        threading.Event, "wait", lambda self, seconds=None: waits.append(seconds) or False if seconds else False
    )
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    faults = [
        lambda h: h.say(429, b"{}", Retry_After="7"),
        lambda h: h.say(503, b"{}", Retry_After=later),
        lambda h: h.say(500, b"{}"),
    ]
    with FakeServer(FakeModel(), frozenset({"completions"}), fault=failing(*faults)) as server:
        Run()(server, task(WRITING[:1]))
    assert waits[0] == 7 and 25 < waits[1] <= 30 and waits[2] == pytest.approx(0.002 * 4)


def test_a_silent_server_is_given_up_by_the_items_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REPLY_SILENCE", 0.05)
    monkeypatch.setattr(remote.ServerConnection.reply, "__defaults__", (1,))

    def silent(handler: Any, path: str, body: dict[str, Any]) -> bool:
        if body.get("seed"):
            time.sleep(0.2)
        return False

    with (
        FakeServer(FakeModel(), frozenset({"completions"}), fault=silent) as server,
        pytest.raises(
            StilnovoError, match=r"did not answer item w0 of task prova.\nThe model server has sent nothing for 0.05 s"
        ),
    ):
        Run()(server, task(WRITING[:1]), concurrency=1)


def test_answers_outlive_a_failure(tmp_path: Path) -> None:
    refused = [lambda h: h.say(400, {"error": {"message": "troppo lungo"}})]
    with FakeServer(FakeModel(), frozenset({"completions"}), fault=failing(*refused, after=2)) as server:
        run = Run(tmp_path)
        with pytest.raises(StilnovoError, match="item w2 of task prova") as error:
            run(server, task(WRITING), concurrency=1)
        assert error.value.exit_code == 1 and "troppo lungo" in error.value.found
        before = len(server.asked)
        result = run(server, task(WRITING), concurrency=1)
        assert result.tasks["prova"].cached == 2
        again = [body["prompt"] for _, body, _ in server.asked[before:] if body.get("seed")]
        assert again == [WRITING[2].context, WRITING[3].context]
        other = FakeServer(server.model, server.can)
        with other:  # another address, the same model
            assert run(other, task(WRITING)).tasks["prova"].cached == 4


def test_an_interruption_keeps_what_came(tmp_path: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    selection, settings = task(WRITING), {"text": []}
    with FakeServer(can=frozenset({"completions"})) as server:
        served, answers = Served(server.url, concurrency=1), AnswerCache(tmp_path, print)
        with answers, pytest.raises(KeyboardInterrupt):
            evaluate_served(served, STILNOVO, PLAIN, [selection], HeldOutTexts((), ()), settings, answers, print, stop)
        assert Run(tmp_path)(server, selection).tasks["prova"].cached == 2


def test_rounding_is_no_other_model(tmp_path: Path) -> None:
    rng, lock = random.Random(1), threading.Lock()

    def rounded(logs: list[Any]) -> list[Any]:
        with lock:
            return [log if log is None else min(0.0, log + rng.gauss(0, 0.01)) for log in logs]

    run = Run(tmp_path)
    with FakeServer(FakeModel(), WAYS["echo of ids"], spoil=rounded) as server:
        run(server, task(ENDINGS))
        assert run(server, task(ENDINGS)).tasks["prova"].cached == len(ENDINGS)


def test_another_model_behind_the_name_is_noticed(tmp_path: Path) -> None:
    can = WAYS["echo of ids"]
    run = Run(tmp_path)
    with FakeServer(FakeModel(0), can) as server:
        first = run(server, task(ENDINGS))
        assert run(server, task(ENDINGS)).tasks["prova"].cached == len(ENDINGS)
        server.model = FakeModel(1)
        run.notes.clear()
        other = run(server, task(ENDINGS))
        assert other.tasks["prova"].cached == 0
        assert any("Another model answers as piccolo" in line for line in run.notes)
        assert other.tasks["prova"].items != first.tasks["prova"].items
        server.model = FakeModel(0)
        assert run(server, task(ENDINGS)).tasks["prova"].cached == len(ENDINGS), (
            "the first one's answers are still its own"
        )


def test_a_model_that_changes_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with FakeServer(FakeModel(0), WAYS["echo of ids"]) as server:

        def swap(handler: Any, path: str, body: dict[str, Any]) -> bool:
            if body.get("prompt") and server.model.salt == 0 and len(server.asked) > 90:
                server.model = FakeModel(2)
            return False

        server.fault = swap
        with pytest.raises(StilnovoError, match="changed during the evaluation"):
            run(server, task(ENDINGS * 1 + [replace(item, id=f"{item.id}/{n}") for n in range(20) for item in LETTERS]))
        server.model, server.fault = FakeModel(0), lambda *_: False
        assert run(server, task(ENDINGS)).tasks["prova"].cached == 0


def test_a_reply_of_another_model_is_refused() -> None:
    def other(handler: Any, path: str, body: dict[str, Any]) -> bool:
        if body.get("seed"):
            handler.say(200, {"model": "altro", "choices": [{"text": "ciao"}]})
        return bool(body.get("seed"))

    told = "First piccolo, now altro"
    with FakeServer(can=frozenset({"completions"}), fault=other) as server, pytest.raises(StilnovoError, match=told):
        Run()(server, task(WRITING))


@pytest.mark.parametrize("number", [None, math.nan, -math.inf])
@pytest.mark.parametrize("way", ["echo of ids", "prompt_logprobs"])
def test_what_is_no_number_is_refused_by_name(number: Any, way: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    with FakeServer(FakeModel(), WAYS[way]) as server:
        server.spoil = lambda logs: logs if len(logs) > 40 or len(logs) < 20 else [*logs[:-2], number, logs[-1]]
        bad = MultipleChoice("guasto", "Una domanda un po' lunga:", (" si", " no"), 0)
        with pytest.raises(NonFiniteScore, match="item guasto of task prova gave"):
            run(server, task([*LETTERS[:1], bad]), concurrency=1)
        server.spoil = lambda logs: logs
        assert run(server, task([*LETTERS[:1], bad])).tasks["prova"].cached == 0


@pytest.mark.parametrize(
    "spoil",
    [lambda logs: [logs[0], *logs[2:], logs[-1]], lambda logs: [logs[0], *(0.0 for _ in logs[1:])], lambda logs: logs[:-3],
     lambda logs: [logs[0], *(log / 2 if log is not None else log for log in logs[1:])],
     lambda logs: [logs[0], *(5.0 for _ in logs[1:])], lambda logs: [logs[0], *(log * len(logs) / 50 for log in logs[1:])]],
    ids=["shifted", "zeros", "cut", "halved", "positive", "by length"],
)  # fmt: skip
def test_log_probabilities_that_do_not_hold_together_are_not_used(spoil: Any) -> None:
    with FakeServer(
        FakeModel(), IDS | {"echo", "top"}, spoil=lambda logs: spoil(logs) if logs and logs[0] is None else logs
    ) as server:
        with pytest.raises(InputError, match=r"can score nothing[\s\S]*echo"):
            Run()(server, task(ENDINGS))
        assert Run()(server, task(LETTERS)).settings["server"]["methods"]["prova"].startswith("letters among the 20")


def test_a_template_around_plain_prompts_is_noticed() -> None:
    with FakeServer(can=frozenset({"completions", "chat", "templated"})) as server:
        assert "under the server's template" in Run()(server, task(WRITING)).settings["server"]["methods"]["prova"]
    with (
        FakeServer(can=frozenset({"completions", "templated"})) as server,
        pytest.raises(StilnovoError, match="as 21 tokens"),
    ):
        Run()(server, task(WRITING))


def test_names_of_models() -> None:
    with FakeServer(names=("a", "b:latest")) as server:
        with pytest.raises(InputError, match=r"It lists 2: a, b:latest.\nAdd --model NAME"):
            Run()(server, task(WRITING))
        with pytest.raises(InputError, match="no model 'c'"):
            Run()(server, task(WRITING), model="c")
        assert Run()(server, task(WRITING), model="b").model == "b:latest"
    with FakeServer(names=()) as server:
        assert Run()(server, task(WRITING), model="c").model == "c"


def test_a_server_that_is_none_is_told(tmp_path: Path) -> None:
    with FakeServer(can=frozenset()) as server, pytest.raises(StilnovoError, match="cannot be asked"):
        Run()(server, task(WRITING))
    with pytest.raises(StilnovoError, match="No model server answers"):
        Run()(server, task(WRITING))
    with pytest.raises(InputError, match="--protocol report2024 cannot be kept"):
        evaluate_served(Served(server.url), REPORT2024, Prompting(), [], HeldOutTexts((), ()), {}, None, print, print)  # type: ignore[arg-type]


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(remote.KEY_VARIABLE, "segretissimo")
    with FakeServer() as server:
        run = Run(tmp_path)
        result = run(server, task(WRITING))
        assert {key for _, _, key in server.asked} == {"Bearer segretissimo"}
        path = result.save(tmp_path / "run")
        assert load_result(path).settings["server"]["url"] == server.url
        server.fault = lambda handler, path, body: (
            handler.say(401, {"error": {"message": "bad key segretissimo"}}) or True
        )
        with pytest.raises(StilnovoError, match=remote.KEY_VARIABLE) as error:
            run(server, task(WRITING))
    shown = path.read_text() + evaluation_page(result) + str(error.value) + "".join(run.notes)
    assert "segretissimo" not in shown and b"segretissimo" not in b"".join(
        file.read_bytes() for file in tmp_path.glob("*.sqlite*")
    )


def test_a_served_run_pairs_with_another_and_has_its_page() -> None:
    with FakeServer(FakeModel(), WAYS["step"]) as server:
        before = Run()(server, task(ENDINGS), task(LETTERS, "lettere"), texts=TEXTS)
    with FakeServer(FakeModel(3), WAYS["echo of ids"]) as server:
        after = Run()(server, task(ENDINGS), texts=TEXTS)
    comparison = compare(before, after)
    assert set(comparison.verdicts) == {"prova", "bits_per_byte"}
    page = evaluation_page(before)
    assert "How the server was asked" in page and "log-likelihoods of the endings (step)" in page


def test_repeats_and_drawn_answers(tmp_path: Path) -> None:
    drawn = [replace(item, decoding=Decoding(6, temperature=0.7, top_p=0.9)) for item in WRITING]
    with FakeServer(can=frozenset({"completions"})) as server:
        Run()(server, replace(task(drawn), repeats=2))
    seeds = [body["seed"] for _, body, _ in server.asked if body.get("temperature") == 0.7]
    assert len(seeds) == len(set(seeds)) == 8
    assert all(body["top_p"] == 0.9 for _, body, _ in server.asked if body.get("temperature") == 0.7)


def test_a_chat_template_is_the_servers(tmp_path: Path) -> None:
    shots = FewShot("Sii breve.\n", (("Due?", "B"),))
    items = [replace(item, context=shots.text + item.context, header=shots.text, few_shot=shots) for item in LETTERS]
    how = Prompting(chat_template=True, chat=ChatForm("Sei un esame.", False))
    with FakeServer(FakeModel(letters=12.0), frozenset({"completions", "chat", "top", "chat_top"})) as server:
        result = Run(tmp_path)(server, task(items), task(WRITING, "scritti"), how=how)
        assert "chat answer" in result.settings["server"]["methods"]["prova"]
        assert "under the server's template" in result.settings["server"]["methods"]["scritti"]
        assert "sha256 not told), system prompt" in evaluation_page(result)
        asked = [body["messages"] for path, body, _ in server.asked if path == "/v1/chat/completions"]
        assert [
            ("system", "Sei un esame.\n\nSii breve.\n"), ("user", "Due?"), ("assistant", "B"), ("user", LETTERS[0].context),
        ] in [[(turn["role"], turn["content"]) for turn in turns] for turns in asked]  # fmt: skip
        assert Run(tmp_path)(server, task(items)).tasks["prova"].cached == 0, "the plain prompt is another question"
    told = "cannot be asked under a chat template"
    with FakeServer(can=frozenset({"completions", "echo"})) as server, pytest.raises(InputError, match=told):
        Run()(server, task(items), how=how)


def test_endings_after_llama_cpps_template() -> None:
    model = FakeModel()
    with FakeServer(model, WAYS["step"]) as server:
        result = Run()(server, task(ENDINGS), how=Prompting(chat_template=True))
    assert "after the server's template" in result.settings["server"]["methods"]["prova"]
    for item, score in zip(ENDINGS, result.tasks["prova"].items, strict=True):
        sums = []
        for (context, _), ending in zip(item.pairs, choices(item), strict=True):
            rendered = f"user: {context}\nassistant:"
            whole, stem = model.encode(rendered + ending), model.encode(rendered)
            sums.append(sum(model.logs(whole)[min(len(stem), len(whole) - 1) - 1 :]))
        assert score.loglikelihoods == pytest.approx(sums)


def test_work_is_done_at_once_and_an_error_waits_for_what_was_begun() -> None:
    most, now, lock = [0], [0], threading.Lock()

    def work(number: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        if number == 5:
            raise StilnovoError("cinque")
        return number * number

    assert Counter(dict(at_once(work, [0, 1, 2, 3], 4))) == Counter({0: 0, 1: 1, 2: 4, 3: 9})
    done: dict[int, int] = {}
    with pytest.raises(StilnovoError, match="cinque"):
        done.update(at_once(work, list(range(100)), 3))
    assert most[0] > 1 and {0, 1, 2} <= set(done) and 5 not in done and len(done) < 12


def test_the_command(tmp_path: Path) -> None:
    with FakeServer(FakeModel(), WAYS["step"]) as server:
        base = ["evaluate", "--server", server.url, "--limit", "8", "--cache", str(tmp_path), "--json"]
        done = CliRunner().invoke(
            app, [*base, "--tasks", "sample_questions", "--out", str(tmp_path / "run")], catch_exceptions=False
        )
        assert done.exit_code == 0
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["model"] == "piccolo" and told["server"]["program"] == "llama.cpp"
        assert load_result(tmp_path / "run").tasks["sample_questions"].n == 8
        for option, value in (("--adapter", "x"), ("--quantization", "nf4"), ("--device", "cpu")):
            with pytest.raises(InputError, match=f"{option} makes no sense with --server"):
                CliRunner().invoke(app, [*base, option, value], catch_exceptions=False)
    with pytest.raises(InputError, match="need a server"):
        CliRunner().invoke(app, ["evaluate", "--concurrency", "3"], catch_exceptions=False)


@pytest.mark.slow
def test_a_real_llama_cpp_gives_our_numbers(
    smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    from llama_server import LlamaServer
    from stilnovo import api
    from stilnovo.export.gguf_model import export_gguf
    from stilnovo.spec import ModelSpec

    spec = ModelSpec("smollm2", quantization="none", device="cpu")
    rows = [
        {"text": text} for text in ("La città è bella.", "Perché no? Così è.", "Nel mezzo del cammin di nostra vita.")
    ]
    (tmp_path / "testi.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "scrivi.yaml").write_text(
        "file: testi.jsonl\nprompt: 'Continua: {{text}}'\ntarget: text\nmax_tokens: 8\n", encoding="utf-8"
    )
    tasks, text = ["sample_questions", str(tmp_path / "scrivi.yaml")], tmp_path / "testi.jsonl"
    file = tmp_path / "f32" / export_gguf(spec, tmp_path / "f32", type_name="f32").file
    for how in ({}, {"chat_template": True}):
        asked: dict[str, Any] = {"draw": api.Draw(5), "prompting": how, "use_cache": False}
        own = api.evaluate_model(spec, tasks, text, **asked)
        with LlamaServer(file, context=2304) as server:
            served = api.evaluate_model(api.Served(server.url), tasks, text, **asked)
        assert set(served.tasks) == set(own.tasks)
        for name, task in own.tasks.items():
            there = served.tasks[name]
            assert there.hashes == task.hashes
            for ours, theirs in zip(task.items, there.items, strict=True):
                assert (theirs.choice, theirs.choice_norm, theirs.text) == (ours.choice, ours.choice_norm, ours.text)
                assert theirs.loglikelihoods == pytest.approx(ours.loglikelihoods, abs=0.02)
        assert own.text is not None and served.text is not None
        assert served.text.tokens == own.text.tokens
        assert served.text.nats == pytest.approx(own.text.nats, abs=0.02)
