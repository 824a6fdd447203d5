"""What a sweep measures, that it takes no answer for another's, and what it says of gains and losses."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stilnovo.benchmarks.task import Draw, select
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.data.conversations import Conversation
from stilnovo.errors import InputError
from stilnovo.forgetting.form import AnswerForm, Prompt, choose_prompts, form_of, leaks, loops, write_answers
from stilnovo.forgetting.scales import Probes, ScaleAnswers, Sweep, SweepCandidate, identity_under, measure, run_sweep
from stilnovo.forgetting.tradeoff import ALL_TASKS, CHAT, FORM, front, weigh
from stilnovo.generate.generator import Completion, Generator, Sampling
from stilnovo.model import lora
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.model.scaling import Scaling, parse
from stilnovo.plan.shape import LoraConfig
from stilnovo.scoring.answer_cache import AnswerCache, ModelCache
from stilnovo.scoring.chat_answers import answer_bytes, choose_conversations, fitting, score_conversations
from stilnovo.scoring.identity import Identity, adapter_sha256
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.reading import ReadOptions
from stilnovo.spec import ModelSpec
from stilnovo.text.language import language
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_pages import QUESTIONS, RIGHT, answered, task

Opened = tuple[Llama, Tokenizer]
CONFIG = LoraConfig(r=2, alpha=4, projections=("q_proj", "down_proj"))
TALKS = [
    Conversation("1", (Message("user", "Chi sei?"), Message("assistant", "Un modello."))),
    Conversation(
        "2",
        (
            Message("system", "Sii breve."), Message("user", "Due più due?"), Message("assistant", "Quattro, è così."),
            Message("user", "E più uno?"), Message("assistant", "Cinque."),
        ),
    ),
    Conversation("3", (Message("user", "What is the sea?"), Message("assistant", "Salt water."))),
]  # fmt: skip
TEXTS = [f"Documento numero {number}, breve ma vero." for number in range(4)]


@pytest.fixture(scope="module")
def opened(tiny_folder: Path) -> Opened:
    return open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))


def write_adapter(model: Llama, folder: Path, seed: int = 1, config: LoraConfig = CONFIG) -> Path:
    """A random adapter on disk; the model is left as it was."""
    from stilnovo.model.lora import detach

    lora.attach(model, config, seed)
    torch.manual_seed(seed)
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.3)
    lora.save(model, config, folder, "tiny")
    detach(model)
    return folder


# Conversations


def test_only_the_assistants_tokens_count(opened: Opened) -> None:
    model, tokenizer = opened
    found = score_conversations(model, tokenizer, TALKS, options=ReadOptions(300))
    for talk, nats, count in zip(TALKS, found.nats, found.tokens, strict=True):
        ids, learnt = tokenizer.supervised(talk.messages)
        with torch.no_grad():
            logits = model(torch.tensor(ids), torch.arange(len(ids)), Blocks([len(ids)]))
        targets = torch.tensor([token if use else -100 for token, use in zip(ids, learnt, strict=True)])
        assert nats == pytest.approx(float(F.cross_entropy(logits[:-1], targets[1:], reduction="sum")), abs=1e-3)
        assert count == sum(learnt)
    # one token a byte here, and one more for the end of each turn
    assert found.sizes == tuple(answer_bytes(tokenizer, talk) for talk in TALKS) == (11, 25, 11)
    assert found.tokens == (12, 27, 12)


def test_conversations_are_chosen_by_seed_and_must_fit(opened: Opened, tmp_path: Path) -> None:
    rows = [f'{{"instruction": "Domanda {n}", "output": "Risposta {n}"}}' for n in range(20)]
    (tmp_path / "chat.jsonl").write_text("\n".join([*rows, '{"instruction": "x", "output": ""}']), encoding="utf-8")
    first, lines = choose_conversations(tmp_path / "chat.jsonl", Draw(5))
    assert (
        first
        == choose_conversations(tmp_path / "chat.jsonl", Draw(5))[0]
        != choose_conversations(tmp_path / "chat.jsonl", Draw(5, 1))[0]
    )
    assert len(first) == 5
    assert "1 left out, empty answer" in lines[0]
    lengths = [len(opened[1].supervised(talk.messages)[0]) for talk in TALKS]
    assert fitting(TALKS, opened[1], max(lengths)) == TALKS
    assert fitting(TALKS, opened[1], max(lengths) - 1) == [
        one for one, n in zip(TALKS, lengths, strict=True) if n < max(lengths)
    ]
    with pytest.raises(InputError, match="fits the model's context"):
        fitting(TALKS, opened[1], 20)


# Form


def test_loops_against_texts_that_are_made() -> None:
    draw = random.Random(0)
    distinct = list(range(100, 160))
    assert not loops(distinct)
    assert not loops([draw.randrange(1000) for _ in range(192)])
    for period in (1, 2, 7, 30):
        body = list(range(period))
        whole = distinct + body * max(3, -(-24 // period))
        assert loops(whole)
        assert not loops([*whole, 999, *range(2000, 2060)][: len(whole) + 60]) or period == 30
        assert not loops(distinct + body * 2), "twice is no loop"
    # lists that count on: never periodic, but nine tenths of it is the same
    counted = [token for number in range(30) for token in (1, 2, 3, 4, 5, 6, 7, 8, 9, 1000 + number)]
    assert loops(counted)
    assert not loops([1] * 23), "too little to tell"


def test_what_shows_of_a_template() -> None:
    for text in (
        "<|im_start|>",
        "a <|eot_id|> b",
        "Bene.\nuser\nE poi?",
        "### Instruction:\nfa",
        "Human: ciao",
        "\nASSISTANT",
    ):
        assert leaks(text), text
    for text in ("The user is asked.", "Un assistente: Marta", "# Titolo\n\nrisposta", "users\n", "a < b | c"):
        assert not leaks(text), text


def test_languages() -> None:
    assert language("Il Po è il fiume più lungo della penisola.") == "it"
    assert language("The Po is the longest river of the peninsula.") == "en"
    assert language("42") == language("") == ""


def test_form_of_answers(opened: Opened) -> None:
    tokenizer = opened[1]
    start = tokenizer.render([], generation=True)[0]  # the token that opens a turn
    prompt = Prompt("p", (Message("user", "Qual è il fiume che bagna la città?"),))

    def form(text: str, *, stopped: bool = True, extra: Sequence[int] = ()) -> AnswerForm:
        ids = (*tokenizer.encode(text), *extra)
        return form_of(tokenizer, prompt, Completion(text, len(ids), stopped, ids))

    good = form("È il Po.")
    assert (good.ended, good.clean, good.no_loop, good.language, good.kept) == (True,) * 5
    assert not form("È il Po.", stopped=False).ended
    assert not form(" ").ended, "an empty answer is none"
    assert not form("È il Po.", extra=[start]).clean
    assert not form("ah " * 30).no_loop
    assert not form("It is the river of the town.").language
    assert form("Po.").language, "where it cannot be told, nothing is held against it"
    assert not form("ah " * 30).kept


def test_prompts_are_half_from_the_chat(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_prompts(4, TALKS)
    assert chosen == choose_prompts(4, TALKS)
    assert [one.id.startswith("chat") for one in chosen] == [True, True, False, False]
    assert all(one.messages[-1].role == "user" for one in chosen)
    assert len(choose_prompts(4)) == 4
    engine = Generator(*opened)
    identity = Identity("weights", None, "none", "float32", "cpu")
    with AnswerCache(tmp_path, pytest.fail) as cache:
        first = write_answers(engine, chosen, max_new_tokens=12, cache=ModelCache(cache, identity))
        assert all(one.tokens <= 12 and one.ended <= (one.tokens < 12) for one in first)
        alone = engine.complete([chosen[3].messages], [replace(greedy(), max_new_tokens=12)])[0]
        assert (first[3].text, first[3].tokens) == (alone.text, alone.tokens)
        monkeypatch.setattr(Generator, "model", None)  # kept answers need none
        with pytest.raises(AttributeError):
            write_answers(engine, chosen, max_new_tokens=13, cache=ModelCache(cache, identity))


def greedy() -> Sampling:
    return Sampling(temperature=0)


# The sweep


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AnswerCache]:
    with AnswerCache(tmp_path / "cache", pytest.fail) as opened:
        yield opened


def probes(positions: bool = False) -> Probes:
    chosen = [select(TASKS["sample_questions"], draw=Draw(5))]
    return Probes(TEXTS, chosen, {"english": ["The sea is wide."] * 2}, TALKS, choose_prompts(2, TALKS), 6, positions)


BASE = Identity("weights", None, "none", "float32", "cpu")


def candidate(folder: Path, *scalings: str, name: str = "a") -> SweepCandidate:
    identity = replace(BASE, adapter_sha256=adapter_sha256(folder))
    return SweepCandidate(name, folder, identity, tuple(parse(text) for text in scalings))


def figures(measured: ScaleAnswers) -> list[object]:
    """Every number of a measurement, and no time."""
    answers = [item.loglikelihoods for one in measured.tasks.values() for item in one.items]
    english = measured.protected["english"].nats
    return [measured.held_out.nats, english, measured.chat and measured.chat.nats, answers, measured.answers]


def test_no_answer_is_taken_for_that_of_another_scaling(opened: Opened, cache: AnswerCache, tmp_path: Path) -> None:
    """The same cache for all of them, filled in two goes, against each measured alone without one."""
    model, tokenizer = opened
    folder = write_adapter(model, tmp_path / "adapter")
    empty = AnswerCache(None, pytest.fail)
    run_sweep(model, tokenizer, BASE, [candidate(folder, "0.5", "1")], probes(), cache)
    scalings = ("0", "0.5", "0.50001", "0.25:1", "1", "1.25")
    found = run_sweep(model, tokenizer, BASE, [candidate(folder, *scalings)], probes(), cache)
    assert [str(scaling) for _, scaling in found.points] == ["0.5", "0.50001", "0.25:1", "1", "1.25"], "0 is the base"
    seen = [figures(found.base)]
    for (name, scaling), measured in found.points.items():
        alone = run_sweep(model, tokenizer, BASE, [candidate(folder, str(scaling))], probes(), empty)
        assert figures(measured) == figures(alone.points[name, scaling])
        assert measured.held_out.nats not in [one[0] for one in seen]
        seen.append(figures(measured))
        kept = str(scaling) in ("0.5", "1")
        assert [one.cached for one in measured.tasks.values()] == [5 if kept else 0]
    other = write_adapter(model, tmp_path / "other", seed=2)
    fresh = run_sweep(model, tokenizer, BASE, [candidate(other, "0.5")], probes(), cache).points["a", parse("0.5")]
    assert figures(fresh) not in seen, "another adapter of the same name"
    assert fresh.tasks["sample_questions"].cached == 0
    assert not lora.adapters(model), "the base again"


def test_a_whole_adapter_shares_its_answers_with_an_evaluation() -> None:
    whole = replace(BASE, adapter_sha256="a", protocol={"opening": "model"})
    assert identity_under(whole, Scaling(1, 1)) == whole
    others = [identity_under(whole, parse(text)) for text in ("0.5", "0.25:1", "0.5:1", "0.5:0.25")]
    assert len({one.sha256() for one in (whole, *others)}) == 5
    assert others[0].protocol == {"opening": "model", "scaling": "0.5"}


def test_an_interrupted_sweep_goes_on(
    opened: Opened, cache: AnswerCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = opened
    folder = write_adapter(model, tmp_path / "adapter")
    chosen = [candidate(folder, "0.5", "1")]
    whole = run_sweep(model, tokenizer, BASE, chosen, probes(), AnswerCache(None, pytest.fail))
    calls: list[tuple[str, int, int]] = []

    def stop(what: str, done: int, total: int) -> None:
        calls.append((what, done, total))
        if what == "a 0.5: chat answers":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(model, tokenizer, BASE, chosen, probes(), cache, progress=stop)
    assert not lora.adapters(model)
    assert calls[-1] == ("a 0.5: chat answers", 16 + 5 + 4 + 2 + 3, 3 * 16)
    read = 0
    forward = Llama.hidden

    def counted(self: Llama, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        nonlocal read
        read += len(tokens)
        return forward(self, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Llama, "hidden", counted)
    again = run_sweep(model, tokenizer, BASE, chosen, probes(), cache)
    assert figures(again.base) == figures(whole.base)
    assert [figures(one) for one in again.points.values()] == [figures(one) for one in whole.points.values()]
    first, read = read, 0
    run_sweep(model, tokenizer, BASE, chosen, probes(), AnswerCache(None, pytest.fail))
    assert 0 < first < 0.6 * read
    read = 0
    run_sweep(model, tokenizer, BASE, chosen, probes(), cache)
    assert read == 0, "all of it is kept"


def test_positions_are_read_whole(opened: Opened, cache: AnswerCache, tmp_path: Path) -> None:
    model, tokenizer = opened
    folder = write_adapter(model, tmp_path / "adapter")
    found = run_sweep(model, tokenizer, BASE, [candidate(folder, "0.5", "1")], probes(positions=True), cache)
    assert found.base.positions is not None
    assert [one.positions is not None for one in found.points.values()] == [False, True]


def test_a_model_is_measured_as_it_is(opened: Opened, cache: AnswerCache) -> None:
    model, tokenizer = opened
    calls: list[tuple[str, int]] = []
    measure(model, tokenizer, probes(), ModelCache(cache, BASE), progress=lambda *call: calls.append(call))
    assert calls[-1] == ("form of answers", 16) == (calls[-1][0], probes().items)
    assert [done for _, done in calls] == sorted(done for _, done in calls)


# What it means


def text(nats: Sequence[float]) -> HeldOutScore:
    return HeldOutScore(tuple(nats), (100,) * len(nats), (30,) * len(nats), "same", 64, 32)


def answers(*kept: bool) -> tuple[AnswerForm, ...]:
    return tuple(AnswerForm(str(n), "testo", 5, one, True, True, True) for n, one in enumerate(kept))


DRAW = random.Random(3)
COSTS = [DRAW.uniform(60, 90) for _ in range(40)]
NAMES = ("prova", "altra")


def measured(gain: float, chat: float, wrong: int, ended: int = 12) -> ScaleAnswers:
    """Bits a byte of held-out text fall by the share `gain`, of chat rise by `chat`; `wrong` of 12 answers are lost."""
    noise = [1 + DRAW.uniform(-0.002, 0.002) for _ in COSTS]
    picks = [(pick + 1) % 3 if n < wrong else pick for n, pick in enumerate(RIGHT)]
    first = task(QUESTIONS, answered(QUESTIONS, picks))
    tasks = {name: replace(first, name=name) for name in NAMES}
    return ScaleAnswers(
        text([c * (1 - gain) * e for c, e in zip(COSTS, noise, strict=True)]), tasks, {},
        text([c * (1 + chat) * e for c, e in zip(COSTS, noise, strict=True)]), answers(*(n < ended for n in range(12))),
    )  # fmt: skip


def settings() -> Sweep:
    base = measured(0, 0, 0)
    made = {
        "0.25": measured(0.04, -0.02, 1), "0.5": measured(0.08, 0.0, 2), "0.75": measured(0.09, 0.01, 8),
        "1": measured(0.12, 0.05, 3, ended=4), "1.25": measured(0.10, 0.06, 9, ended=4),
    }  # fmt: skip
    return Sweep(base, {("a", parse(scale)): one for scale, one in made.items()})


def test_gains_and_losses_by_hand() -> None:
    sweep = settings()
    found = weigh(sweep)
    for point in found.points:
        after = sweep.points[point.name, point.scaling]
        before, held_out = sweep.base.held_out.nats, after.held_out.nats
        assert point.gain.value == pytest.approx(100 * (1 - sum(held_out) / sum(before)))
        assert point.gain.low < point.gain.value < point.gain.high
        assert after.chat is not None
        assert sweep.base.chat is not None
        assert point.chat is not None
        assert point.accuracy is not None
        assert point.chat.value == pytest.approx(100 * (sum(after.chat.nats) / sum(sweep.base.chat.nats) - 1))
        right = [sum(one.values()) for one in after.tasks.values()]
        assert point.accuracy.value == pytest.approx(sum(right) / 24 - 1), "the base is always right"
        assert set(point.losses) == {*NAMES, ALL_TASKS, CHAT, FORM, "language"}
    assert [str(point.scaling) for point in found.points] == ["0.25", "0.5", "0.75", "1", "1.25"]
    by_scale = {str(point.scaling): point for point in found.points}
    assert by_scale["0.25"].lost == ()
    assert by_scale["0.25"].losses[CHAT].outcome == "improved"
    assert set(by_scale["0.75"].lost) == {*NAMES, ALL_TASKS, CHAT}, "8 of 12, one after the other p = .008"
    assert {CHAT, FORM} <= set(by_scale["1"].lost)


def test_the_point_to_take() -> None:
    found = weigh(settings())
    best = found.recommended
    assert best is not None
    assert str(best.scaling) == "0.5", "the largest gain of those that lost nothing"
    assert best.accuracy is not None
    assert best.accuracy.low < -1 / 6, "more may have been lost than was seen"
    lossy = Sweep(settings().base, {("a", Scaling(1, 1)): measured(0.1, 0.2, 0)})
    assert weigh(lossy).recommended is None
    useless = Sweep(settings().base, {("a", Scaling(1, 1)): measured(-0.1, 0.0, 0)})
    assert weigh(useless).recommended is None


def test_fronts() -> None:
    found = weigh(settings())
    fronts = {str(point.scaling): point.front for point in (found.base, *found.points)}
    assert fronts["0"] == {"accuracy"}, "0.25 gained more and lost less of the chat"
    assert fronts["1"] == {"accuracy", "chat"}
    assert fronts["1.25"] == fronts["0.75"] - {"chat"} == frozenset(), "gained less than 1 and lost more"


def test_front_against_every_pair() -> None:
    draw = random.Random(5)
    for _ in range(50):
        places = [(float(draw.randrange(6)), float(draw.randrange(6))) for _ in range(12)]
        expected = [
            i
            for i, (gained, lost) in enumerate(places)
            if not any((g > gained and b <= lost) or (g >= gained and b < lost) for g, b in places)
        ]
        assert front(places) == expected


def test_a_sweep_of_held_out_text_alone() -> None:
    bare = ScaleAnswers(text(COSTS), {}, {}, None, ())
    after = replace(bare, held_out=text([0.9 * cost for cost in COSTS]))
    found = weigh(Sweep(bare, {("a", Scaling(0.5, 0.5)): after}))
    assert found.recommended is not None
    assert (found.recommended.accuracy, found.recommended.chat) == (None, None)
    assert found.recommended.gain.value == pytest.approx(10)
