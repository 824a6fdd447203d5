"""Held-out rows: never learnt, written where other commands read it, and read by the finished model."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from stilnovo.cli.main import app
from stilnovo.data.conversations import Conversation, Preference, read_conversations, read_preferences
from stilnovo.data.pairs import side
from stilnovo.data.sources import Document, training_text
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.recipe import Recipe
from stilnovo.scoring.chat_answers import choose_conversations
from stilnovo.scoring.perplexity import held_out_texts
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train import passes
from stilnovo.train.corpus import Corpus, split
from stilnovo.train.objectives.base import objective_of
from stilnovo.train.run import TrainingRun, write_held_out

TEXTS = [
    {"id": f"t{n}", "title": f"Voce {n}", "text": f"Testo {n}:\u2028 " + "parola " * (3 + n % 7)} for n in range(40)
]
CHATS = [
    {"id": f"c{n}", "messages": [
        {"role": "system", "content": "Rispondi in breve."}, {"role": "user", "content": f"Quanto fa {n} più uno?"},
        {"role": "assistant", "content": f"Fa {n + 1}."},
    ]}
    for n in range(30)
]  # fmt: skip
PAIRS = [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(24)]
ROWS: dict[str, list[dict[str, Any]]] = {"text": TEXTS, "sft": CHATS, "dpo": PAIRS}


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def recipe_of(task: str, data: str, folder: Path, **changes: Any) -> Recipe:
    return Recipe().changed({
        "model.name": str(folder), "model.device": "cpu", "model.quantization": "none", "lora.r": 4, "train.task": task,
        "data.paths": [data], "data.pack_tokens": 256, "data.held_out": 0.2, "train.steps": 3, "train.optimizer": "adamw",
        "train.learning_rate": 1e-2, "train.checkpoint_every": 1, **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))[1]


def read(task: str, tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer, **changes: Any) -> Corpus:
    data = jsonl(tmp_path / f"{task}.jsonl", ROWS[task])
    return objective_of(recipe_of(task, data, tiny_folder, **changes)).read(tokenizer)


def tokens_of(row: Document | Conversation | Preference, tokenizer: Tokenizer) -> list[list[int]]:
    if isinstance(row, Conversation):
        return [tokenizer.supervised(row.messages)[0]]
    if isinstance(row, Preference):
        return [side(tokenizer, row.prompt, answer)[0] for answer in (row.chosen, row.rejected)]
    return [tokenizer.document(training_text(row))]


@pytest.mark.parametrize("task", ["text", "sft", "dpo"])
def test_nothing_held_out_is_learnt(task: str, tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    corpus = read(task, tmp_path, tiny_folder, tokenizer)
    whole = read(task, tmp_path, tiny_folder, tokenizer, **{"data.held_out": 0})
    assert len(corpus.held_out) == round(0.2 * len(ROWS[task])) and not whole.held_out
    learnt = {tuple(np.where(ids < 0, ~ids, ids).tolist()) for ids in corpus.packed.documents}
    everything = {tuple(np.where(ids < 0, ~ids, ids).tolist()) for ids in whole.packed.documents}
    aside = {tuple(ids) for row in corpus.held_out for ids in tokens_of(row, tokenizer)}
    assert aside and not learnt & aside and learnt | aside == everything
    other = read(task, tmp_path, tiny_folder, tokenizer, **{"train.seed": 43})
    again = read(task, tmp_path, tiny_folder, tokenizer)
    assert corpus.held_out == again.held_out != other.held_out
    assert corpus.sha256 == whole.sha256  # of all that was read: a run begun before goes on


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_row_that_repeats_a_held_out_one_is_not_learnt(
    task: str, tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    twice = [row | {"id": f"{n}"} for n, row in enumerate(2 * ROWS[task])]
    recipe = recipe_of(task, jsonl(tmp_path / "twice.jsonl", twice), tiny_folder)
    corpus = objective_of(recipe).read(tokenizer)
    learnt = {tuple(np.where(ids < 0, ~ids, ids).tolist()) for ids in corpus.packed.documents}
    assert not learnt & {tuple(ids) for row in corpus.held_out for ids in tokens_of(row, tokenizer)}
    distinct = len({json.dumps(row) for row in [objective_of(recipe).held_out_row(row) for row in corpus.held_out]})
    sides = 2 if task == "dpo" else 1
    gone = len(twice) - len(corpus.held_out) - len(corpus.packed.documents) // sides
    assert gone == 2 * distinct - len(corpus.held_out) > 0
    assert f"{gone} left out, equal to a held-out row" in caplog.text


def test_texts_are_encoded_as_before(tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    corpus = read("text", tmp_path, tiny_folder, tokenizer, **{"data.held_out": 0})
    expected = [tokenizer.document(f"{row['title']}\n\n{row['text'].strip()}") for row in TEXTS]
    assert [ids.tolist() for ids in corpus.packed.documents] == expected
    assert {ids.dtype for ids in corpus.packed.documents} == {np.dtype(np.int32)}


@pytest.mark.parametrize("task", ["text", "sft", "dpo"])
def test_what_is_written_reads_back_as_it_was(
    task: str, tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    corpus = read(task, tmp_path, tiny_folder, tokenizer)
    write_held_out(tmp_path, objective_of(Recipe().changed({"train.task": task})), corpus.held_out)
    path = tmp_path / "held_out.jsonl"
    keys = {tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line}
    if task == "text":
        assert keys == {("id", "text")}
        many = read(task, tmp_path, tiny_folder, tokenizer, **{"data.held_out": 0.8})
        write_held_out(tmp_path, objective_of(Recipe()), many.held_out)
        assert held_out_texts([path]) == many.held_out_texts  # `stilnovo evaluate --text`
    elif task == "sft":
        assert keys == {("messages",)}
        found, lines = choose_conversations(path)  # `stilnovo sweep --chat`
        assert not lines and [one.messages for one in found] == [one.messages for one in corpus.held_out]  # type: ignore[union-attr]
        assert len(read_conversations([path])[0]) == len(corpus.held_out)
    else:
        assert keys == {("prompt", "chosen", "rejected")}
        pairs, tally = read_preferences([path])
        assert not tally.left
        told = [(one.prompt, one.chosen, one.rejected) for one in pairs]
        assert told == [(one.prompt, one.chosen, one.rejected) for one in corpus.held_out]  # type: ignore[union-attr]
    again = objective_of(recipe_of(task, str(path), tiny_folder, **{"data.held_out": 0})).read(
        tokenizer
    )  # `train --data`
    assert len(again.packed.documents) > 0


def test_nothing_held_out_leaves_no_file(tmp_path: Path) -> None:
    write_held_out(tmp_path, objective_of(Recipe()), ())
    assert not (tmp_path / "held_out.jsonl").exists()


def negative_log_likelihoods(model: Llama, ids: list[int], begin: int) -> torch.Tensor:
    """−log p of ids[begin:], by one plain pass and torch's own cross-entropy."""
    stream = torch.tensor(ids[:-1])
    with torch.no_grad():
        hidden = model.hidden(stream, positions_of([len(stream)], stream.device), Blocks([len(stream)]))
        return F.cross_entropy((hidden @ model.head.T).float(), torch.tensor(ids[1:]), reduction="none")[begin - 1 :]


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_held_out_conversations_are_read_before_and_after(engine: str, tmp_path: Path, tiny_folder: Path) -> None:
    recipe = recipe_of("sft", jsonl(tmp_path / "sft.jsonl", CHATS), tiny_folder, **{"train.engine": engine})
    run = TrainingRun(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "held_out.jsonl").exists()  # before the first step
    run.train()
    assert run.measured is not None
    measured, _ = run.measured
    assert measured["n"] == len(run.corpus.held_out) == 6
    sums = {}
    for enabled in (True, False):
        lora.set_enabled(run.model, enabled)
        costs = []
        for row in run.corpus.held_out:
            assert isinstance(row, Conversation)
            ids, learnt = run.tokenizer.supervised(row.messages)
            costs.append(negative_log_likelihoods(run.model, ids, 1)[torch.tensor(learnt[1:])])
        sums[enabled] = torch.cat(costs)
    assert measured["tokens"] == len(sums[True])
    assert measured["loss_after"] == pytest.approx(sums[True].mean().item(), rel=1e-4)
    assert measured["loss_before"] == pytest.approx(sums[False].mean().item(), rel=1e-4)
    assert measured["loss_after"] < measured["loss_before"]  # all answers begin alike: what was learnt helps here too
    noted = json.loads((tmp_path / "run" / "train.json").read_text())["held_out"]
    assert noted == {
        "n": 6, "tokens": measured["tokens"], "loss_before": measured["loss_before"], "loss_after": measured["loss_after"],
    }  # fmt: skip


def test_the_command_says_how_preferences_went(tmp_path: Path, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    long = {"prompt": "?" * 600, "chosen": "Sì.", "rejected": "No."}
    recipe = recipe_of("dpo", jsonl(tmp_path / "dpo.jsonl", [*PAIRS, long]), tiny_folder)
    (tmp_path / "recipe.yaml").write_text(recipe.changed({"train.steps": 12, "train.seed": 5}).to_yaml())
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(out), "--json"])
    assert result.exception is None, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for name in ("margin", "accuracy"):
        assert told[name] == pytest.approx(sum(row[name] for row in rows[-10:]) / 10)
    assert f"mean of the last 10 steps: margin {told['margin']:.3f}, accuracy {told['accuracy']:.3f}" in result.stdout
    assert json.loads((out / "train.json").read_text())["held_out"] == told["held_out"]
    assert told["held_out_file"] == str(out / "held_out.jsonl")

    model, _ = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    pairs = [pair for pair in read_preferences([out / "held_out.jsonl"])[0] if len(pair.prompt[-1].content) < 600]
    ratios = {True: [], False: []}  # type: dict[bool, list[float]]
    base = [[_log_p(model, tokenizer, pair, answer) for answer in (pair.chosen, pair.rejected)] for pair in pairs]
    lora.load(model, out / "adapter")
    for pair, reference in zip(pairs, base, strict=True):
        for chosen, before, answer in zip((True, False), reference, (pair.chosen, pair.rejected), strict=True):
            ratios[chosen].append(_log_p(model, tokenizer, pair, answer) - before)
    margins = [0.1 * (better - worse) for better, worse in zip(ratios[True], ratios[False], strict=True)]
    expected = {
        "n": len(pairs), "loss": sum(math.log1p(math.exp(-margin)) for margin in margins) / len(pairs),
        "margin": sum(margins) / len(pairs), "accuracy": sum(margin > 0 for margin in margins) / len(pairs),
    }  # fmt: skip
    assert told["held_out"] == pytest.approx(expected, rel=1e-3)
    assert abs(told["held_out"]["margin"]) > 1e-2


def _log_p(model: Llama, tokenizer: Tokenizer, pair: Preference, answer: str) -> float:
    return -negative_log_likelihoods(model, *side(tokenizer, pair.prompt, answer)).double().sum().item()


def test_a_run_begun_before_goes_on_as_it_began(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation run whose data.held_out had no effect: it learnt everything, and resumes to the same bits."""
    recipe = recipe_of("sft", jsonl(tmp_path / "sft.jsonl", CHATS), tiny_folder)
    with monkeypatch.context() as patch:
        patch.setattr("stilnovo.train.corpus.split", lambda rows, held_out, seed: (list(rows), []))
        TrainingRun(recipe, tmp_path / "whole").train()
        old = TrainingRun(recipe, tmp_path / "run")
        stream = iter(old.trainer.stream)
        old.folder.append_metrics(old.trainer.train_step([next(stream)]))
        old.trainer.save()
    del old, stream  # its process is gone, and with it the lock on the folder
    gc.collect()
    again = TrainingRun(recipe, tmp_path / "run", resume=True)
    assert len(again.corpus.packed.documents) == len(CHATS) and not again.corpus.held_out
    again.train()
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    jsonl(tmp_path / "sft.jsonl", CHATS[1:])
    with pytest.raises(InputError, match="data differ"):
        TrainingRun(recipe, tmp_path / "run", resume=True)


def test_an_interrupted_reading_loses_nothing(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("dpo", jsonl(tmp_path / "dpo.jsonl", PAIRS), tiny_folder)
    run = TrainingRun(recipe, tmp_path / "run")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(passes, "added", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"training is finished.*--resume"):
            run.train()
    noted = json.loads((tmp_path / "run" / "train.json").read_text())
    assert noted["held_out"] is None and noted["steps"] == 3
    adapter = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    again = TrainingRun(recipe, tmp_path / "run", resume=True)
    again.train()
    assert again.measured is not None and again.measured[0]["n"] == 5
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == adapter


def test_messages_of_every_role_are_kept() -> None:
    turns = (Message("user", "a\r\nb"), Message("assistant", "c"), Message("user", "d"), Message("assistant", "e"))
    row = objective_of(Recipe().changed({"train.task": "sft"})).held_out_row(Conversation("x", turns))
    assert [(turn["role"], turn["content"]) for turn in row["messages"]] == [(t.role, t.content) for t in turns]


@pytest.mark.parametrize("share", [0.01, 0.15, 0.9])
def test_a_single_row_is_learnt_and_that_nothing_is_held_out_is_said(
    share: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert split(["uno"], share, 3) == (["uno"], [])
    assert "Nothing is held out" in caplog.text
    caplog.clear()
    learnt, apart = split(["uno", "due"], share, 3)
    assert len(learnt) == len(apart) == 1 and not caplog.text
    assert split(["uno"], 0, 3) == (["uno"], []) and not caplog.text
