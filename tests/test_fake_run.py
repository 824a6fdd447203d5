"""A training and an evaluation as commands open them, on a fake card: files, plan, model, objective, optimizer, one whole step.

Nothing has values (`fake_cuda`); what is checked is that it runs, and where everything lies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import CHATML, SPECIALS, TINY, write_byte_tokenizer, write_weights
from fake_cuda import CARD, GENERATIONS, fake_card, place_of
from stilnovo.benchmarks.task import MultipleChoice
from stilnovo.data.batches import Batch
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.plan.levers import all_layers
from stilnovo.recipe import Recipe
from stilnovo.scoring import likelihood, packed
from stilnovo.spec import ModelSpec
from stilnovo.train import planning
from stilnovo.train.objectives import dpo
from stilnovo.train.run import TrainingRun

OBJECTIVES: dict[str, dict[str, Any]] = {
    "texts": {},
    "pairs": {"train.task": "dpo", "data.paths": ["PAIRS"], "data.pack_tokens": 256},
    "plain": {"lora.dropout": 0.1},  # by torch's autograd
}
OPTIMIZERS = ("adamw", "adamw8bit")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model with a head of its own, texts and pairs."""
    folder = tmp_path_factory.mktemp("fake-run")
    (folder / "model").mkdir()
    write_weights(folder / "model", replace(TINY, vocab_size=256 + len(SPECIALS), max_positions=512))
    write_byte_tokenizer(folder / "model", SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    rows = {
        "TEXTS": [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(20)],
        "PAIRS": [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(12)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def everything_learnt(batch: Batch) -> tuple[torch.Tensor, list[int]]:
    """Which tokens are learnt is a question of values."""
    return torch.arange(len(batch.targets)), list(batch.lengths)


def recipe(files: Path, changes: dict[str, Any]) -> Recipe:
    base = {
        "model.name": str(files / "model"), "model.device": "cuda", "lora.r": 8, "data.paths": ["TEXTS"], "data.pack_tokens": 64,
        "train.steps": 2, "train.samples": [], **changes,
    }  # fmt: skip
    return Recipe().changed({**base, "data.paths": [str(files / f"{name}.jsonl") for name in base["data.paths"]]})  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["nf4", "int8", "none"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_takes_a_step(
    objective: str, scheme: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "answers", everything_learnt)
    turn = list(OBJECTIVES).index(objective) + ["nf4", "int8", "none"].index(scheme)
    optimizer = OPTIMIZERS[turn % 2]
    changes = {**OBJECTIVES[objective], "model.quantization": scheme, "train.optimizer": optimizer}
    with fake_card(GENERATIONS[turn % len(GENERATIONS)]):
        run = TrainingRun(recipe(files, changes), tmp_path / "run")
        assert (run.plan is None) == (objective == "plain")
        for batch, _ in zip(run.trainer.stream, range(2), strict=False):
            row = run.trainer.train_step([batch])
        assert row["step"] == 2
        for parameter in run.trainer.parameters:
            assert (place_of(parameter), parameter.dtype) == ("cuda", torch.float32)
            state = run.trainer.optimizer.state[parameter]
            assert {place_of(value) for value in state.values() if isinstance(value, torch.Tensor) and value.dim()} == {
                "cuda"
            }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_under_the_leanest_plan(
    optimizer: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that can lives on the host: weights are read there, moments stay there."""
    chosen = planning.choose_plan

    def leanest(run: Any, settings: Any, device: torch.device, *more: Any) -> Any:
        plan = chosen(run, settings, device, *more)
        levers = replace(
            plan.levers, layers=all_layers("recompute", 2), inputs="host", prefetch=False, streamed_layers=2, embedding="host",
            head="streamed", head_tile=100, optimizer="adamw", optimizer_place="host",
        )  # fmt: skip
        return replace(plan, levers=levers)

    monkeypatch.setattr(planning, "choose_plan", leanest)
    with fake_card():
        run = TrainingRun(recipe(files, {"train.optimizer": optimizer, "data.held_out": 0}), tmp_path / "run")
        run.trainer.train_step([next(iter(run.trainer.stream))])
        assert {place_of(p) for p in run.trainer.parameters} == {"cpu"}
        assert place_of(run.model.embed_tokens) == "cpu" and run.model.device == CARD


def scores_of_all(
    model: Llama, hidden: torch.Tensor, rows: Sequence[int], targets: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are alike is a question of values: here none are."""
    places = torch.tensor(rows, device=hidden.device)
    order = torch.arange(len(rows), device=hidden.device)
    return likelihood._chunk(model, hidden[places], order, torch.tensor(targets, device=hidden.device))


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8", "int4", "none"])
def test_an_evaluation(scheme: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "token_scores", scores_of_all)
    with fake_card(GENERATIONS[len(scheme)]):
        model, tokenizer = open_model(ModelSpec(str(files / "model"), quantization=scheme, device="cuda"))
        assert {place_of(buffer) for buffer in model.buffers()} == {"cuda"}
        items = [MultipleChoice(str(n), f"Testa. Domanda {n}:", (" sì", " no"), 0, header="Testa.") for n in range(3)]
        found = [index for batch in packed.answers(model, tokenizer, items, token_budget=60) for index, _ in batch]
        assert sorted(found) == [0, 1, 2]
