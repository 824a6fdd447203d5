"""From questions to a file, from two files to a verdict, through the library and through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Draw, MultipleChoice, Selection, select
from stilnovo.benchmarks.tasks import SAMPLES, TASKS
from stilnovo.cli import compare as compare_command
from stilnovo.cli import evaluate as evaluate_command
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles
from stilnovo.model.llama import Llama
from stilnovo.runlog import finite
from stilnovo.scoring.evaluate import evaluate, expectation
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import EvaluationResult, TaskResult, load_result
from stilnovo.spec import ModelSpec
from stilnovo.statistics.estimates import holm
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_scoring import byte_tokenizer, tiny_llama

TEXTS = [f"Documento numero {number}, breve ma vero." for number in range(8)]


def run(
    seed: int = 0, limit: int | None = 12, texts: list[str] = TEXTS, names: tuple[str, ...] = SAMPLES
) -> EvaluationResult:
    selections = [select(TASKS[name], draw=Draw(limit)) for name in names]
    return evaluate(
        tiny_llama(seed=seed),
        byte_tokenizer(True),
        selections,
        texts=texts,
        text_name="prova",
        model_name=f"tiny-{seed}",
    )


def test_result_survives_its_file(tmp_path: Path) -> None:
    result = run()
    path = result.save(tmp_path / "run")
    assert load_result(path) == load_result(tmp_path / "run") == result
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["summary"]["tasks"]["sample_questions"]["n"] == 12
    assert content["environment"]["versions"]["torch"]
    assert "Domanda" not in path.read_text(encoding="utf-8"), "ids are kept, texts are not"


def test_summary_has_what_machines_read() -> None:
    result = run()
    task = result.summary()["tasks"]["sample_questions"]
    right = sum(item.choice_norm == item.answer for item in result.tasks["sample_questions"].items)
    assert task["acc_norm"] == right / 12
    assert task["acc_norm_interval"][0] <= task["acc_norm"] <= task["acc_norm_interval"][1]
    assert (task["n"], task["available"], task["chance"]) == (12, 60, 0.25)
    assert len(task["items_sha256"]) == 64
    text = result.summary()["text"]
    assert text["bytes"] == sum(len(t.encode()) for t in TEXTS)
    assert text["bits_per_byte_interval"][0] < text["bits_per_byte"] < text["bits_per_byte_interval"][1]
    as_task = result.summary()["tasks"]["bits_per_byte"]
    assert (as_task["n"], as_task["items_sha256"]) == (len(TEXTS), text["texts_sha256"])
    assert as_task["bits_per_byte"] == text["bits_per_byte"]


def test_progress_names_what_runs() -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate(
        tiny_llama(), byte_tokenizer(True), [select(TASKS["sample_questions"], draw=Draw(3))], texts=TEXTS, model_name="tiny",
        options=ReadOptions(progress=lambda *call: calls.append(call)),
    )  # fmt: skip
    assert calls[-1] == ("held-out text", 8, 8)
    assert ("sample_questions", 3, 3) in calls


def test_expectation_is_honest_before_the_run() -> None:
    part = expectation(select(TASKS["sample_questions"], draw=Draw(30)))
    assert "30 of 60 items (50 %, drawn at random, seed 42)" in part
    assert part.endswith("With all 60 items, nothing under 16 points.")
    assert expectation(select(TASKS["sample_questions"], draw=Draw(30)), 0.5).endswith("; they take 1m 00s more.")
    whole = expectation(select(TASKS["sample_questions"]))
    assert "all 60 items" in whole
    assert "±12.3 points" in whole
    assert "nothing under 16 points can be seen" in whole
    assert expectation(select(TASKS["sample_questions"]), 0.5).endswith("It takes at most about 2m 00s.")
    assert "no change can be seen" in expectation(select(TASKS["sample_questions"], draw=Draw(2)))


def test_guessing_with_several_true_answers_is_equal_mass() -> None:
    item = MultipleChoice("t", "?", (" a", " b", " c", " d", " e"), 0, rivals=(0, 1), labels=(1, 0, 1, 0, -1))
    assert item.chance == pytest.approx(item.values((-3.0,) * 5)["mc2"]) == 0.5
    assert replace(item, labels=(), rivals=()).chance == 0.2


def test_expectation_of_grouped_items() -> None:
    items = tuple(MultipleChoice(str(number), "?", (" a", " b"), 0, f"p{number // 10}") for number in range(40))
    selection = Selection(TASKS["sample_questions"], "test", items, 40, 42)
    assert "at best: the items lie in 4 groups that may change together, and fewer than 8" in expectation(selection)


def test_several_verdicts_are_corrected_for_their_number() -> None:
    found = compare(run(0), run(1)).verdicts
    assert len(found) == 3
    assert [verdict.p_corrected for verdict in found.values()] == holm([verdict.p for verdict in found.values()])
    assert {verdict.comparisons for verdict in found.values()} == {3}


def test_verdicts_pair_what_both_have() -> None:
    before, after = run(0), run(1, names=("sample_questions",))
    found = compare(before, after).verdicts
    assert list(found) == ["sample_questions", "bits_per_byte"]
    assert found["sample_questions"].difference.n == 12
    same = compare(before, before).verdicts
    assert all(verdict.difference.value == 0 and verdict.outcome == "inconclusive" for verdict in same.values())


def test_other_parts_of_a_benchmark_meet_where_they_overlap() -> None:
    """Ten and twenty of sixty items drawn by seed: those that both asked, paired by name, whatever their order."""
    first, second = run(0, limit=10, names=("sample_questions",)), run(1, limit=25, names=("sample_questions",))
    asked = [{item.id for item in result.tasks["sample_questions"].items} for result in (first, second)]
    assert 0 < len(asked[0] & asked[1]) < 25
    turned = second.tasks["sample_questions"]
    turned = replace(turned, items=turned.items[::-1], hashes=turned.hashes[::-1])
    comparison = compare(first, replace(second, tasks={"sample_questions": turned}))
    pairs = comparison.pairs["sample_questions"]
    assert [a.id for a, _ in pairs.items] == [b.id for _, b in pairs.items]
    assert {a.id for a, _ in pairs.items} == asked[0] & asked[1]
    assert (pairs.only_before, pairs.only_after) == (len(asked[0] - asked[1]), len(asked[1] - asked[0]))
    assert comparison.verdicts["sample_questions"].difference.n == len(pairs.items)
    assert f"compared on the {len(pairs.items)} items that both runs asked" in pairs.note
    assert compare(first, first).pairs["sample_questions"].note == ""


def test_different_items_are_refused() -> None:
    before = run(0, texts=[])
    task = before.tasks["sample_questions"]

    def refused(other: TaskResult, words: str) -> None:
        with pytest.raises(InputError, match=words):
            compare(
                replace(before, tasks={"sample_questions": task}), replace(before, tasks={"sample_questions": other})
            )

    refused(
        replace(task, hashes=("0" * 64, *task.hashes[1:])), "different questions of sample_questions under the same"
    )
    refused(replace(task, version="2.0"), "in different ways")
    refused(replace(task, shots=5), "in different ways")
    away = tuple(replace(item, id=f"other-{item.id}") for item in task.items)
    refused(replace(task, items=away), "no item of sample_questions in common")
    both = replace(before, tasks={**before.tasks, "sample_questions": replace(task, version="2.0")})
    comparison = compare(before, both)
    assert list(comparison.verdicts) == ["sample_completions"], "one refused task does not take the others with it"
    assert "in different ways" in comparison.refused["sample_questions"]
    with pytest.raises(InputError, match="different held-out texts"):
        compare(run(0, names=()), run(0, names=(), texts=TEXTS[:7]))
    with pytest.raises(InputError, match="nothing in common"):
        compare(before, run(0, names=()))
    text = run(0, names=())
    assert text.text is not None
    with pytest.raises(InputError, match="different windows"):
        compare(text, replace(text, text=replace(text.text, window=7)))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"format": 2, "tasks": {"a": {}}, "text": null}'])
def test_a_file_that_is_no_evaluation_is_bad_input(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="not an evaluation"):
        load_result(tmp_path)


def test_other_bad_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation here"):
        load_result(tmp_path)
    with pytest.raises(InputError, match="no evaluation here"):
        load_result(tmp_path / "missing")
    (tmp_path / "evaluation.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(InputError, match="another version"):
        load_result(tmp_path)
    (tmp_path / "evaluation.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not an evaluation"):
        load_result(tmp_path)


def test_infinities_become_null() -> None:
    assert finite({"a": [float("inf"), 1.0, (float("nan"), "x")], "b": None}) == {
        "a": [None, 1.0, [None, "x"]],
        "b": None,
    }


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    """The two commands over a tiny model, in an empty folder."""

    def checkpoint(spec: ModelSpec) -> SimpleNamespace:
        return SimpleNamespace(spec=spec, tokenizer=byte_tokenizer(True), config=tiny_llama(seed=0).config)

    def open_tiny(opened: SimpleNamespace) -> tuple[Llama, Tokenizer]:
        return tiny_llama(seed=int(opened.spec.model)), opened.tokenizer

    def find_tiny(name: str) -> ModelFiles:
        path = tmp_path / "weights" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
        return ModelFiles(name, "gguf", path)

    monkeypatch.setattr("stilnovo.model.load.ModelCheckpoint", checkpoint)
    monkeypatch.setattr("stilnovo.model.load.open_model", open_tiny)
    monkeypatch.setattr("stilnovo.scoring.identity.find_model", find_tiny)
    monkeypatch.setattr("stilnovo.hub.find_model", find_tiny)
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    commands = typer.Typer()
    commands.command("evaluate")(evaluate_command.evaluate)
    commands.command("compare")(compare_command.compare)
    return commands


def call(app: typer.Typer, *arguments: str) -> tuple[str, str, dict[str, Any]]:
    """What stood on stdout and on stderr, and the JSON object of the last line."""
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr, json.loads(result.stdout.splitlines()[-1])


def test_evaluate_and_compare_commands(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "nuovi.txt").write_text("\n".join(f"{text} " * 40 for text in TEXTS), encoding="utf-8")
    common = ["--tasks", "sample_questions", "--limit", "20", "--text", "nuovi.txt"]
    shown, noted, a = call(app, "evaluate", "--model", "0", *common, "--out", "a")
    assert "acc_norm" in shown
    assert "can be seen" in noted
    assert "can be seen" not in shown, "what is said before the run leaves stdout to the results"
    assert a["tasks"]["sample_questions"]["n"] == 20
    assert Path(a["result"]).is_file()
    assert a["text"]["name"] == "nuovi.txt"
    _, _, b = call(app, "evaluate", "--model", "1", *common)
    assert Path(b["result"]).parent.name.startswith("evaluate-1-")
    shown, _, verdict = call(app, "compare", "a", b["result"])
    assert set(verdict["tasks"]) == {"sample_questions", "bits_per_byte"}
    assert verdict["tasks"]["sample_questions"]["n"] == 20
    assert {"difference", "interval", "p_value", "verdict"} <= set(verdict["tasks"]["bits_per_byte"])
    assert verdict["tasks"]["sample_questions"]["verdict"] in shown
    (row,) = (line.split() for line in shown.splitlines() if line.strip().startswith("bits_per_byte  "))
    assert f"{verdict['tasks']['bits_per_byte']['before']:.4f}" in row, "the table has the figures of the JSON"
    assert verdict["tasks"]["bits_per_byte"]["outcome"] == row[-1]
    settings = load_result(tmp_path / "a").settings
    assert (settings["limit"], settings["seed"], settings["dtype"]) == (20, 42, "float32")


def test_the_samples_run_without_any_option(app: typer.Typer) -> None:
    _, noted, result = call(app, "evaluate", "--model", "0")
    assert set(result["tasks"]) == set(SAMPLES)
    assert "all 60 items" in noted


def test_expectation_is_printed_before_the_model_is_read(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--model", "not a number", "--limit", "4"])
    assert isinstance(result.exception, ValueError), "the tiny model's name is a seed"
    assert "4 of 60 items" in result.stderr


def test_compare_command_on_other_items(app: typer.Typer) -> None:
    for out, limit in (("a", "4"), ("b", "5")):
        call(app, "evaluate", "--model", "0", "--tasks", "sample_questions", "--limit", limit, "--out", out)
    shown, _, result = call(app, "compare", "a", "b")
    task = result["tasks"]["sample_questions"]
    assert "items that both runs asked" in shown
    assert task["n"] + task["only_before"] == 4
    assert task["n"] + task["only_after"] == 5
    content = json.loads(Path("b/evaluation.json").read_text(encoding="utf-8"))
    content["tasks"]["sample_questions"]["hashes"] = ["0" * 64] * 5
    Path("b/evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    refused = CliRunner().invoke(app, ["compare", "a", "b"])
    assert isinstance(refused.exception, InputError)
    assert "different questions" in str(refused.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tasks", "arc_it"],
        ["--tasks", "nothing"],
        ["--tasks", ""],
        ["--quantization", "int3"],
        ["--text", "missing.txt"],
    ],
)
def test_bad_input_is_found_before_the_model_is_read(app: typer.Typer, tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--model", "not a number", *arguments])
    assert isinstance(result.exception, InputError)
    assert not list(tmp_path.iterdir())
