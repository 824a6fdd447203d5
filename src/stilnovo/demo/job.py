"""The stages of the demo, one after another, on one model in memory; nothing is printed here.

The base and the tuned model are the same object: a fresh adapter changes nothing (B = 0), so "before" is the base.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stilnovo.benchmarks.task import Selection, select
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.chat.conversation import ask
from stilnovo.compare.paired import compare
from stilnovo.compare.variants import SchemeCost, scheme_costs, side_by_side
from stilnovo.errors import InputError
from stilnovo.folderlock import FILE as LOCK_FILE
from stilnovo.folderlock import locked
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.library.location import sample_library
from stilnovo.model.budget import use_of
from stilnovo.model.load import ModelCheckpoint, choose_device, open_model
from stilnovo.model.memory import budget_of
from stilnovo.plan.account import SCORED_TOKENS, account, needs_text
from stilnovo.progress import Progress
from stilnovo.recipe import Recipe
from stilnovo.report.demo import DemoResult
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import EvaluationResult
from stilnovo.spec import ModelSpec
from stilnovo.train.run import TrainingRun

log = logging.getLogger(__name__)
TASKS = ("sample_questions", "sample_completions")
QUESTIONS = (
    "Chi ha insegnato a leggere a Tecla?", "In che anno fu edificata la torre del faro?",
    "A quanti anni di prigione fu condannato l'armatore?",
)  # fmt: skip
QUANTISATION_TEXTS = 3  # documents on which each scheme is evaluated; more in bench/quantization.py
QUANTISATION_LARGEST = 10**9  # parameters; a larger model is not loaded densely for a table


def clear(folder: Path) -> None:
    """Empty the folder of an earlier demo; anything else is left alone.

    Raises:
        InputError: when the folder holds something that no demo wrote.
    """
    entries = [entry for entry in folder.iterdir() if entry.name != LOCK_FILE] if folder.exists() else []
    if entries and not (folder / "demo.json").exists():
        raise InputError(f"{folder} holds something that is not a demo.", next="Choose another --out or remove it.")
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def run(recipe: Recipe, folder: Path, *, prompt_count: int, new_tokens: int, questions: int) -> DemoResult:
    """Run all stages. `prompt_count` prompts are answered by both models in at most `new_tokens` tokens each."""
    with locked(folder, "a demo"):
        return _run(recipe, folder, prompt_count, new_tokens, questions)


def _run(recipe: Recipe, folder: Path, prompt_count: int, new_tokens: int, questions: int) -> DemoResult:
    if recipe.guard.every is not None:
        raise InputError(
            "The demo has no guard.", "The recipe sets guard.every.", "Train with it: stilnovo train --recipe …"
        )
    ModelCheckpoint(ModelSpec(recipe.model.name, device=recipe.model.device))  # before the last demo is removed
    clear(folder)
    (folder / "demo.json").write_text(json.dumps({"finished": False}) + "\n", encoding="utf-8")
    result = DemoResult(recipe, folder)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        result.stages[name] = time.perf_counter() - started

    with stage("load"):
        training = TrainingRun(recipe, folder, locked=True)
        result.trainable, result.total = training.trainable, training.model.config.parameters()
    selections = [select(task) for task in find_tasks(TASKS)]
    with stage("evaluate before"):
        result.before = _evaluate(training, selections, "before")
    with stage("train"):
        result.train, result.memory = training.train()
        result.metrics = training.folder.metrics()
        result.optimizer = _optimizer_text(training.trainer.optimizer)
    with stage("evaluate after"):
        result.after = _evaluate(training, selections, "after")
        result.verdicts = compare(result.before, result.after).verdicts
    with stage("write side by side"):
        result.sampling = Sampling(max_new_tokens=new_tokens)
        result.texts = side_by_side(
            Generator(training.model, training.tokenizer),
            read_rows(sample.path("prompts.jsonl"))[:prompt_count],
            result.sampling,
        )
    with stage("ask the library"), sample_library() as library:
        result.answers = [ask(library, question) for question in QUESTIONS[:questions]]
    with stage("compare quantizations"):
        texts = training.corpus.held_out_texts[:QUANTISATION_TEXTS]
        training.close()  # the trained model makes room for the dense one
        result.quantisation = _scheme_costs(recipe, texts)
    result.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return result


def written(result: DemoResult) -> dict[str, Any]:
    """Collect the models' answers and the cost of each quantization, for `demo.json`."""
    return {
        "quantization_costs": [asdict(cost) for cost in result.quantisation],
        "texts": [asdict(text) for text in result.texts],
        "answers": [answer.as_dict() for answer in result.answers],
    }


def _optimizer_text(optimizer: torch.optim.Optimizer) -> str:
    """The optimizer that ran, with the types that its states are kept in."""
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in states if value.numel() > 1})
    return f"{type(optimizer).__name__} (states in {' and '.join(kinds)})"


def _evaluate(training: TrainingRun, selections: list[Selection], when: str) -> EvaluationResult:
    recipe = training.recipe
    with Progress(f"evaluate {when}", len(selections) + 1) as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.update(names.index(name) + done / total if name in names else len(names), f"{name} {done}/{total}")

        names = [selection.task.name for selection in selections]
        result = evaluate(
            training.model, training.tokenizer, selections, texts=training.corpus.held_out_texts, text_name="held-out sample",
            model_name=recipe.model.name, quantization=recipe.model.quantization,
            adapter=None if when == "before" else str(training.folder.path / "adapter"), options=ReadOptions(progress=progress),
        )  # fmt: skip
    result.save(training.folder.path / when)
    return result


def _scheme_costs(recipe: Recipe, texts: list[str]) -> list[SchemeCost]:
    """What each quantization costs on some texts; none of a model that is large, or for which there is no room densely."""
    checkpoint = ModelCheckpoint(ModelSpec(recipe.model.name, quantization="none", device=recipe.model.device))
    if checkpoint.config.parameters() > QUANTISATION_LARGEST:
        return []
    device = choose_device(recipe.model.device)
    use = use_of("evaluate", checkpoint.spec, checkpoint.config, device, SCORED_TOKENS)
    made = account(replace(use, copies=float(use.value_bytes)))  # both the weights and what each scheme makes of them
    budget = budget_of(device)
    if not made.fits(budget):
        log.warning("The cost of each quantization is left out: it needs %s.", needs_text(made, budget))
        return []
    model, tokenizer = open_model(checkpoint)
    with Progress("quantize", 5) as bar:
        return scheme_costs(
            model, tokenizer, texts, progress=lambda done, total: bar.update(done, f"{done}/{total} schemes")
        )
