"""Whose rows were measured: the benchmark's, by the hash of its files, or the user's; and which split."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stilnovo.benchmarks import known_files
from stilnovo.benchmarks.task import Draw, select
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.report.evaluation import evaluation_page, evaluation_text
from stilnovo.runlog import sha256_file
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.result import EvaluationResult, load_result
from test_evaluate_scoring import byte_tokenizer, tiny_llama

SHARED = Path(__file__).parents[2] / "shared" / "data" / "benchmarks"
ARC = {"id": "mine/1", "instruction": "Una domanda privata?", "option_a": "Sì", "option_b": "No", "answer": "A"}
XCOPA = {"premise": "Piove.", "choice1": "Esco.", "choice2": "Resto.", "question": "effect", "label": 1, "idx": 0}


def lay(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measured(folder: Path, name: str, split: str | None = None) -> EvaluationResult:
    return evaluate(tiny_llama(), byte_tokenizer(True), [select(TASKS[name], folder, split)], model_name="tiny")


def test_private_questions_in_a_benchmarks_folder_are_not_that_benchmark(tmp_path: Path) -> None:
    file = lay(tmp_path / "arc_it" / "test.jsonl", ARC, {**ARC, "id": "mine/2"})
    digest = sha256_file(file)[:12]
    result = measured(tmp_path, "arc_it")
    task = result.tasks["arc_it"]
    assert not task.known and task.label == f"arc_it's form, rows {digest}"
    assert task.source == (
        f"rows given by the user, test.jsonl (sha256 {digest}); not known to be those of {TASKS['arc_it'].source}"
    )
    assert task.licence == "not known"
    figures = result.summary()["tasks"]["arc_it"]
    assert (figures["known"], figures["licence"], figures["source"]) == (False, "not known", task.source)
    result.save(tmp_path / "run")
    assert load_result(tmp_path / "run").tasks["arc_it"] == task
    page = evaluation_page(result)
    assert "rows given by the user" in page and digest in page
    assert "arc_it&#39;s form, rows" in page
    console = Console(width=200, file=io.StringIO(), record=True)
    for part in evaluation_text(result):
        console.print(part)
    assert f"arc_it's form, rows {digest}" in console.export_text()


def test_known_files_keep_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lay(tmp_path / "arc_it" / "test.jsonl", ARC)
    monkeypatch.setattr(known_files, "KNOWN", {sha256_file(file): ("arc_it", "test")})
    task = measured(tmp_path, "arc_it").tasks["arc_it"]
    assert task.known and task.label == "arc_it" and task.licence == TASKS["arc_it"].licence
    assert task.files == {"test.jsonl": sha256_file(file)}
    monkeypatch.setattr(known_files, "KNOWN", {sha256_file(file): ("mmlu_it", "test")})
    assert not select(TASKS["arc_it"], tmp_path).known, "another benchmark's file"


def test_training_rows_under_the_test_files_name_are_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lay(tmp_path / "arc_it" / "it_test.json", ARC)
    monkeypatch.setattr(known_files, "KNOWN", {sha256_file(file): ("arc_it", "train")})
    found = select(TASKS["arc_it"], tmp_path)
    assert not found.known and "its train split, not test" in found.task.source
    file.rename(file.with_name("it_train.json"))
    assert select(TASKS["arc_it"], tmp_path, "train").known


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_benchmark_says_what_it_read(name: str) -> None:
    """Whatever way a task finds its files, what was read is hashed; its own samples need no proof."""
    if not name.startswith("sample_"):
        assert name in TASKS and TASKS[name].source.startswith("http")
    else:
        assert select(TASKS[name]).known and not select(TASKS[name]).files


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmarks' files are not here")
@pytest.mark.parametrize(
    "name", ["arc_it", "exams_it", "gsm8k", "hellaswag", "invalsi", "invalsi_report", "mmlu_it", "squad_it", "truthfulqa_it", "winogrande"]
)  # fmt: skip
def test_the_benchmarks_own_files_are_known(name: str) -> None:
    selection = select(TASKS[name], SHARED, draw=Draw(2))
    assert selection.known and selection.files
    assert selection.task.licence == TASKS[name].licence


@pytest.mark.parametrize("names", [("test.it.jsonl", "val.it.jsonl"), ("data/it/test.it.jsonl", "data/it/val.it.jsonl"),
                                   ("it/test.jsonl", "it/val.jsonl"), ("test.jsonl", "validation.jsonl")])  # fmt: skip
def test_both_names_of_xcopas_files(tmp_path: Path, names: tuple[str, str]) -> None:
    """The authors' repository and the hub name them differently; test is test, and validation is never taken for it."""
    test, validation = (tmp_path / "xcopa_it" / name for name in names)
    lay(test, *({**XCOPA, "idx": number} for number in range(5)))
    lay(validation, *({**XCOPA, "idx": number} for number in range(2)))
    if names[0] == "it/test.jsonl":
        test.rename(tmp_path / "xcopa_it" / "it_test.jsonl")
        validation.rename(tmp_path / "xcopa_it" / "it_val.jsonl")
    found = select(TASKS["xcopa_it"], tmp_path)
    assert (found.split, found.available, found.instead_of) == ("test", 5, "")
    assert select(TASKS["xcopa_it"], tmp_path, "validation").available == 2


def test_validation_in_place_of_test_is_said_everywhere(tmp_path: Path) -> None:
    lay(tmp_path / "xcopa_it" / "val.it.jsonl", XCOPA, {**XCOPA, "idx": 1})
    result = measured(tmp_path, "xcopa_it")
    task = result.tasks["xcopa_it"]
    assert task.instead_of == "test" and task.label.endswith(" (validation, not test)")
    assert result.summary()["tasks"]["xcopa_it"]["instead_of"] == "test"
    page = evaluation_page(result)
    assert "the split test was not found; validation was measured in its place" in page
    asked = measured(tmp_path, "xcopa_it", "validation").tasks["xcopa_it"]
    assert asked.instead_of == "" and "not test" not in asked.label
    assert replace(task, instead_of="").items == asked.items
