"""What is no finite number never becomes a score: not from a model, a grader, the cache, a file, nor into any JSON."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Decoding, Draw, Generation, Metric, MultipleChoice, Selection, Task, select
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.cli.main import app
from stilnovo.compare.verdict import bits_per_byte_verdict, score_verdict
from stilnovo.errors import InputError, NonFiniteScore
from stilnovo.forgetting.guard import Guard
from stilnovo.forgetting.slice import Slice
from stilnovo.generate.sampler import UNDECIDED, Sampler, draw
from stilnovo.generate.sampling import Sampling
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.recipe_sections import GuardSection
from stilnovo.runlog import json_text
from stilnovo.scoring.answer_cache import FILE_NAME, AnswerCache, ModelCache, answered
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.packed import ItemScore, score
from stilnovo.scoring.perplexity import HeldOutScore, score_texts
from stilnovo.scoring.positions import score_positions
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import load_result
from test_evaluate_scoring import byte_tokenizer, tiny_llama

ONE = Identity("weights", None, "none", "float32", "cpu", {}, "code")
BROKEN = (math.nan, math.inf, -math.inf)
GOOD = MultipleChoice("good", "Di che colore è il mare?", (" blu", " nero"), 0)
REACHED = MultipleChoice("reached", "Z? Di che colore è la lettera?", (" blu", " nero"), 0)  # alone has a capital Z


def broken_where_z_is(value: float) -> Llama:
    """A model whose weights are sound but for the embedding of one token."""
    model = tiny_llama()
    (token,) = byte_tokenizer(True).encode("Z")
    with torch.no_grad():
        head = model.head.clone()
        model.embed_tokens[token] = value
        if model.head.data_ptr() == model.embed_tokens.data_ptr():
            model.head = head
    return model


def selection(*items: MultipleChoice | Generation, **settings: Any) -> Selection:
    task = Task("domande", "1", "", "", ("acc",), ("test",), lambda _: items, **settings)
    return Selection(task, "test", tuple(items), len(items), 42)


def kept_rows(folder: Path) -> int:
    with sqlite3.connect(folder / FILE_NAME) as connection:
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("token_budget", [1, 2048])
def test_an_item_that_gets_no_number_is_named_and_nothing_is_kept(
    tmp_path: Path, value: float, token_budget: int
) -> None:
    """Also where other items, of passes before, got numbers."""
    model, tokenizer = broken_where_z_is(value), byte_tokenizer(True)
    assert score(model, tokenizer, [GOOD])[0].id == "good"
    with AnswerCache(tmp_path, pytest.fail) as cache:
        options = ReadOptions(token_budget, cache=ModelCache(cache, ONE))
        with pytest.raises(NonFiniteScore, match="item reached of task domande"):
            evaluate(model, tokenizer, [selection(GOOD, REACHED)], model_name="m", options=options)
        with pytest.raises(NonFiniteScore, match="document 2 of the held-out text"):
            score_texts(model, tokenizer, ["buono", "la Z è", "buono"], options=options)
        with pytest.raises(NonFiniteScore, match="document 2 of the positions"):
            score_positions(model, tokenizer, ["buono", "la Z è"], options=options)
    assert kept_rows(tmp_path) == 0


@pytest.mark.parametrize("place", ["q_proj", "down_proj", "norm"])
def test_a_whole_model_that_gives_no_number(place: str) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    tensors = [tensor for name, tensor in model.state_dict().items() if place in name]
    with torch.no_grad():
        tensors[-1].flatten()[0] = math.nan
    with pytest.raises(NonFiniteScore, match=r"item (good|reached)"):
        score(model, tokenizer, [GOOD, REACHED])


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_written_answers_too(tmp_path: Path, temperature: float) -> None:
    def grade(text: str, item: Generation) -> dict[Metric, float]:
        return {"acc": 1.0}

    asked = [Generation(f"w{n}", text, ("x",), Decoding(4, (), temperature)) for n, text in enumerate(("sì", "la Z è"))]
    with AnswerCache(tmp_path, pytest.fail) as cache:
        options = ReadOptions(cache=ModelCache(cache, ONE))
        with pytest.raises(NonFiniteScore, match="item w0 or one of the 1 written beside it"):
            evaluate(
                broken_where_z_is(math.nan), byte_tokenizer(True), [selection(*asked, grade=grade)], model_name="m",
                options=options,
            )  # fmt: skip
    assert kept_rows(tmp_path) == 0


@pytest.mark.parametrize("logits", [[1.0, math.nan], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_no_token_is_chosen_of_logits_that_are_no_numbers(logits: list[float]) -> None:
    row, one = torch.tensor([logits]), torch.ones(1)
    for temperature in (0.0, 0.7):
        with pytest.raises(NonFiniteScore):
            Sampler(Sampling(temperature=temperature)).choose(row[0])
    assert draw(row, 0 * one, one, 0 * one, 1).tolist() == [UNDECIDED]
    assert draw(row, 0 * one, one, 0 * one, 2).tolist() == [UNDECIDED]
    hidden = torch.tensor([-math.inf, 0.0])  # a token that is masked out leaves the others as they are
    assert Sampler(Sampling(temperature=0)).choose(hidden) == 1


def test_a_grader_that_gives_no_number_is_named() -> None:
    item = Generation("w", "sì", ("x",), Decoding(2))
    broken = selection(item, grade=lambda text, item: {"acc": math.nan})
    with pytest.raises(NonFiniteScore, match="item w"):
        evaluate(tiny_llama(), byte_tokenizer(True), [broken], model_name="m")


def test_a_cached_answer_that_is_no_number_is_asked_again(tmp_path: Path) -> None:
    """As an older version kept them: its rows have their right checksum."""
    with AnswerCache(tmp_path, pytest.fail) as cache:
        cache.keep(ONE, "t", "1", [("a", {"loglikelihoods": [0.25, -1.0]})])
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        ((answer,),) = connection.execute("SELECT answer FROM answers").fetchall()
        from stilnovo.scoring.answer_cache import _checksum

        changed = answer.replace("0.25", "NaN")
        key = (ONE.sha256(), "t", "1", "a")
        connection.execute("UPDATE answers SET answer = ?, checksum = ?", (changed, _checksum(*key, changed)))
    with AnswerCache(tmp_path, pytest.fail) as cache:
        assert list(cache.find(ONE, "t", "1", ["a"])) == [None]
        with pytest.raises(ValueError, match="Out of range"):
            cache.keep(ONE, "t", "1", [("a", {"loglikelihoods": [math.nan]})])


def test_another_models_answers_stay(tmp_path: Path) -> None:
    other = Identity("others", None, "none", "float32", "cpu", {}, "code")
    with AnswerCache(tmp_path, pytest.fail) as cache:
        cache.keep(other, "t", "1", [("a", {"nats": 1.0})])
        with pytest.raises(NonFiniteScore, match="item 1"):
            answered(
                ModelCache(cache, ONE), "t", "1", ["a", "b"], lambda index: f"item {index}",
                lambda missing: [([0], [{"nats": 1.0}]), ([1], [{"nats": [[2.0], [math.inf]]}])],
            )  # fmt: skip
        assert list(cache.find(other, "t", "1", ["a"])) == [{"nats": 1.0}]
        assert list(cache.find(ONE, "t", "1", ["a"])) == [None]


def test_values_that_hold_scores_cannot_hold_anything_else() -> None:
    for value in BROKEN:
        with pytest.raises(NonFiniteScore, match="item i "):
            ItemScore("i", 0, 0, 0, (-1.0, value))
        with pytest.raises(NonFiniteScore, match="item i "):
            ItemScore("i", 0, 0, 0, (), values={"acc": value})
        with pytest.raises(NonFiniteScore, match="document 2 of the held-out text"):
            HeldOutScore((1.0, value), (1, 1), (1, 1), "", 1, 1)
        with pytest.raises(NonFiniteScore, match="item 2"):
            score_verdict([0.0, value], [0.0, 1.0])
        with pytest.raises(NonFiniteScore, match="document 1"):
            bits_per_byte_verdict([1.0, 2.0], [value, 2.0], [1, 1])


@pytest.mark.parametrize("written", ["null", "NaN", "-Infinity"])
@pytest.mark.parametrize("what", ["loglikelihoods", "values", "nats"])
def test_a_result_that_holds_none_is_refused_by_item(tmp_path: Path, written: str, what: str) -> None:
    result = evaluate(
        tiny_llama(), byte_tokenizer(True), [select(TASKS["sample_questions"], draw=Draw(3))], texts=["uno", "due"],
        model_name="m",
    )  # fmt: skip
    path = result.save(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    item = content["tasks"]["sample_questions"]["items"][1]
    if what == "nats":
        content["text"]["nats"][1] = "HERE"
    elif what == "values":
        item["values"]["acc"] = "HERE"
    else:
        item["loglikelihoods"][2] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', written), encoding="utf-8")
    with pytest.raises(NonFiniteScore, match="document 2" if what == "nats" else f"item {item['id']}"):
        load_result(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["text"].update(sizes=[3, 0]),
        lambda content: content["text"].update(sizes=[3]),
        lambda content: content["text"].update(nats=[], sizes=[], tokens=[]),
        lambda content: content["tasks"]["sample_questions"]["items"][1]["values"].update(acc_norm=2.0),
        lambda content: content["tasks"]["sample_questions"]["items"][1]["values"].pop("acc_norm"),
        lambda content: content["tasks"]["sample_questions"]["items"][1].update(
            id=content["tasks"]["sample_questions"]["items"][0]["id"]
        ),
    ],
)
def test_a_result_that_no_evaluation_gives_is_refused(tmp_path: Path, change: Any) -> None:
    """Numbers that are finite and cannot be: no bytes, a share of two, one item twice, a metric that is gone."""
    path = evaluate(
        tiny_llama(), byte_tokenizer(True), [select(TASKS["sample_questions"], draw=Draw(3))], texts=["uno", "due"],
        model_name="m",
    ).save(tmp_path)  # fmt: skip
    content = json.loads(path.read_text(encoding="utf-8"))
    load_result(tmp_path)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="is not an evaluation"):
        load_result(tmp_path)


def test_the_guard_names_the_item_and_ends_the_training(tmp_path: Path) -> None:
    slice = Slice((selection(GOOD, REACHED),), {"testo": ("uno " * 9,) * 6})
    guard = Guard(slice, GuardSection(every=1), byte_tokenizer(True), steps=2, folder=tmp_path)
    guard.begin(tiny_llama())
    seen = guard.evaluate(1, broken_where_z_is(math.nan))
    assert seen.lost and not seen.within and "item reached" in seen.text
    with pytest.raises(NonFiniteScore, match="item reached"):
        Guard(slice, GuardSection(every=1), byte_tokenizer(True), steps=2, folder=tmp_path / "other").begin(
            broken_where_z_is(math.nan)
        )


def test_json_has_no_nan_whatever_it_is_made_of() -> None:
    rng = random.Random(4)

    def made(depth: int) -> Any:
        if depth == 0:
            return rng.choice([*BROKEN, 1.5, 3, "NaN", None, True])
        values = [made(depth - 1) for _ in range(3)]
        return rng.choice([values, tuple(values), dict(zip("abc", values, strict=True))])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for _ in range(50):
        json.loads(json_text(made(3)), parse_constant=refuse)


def test_the_command_refuses_a_broken_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    """Exit status 2, one sentence that names the item, no result, nothing kept; the base still evaluates."""
    from safetensors.torch import load_file, save_file

    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    spec = ModelSpec(str(tiny_folder), quantization="none", device="cpu")
    model, _ = open_model(spec)
    lora.attach(model, lora.LoraConfig(r=2), seed=1)
    lora.save(model, lora.LoraConfig(r=2), tmp_path / "adapter", str(tiny_folder))
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file(
        {name: torch.full_like(tensor, 1e30) for name, tensor in load_file(file).items()}, file
    )  # finite, but not its product
    asked = [
        "evaluate", "--model", str(tiny_folder), "--quantization", "none", "--tasks", "sample_questions", "--limit", "6",
        "--device", "cpu", "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    ran = CliRunner().invoke(app, [*asked, "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")])
    assert isinstance(ran.exception, NonFiniteScore) and ran.exception.exit_code == 2, ran.output
    assert "of task sample_questions gave no number" in ran.exception.what
    assert not (tmp_path / "out/evaluation.json").exists() and kept_rows(tmp_path / "cache") == 0
    save_file({name: torch.full_like(tensor, math.nan) for name, tensor in load_file(file).items()}, file)
    ran = CliRunner().invoke(app, [*asked, "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")])
    assert isinstance(ran.exception, InputError) and not (tmp_path / "out/evaluation.json").exists(), ran.output
    assert kept_rows(tmp_path / "cache") == 0
    assert CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "base")]).exit_code == 0


def test_numbers_of_numpy_are_looked_at_too() -> None:
    with pytest.raises(NonFiniteScore):
        score_verdict(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
