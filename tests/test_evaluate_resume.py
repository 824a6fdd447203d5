"""An evaluation that was interrupted, killed or repeated: nothing is asked twice, nothing comes from another model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Decoding, Draw, Generation, MultipleChoice, Selection, Task, item_sha256, select
from stilnovo.benchmarks.tasks import SAMPLES, TASKS
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.scoring import evaluate as module
from stilnovo.scoring import identity as identities
from stilnovo.scoring import perplexity
from stilnovo.scoring.answer_cache import FILE_NAME, AnswerCache, ModelCache
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.packed import ItemScore, ModelAnswer
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import EvaluationResult, load_result
from stilnovo.spec import ModelSpec
from test_evaluate_scoring import byte_tokenizer, tiny_llama

ONE = Identity("weights", None, "none", "float32", "cpu")
TEXTS = [f"Documento numero {number}, breve ma vero. " * 20 for number in range(9)]


class Asked:
    """Counts the items that the model was really asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        honest_score, honest_write, honest_read = module.answers, module.write, perplexity.read_documents

        def score(model: Any, tokenizer: Any, items: Sequence[Any], **options: Any) -> Any:
            self.ids += [item.id for item in items]
            return honest_score(model, tokenizer, items, **options)

        def write(model: Any, tokenizer: Any, items: Sequence[Any], **options: Any) -> Any:
            self.ids += [item.id for item in items]
            return honest_write(model, tokenizer, items, **options)

        def read(model: Any, name: str, version: str, hashes: Any, readings: Any, *rest: Any) -> Any:
            def counted(number: int) -> Any:
                self.ids += [f"document {number}"] if name == perplexity.TEXT else []
                return readings(number)

            return honest_read(model, name, version, hashes, counted, *rest)

        monkeypatch.setattr(module, "answers", score)
        monkeypatch.setattr(module, "write", write)
        monkeypatch.setattr(perplexity, "read_documents", read)


def run(
    cache: AnswerCache | None,
    progress: Callable[[str, int, int], None] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> EvaluationResult:
    return evaluate(
        tiny_llama(seed=seed), byte_tokenizer(True), [select(TASKS[name], draw=Draw(limit)) for name in SAMPLES], texts=TEXTS,
        text_name="prova", model_name="tiny",
        options=ReadOptions(
            512, progress, ModelCache(cache, replace(ONE, weights_sha256=str(seed))) if cache is not None else None
        ),
    )  # fmt: skip


def same_answers(first: EvaluationResult, second: EvaluationResult) -> bool:
    """Everything but times and where it came from; likelihoods up to rounding, which depends on what shared a pass."""
    assert first.text is not None and second.text is not None
    pairs = [(task, second.tasks[name]) for name, task in first.tasks.items()]
    return (
        list(first.tasks) == list(second.tasks)
        and all((a.hashes, a.items_sha256, a.truncated) == (b.hashes, b.items_sha256, b.truncated) for a, b in pairs)
        and all(_alike(x, y) for a, b in pairs for x, y in zip(a.items, b.items, strict=True))
        and first.text.nats == pytest.approx(second.text.nats, abs=1e-3)
        and replace(first.text, nats=()) == replace(second.text, nats=())
    )


def _alike(first: ItemScore, second: ItemScore) -> bool:
    close = first.loglikelihoods == pytest.approx(second.loglikelihoods, abs=1e-3)
    return close and replace(first, loglikelihoods=()) == replace(second, loglikelihoods=())


def quiet(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("stop", [("sample_questions", 7), ("sample_completions", 20), ("held-out text", 2)])
def test_an_interrupted_evaluation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, int]
) -> None:
    whole = run(None)

    def interrupt(name: str, done: int, total: int) -> None:
        if name == stop[0] and done >= stop[1]:
            raise KeyboardInterrupt

    with AnswerCache(tmp_path, quiet) as cache, pytest.raises(KeyboardInterrupt):
        run(cache, interrupt)
    asked = Asked(monkeypatch)
    with AnswerCache(tmp_path, quiet) as cache:
        resumed = run(cache)
        everything = 60 + 40 + len(TEXTS)
        kept = sum(task.cached for task in resumed.tasks.values())
        assert len(asked.ids) == len(set(asked.ids)) < everything
        assert kept > 0
        assert same_answers(resumed, whole)
        asked.ids.clear()
        again = run(cache)
    assert asked.ids == []
    assert [task.cached for task in again.tasks.values()] == [60, 40]
    assert [task.items_per_second for task in again.tasks.values()] == [None, None]
    assert same_answers(again, whole)


def test_a_subset_is_the_beginning_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 20 items answered is not asked again by the run over all of them."""
    with AnswerCache(tmp_path, quiet) as cache:
        first = run(cache, limit=20)
        asked = Asked(monkeypatch)
        second = run(cache)
    assert [task.cached for task in second.tasks.values()] == [20, 20]
    assert not {item.id for task in first.tasks.values() for item in task.items} & set(asked.ids)


def test_another_model_is_asked_everything(tmp_path: Path) -> None:
    with AnswerCache(tmp_path, quiet) as cache:
        first = run(cache, limit=10)
        second = run(cache, limit=10, seed=1)
    assert [task.cached for task in second.tasks.values()] == [0, 0]
    assert not same_answers(second, first)
    assert same_answers(second, run(None, limit=10, seed=1))


def test_groups_are_named_by_today_s_items(tmp_path: Path) -> None:
    """A better grouping of the same questions needs no new answers."""
    items = tuple(MultipleChoice(str(n), f"Domanda {n}:", (" sì", " no"), n % 2) for n in range(6))
    grouped = tuple(replace(item, cluster=f"p{n // 2}", category="prova") for n, item in enumerate(items))
    model, tokenizer = tiny_llama(), byte_tokenizer(True)

    def asked(items: tuple[MultipleChoice, ...], cache: AnswerCache) -> EvaluationResult:
        selection = Selection(TASKS["sample_questions"], "test", items, 6, 42)
        return evaluate(
            model, tokenizer, [selection], model_name="tiny", options=ReadOptions(cache=ModelCache(cache, ONE))
        )

    with AnswerCache(tmp_path, quiet) as cache:
        asked(items, cache)
        task = asked(grouped, cache).tasks["sample_questions"]
    assert task.cached == 6
    assert task.clusters == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert list(task.by_category()) == ["prova"]


def test_written_answers_are_kept_with_their_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(temperature: float) -> Task:
        items = [Generation(str(n), f"Domanda {n}:", ("sì",), Decoding(4, temperature=temperature)) for n in range(5)]
        return Task("scritte", "1", "", "", ("exact_match",), ("test",), lambda _: items,
                    grade=lambda text, item: {"exact_match": float(text == item.references[0])})  # fmt: skip

    model, tokenizer = tiny_llama(), byte_tokenizer(True)

    def texts(temperature: float, seed: int, cache: AnswerCache) -> list[str]:
        selections = [select(task(temperature), draw=Draw(seed=seed))]
        result = evaluate(
            model, tokenizer, selections, model_name="tiny", options=ReadOptions(cache=ModelCache(cache, ONE))
        )
        return [item.text for item in result.tasks["scritte"].items]

    asked = Asked(monkeypatch)
    with AnswerCache(tmp_path, quiet) as cache:
        greedy = texts(0.0, 1, cache)
        assert texts(0.0, 2, cache) == greedy
        assert len(asked.ids) == 5, "greedy answers have no seed"
        drawn = texts(1.0, 1, cache)
        assert texts(1.0, 1, cache) == drawn
        assert len(asked.ids) == 10
        assert texts(1.0, 2, cache) != drawn
        assert len(asked.ids) == 15


def test_a_killed_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
    import os, signal, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from pathlib import Path
    from stilnovo.scoring.answer_cache import AnswerCache
    from test_evaluate_resume import run
    def die(name, done, total):
        if name == "sample_completions" and done >= 12:
            os.kill(os.getpid(), signal.SIGKILL)
    run(AnswerCache(Path({str(tmp_path)!r}), print), die)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    asked = Asked(monkeypatch)
    with AnswerCache(tmp_path, quiet) as cache:
        resumed = run(cache)
    assert resumed.tasks["sample_questions"].cached == 60
    assert 12 <= resumed.tasks["sample_completions"].cached < 40
    assert len(asked.ids) == 40 - resumed.tasks["sample_completions"].cached + len(TEXTS)
    assert same_answers(resumed, run(None))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["evaluate", "--tasks", "sample_questions", "--limit", "12", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return loaded


def write_adapter(model: Path, folder: Path, seed: int) -> None:
    llama, _ = open_model(ModelSpec(str(model), quantization="none", device="cpu"))
    config = LoraConfig(r=2, alpha=4.0, projections=("q_proj", "v_proj"))
    lora.attach(llama, config, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in lora.parameters(llama):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    lora.save(llama, config, folder, str(model))


def test_a_changed_adapter_is_never_served_another_s_answers(commands: Path, tiny_folder: Path) -> None:
    """Same path, same size, same time, other content: asked anew. Same content elsewhere: served."""
    model, adapter = ("--model", str(tiny_folder)), commands / "adapter"
    write_adapter(tiny_folder, adapter, seed=1)
    first = command(*model, "--adapter", "adapter", "--out", "first")
    weights, stamp = adapter / "adapter_model.safetensors", (adapter / "adapter_model.safetensors").stat()
    shutil.copytree(adapter, commands / "elsewhere")
    write_adapter(tiny_folder, adapter, seed=2)
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    second = command(*model, "--adapter", "adapter", "--out", "second")
    honest = command(*model, "--adapter", "adapter", "--no-cache", "--out", "honest")
    moved = command(*model, "--adapter", "elsewhere", "--out", "moved")
    base = command(*model, "--out", "base")
    cached = [run["tasks"]["sample_questions"]["cached"] for run in (first, second, honest, moved, base)]
    assert cached == [0, 0, 0, 12, 0]
    items = {
        name: load_result(Path(name)).tasks["sample_questions"].items for name in ("first", "second", "honest", "moved")
    }
    assert items["second"] == items["honest"] != items["first"] == items["moved"]
    identity = load_result(Path("second")).identity
    assert identity is not None and identity["adapter_sha256"] == identities.adapter_sha256(adapter)


def test_changed_weights_are_another_model(commands: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder, commands / "model")
    command("--model", "model", "--out", "first")
    assert command("--model", "model")["tasks"]["sample_questions"]["cached"] == 12
    path, stamp = commands / "model" / "model.safetensors", (commands / "model" / "model.safetensors").stat()
    content = bytearray(path.read_bytes())
    content[-64:] = bytes(64)
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert command("--model", "model")["tasks"]["sample_questions"]["cached"] == 0
    assert command("--model", "model", "--quantization", "int8")["tasks"]["sample_questions"]["cached"] == 0


def test_an_adapter_that_changes_while_it_is_read(
    commands: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tiny_folder, commands / "adapter", seed=1)
    honest = open_model

    def slow(*arguments: Any, **options: Any) -> Any:
        opened = honest(*arguments, **options)
        write_adapter(tiny_folder, commands / "adapter", seed=2)
        return opened

    monkeypatch.setattr("stilnovo.model.load.open_model", slow)
    result = CliRunner().invoke(app, ["evaluate", "--model", str(tiny_folder), "--adapter", "adapter", "--limit", "3"])
    assert isinstance(result.exception, InputError)
    assert "changed while it was read" in str(result.exception)
    assert not (commands / "runs").exists()


def test_weights_that_change_while_they_are_read(
    commands: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, commands / "model")
    honest, path = open_model, commands / "model" / "model.safetensors"

    def slow(*arguments: Any, **options: Any) -> Any:
        opened = honest(*arguments, **options)
        path.write_bytes(path.read_bytes()[:-64] + bytes(64))
        return opened

    monkeypatch.setattr("stilnovo.model.load.open_model", slow)
    for extra in ([], ["--no-cache"]):
        shutil.copy(tiny_folder / "model.safetensors", path)
        result = CliRunner().invoke(app, ["evaluate", "--model", "model", "--limit", "3", *extra])
        assert isinstance(result.exception, InputError)
        assert "changed while they were read" in str(result.exception)


def test_ctrl_c_says_that_the_command_goes_on(
    commands: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module.answers

    def interrupted(*arguments: Any, **options: Any) -> Any:
        yield next(honest(*arguments, **{**options, "token_budget": 300}))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "answers", interrupted)
    asked = ["evaluate", "--tasks", "sample_questions", "--limit", "12", "--model", str(tiny_folder)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code != 0
    assert "the same command goes on from there" in result.stderr
    monkeypatch.setattr(module, "answers", honest)
    assert 0 < command("--model", str(tiny_folder))["tasks"]["sample_questions"]["cached"] < 12


def test_where_the_cache_lies_and_that_it_can_be_left_out(commands: Path, tiny_folder: Path) -> None:
    command("--model", str(tiny_folder), "--no-cache")
    assert not (commands / "cache").exists()
    command("--model", str(tiny_folder), "--cache", "mine")
    assert (commands / "mine" / FILE_NAME).is_file()
    (commands / "cache").mkdir()
    (commands / "cache" / FILE_NAME).write_bytes(b"no database " * 99)
    result = CliRunner().invoke(app, ["evaluate", "--model", str(tiny_folder), "--limit", "3"])
    assert result.exit_code == 0
    assert "The answer cache cannot be used" in result.stderr


def test_a_run_can_be_repeated_from_its_file(commands: Path, tiny_folder: Path) -> None:
    """Command, settings, seeds, versions, commit, hardware and every hash."""
    command("--model", str(tiny_folder), "--seed", "7", "--out", "run")
    content = json.loads((commands / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert content["settings"]["seed"] == content["tasks"]["sample_questions"]["seed"] == 7
    assert {"commit", "versions", "hardware", "date"} <= set(content["environment"])
    assert content["command"]
    assert all(len(content["identity"][key]) == 64 for key in ("weights_sha256", "code_sha256"))
    assert content["identity"]["adapter_sha256"] is None
    hashes = content["tasks"]["sample_questions"]["hashes"]
    items = select(TASKS["sample_questions"], draw=Draw(12, 7)).items
    assert hashes == [item_sha256(item) for item in items]


def test_prompts_are_not_held_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of 8 kB: to the run and the cache each further item adds what its answer takes, not its prompt."""

    def score(_: Any, __: Any, items: Sequence[MultipleChoice], **___: Any) -> Iterator[list[tuple[int, ModelAnswer]]]:
        for index in range(len(items)):
            yield [(index, ModelAnswer((-1.0, -2.0)))]

    monkeypatch.setattr(module, "answers", score)

    def peak(count: int) -> int:
        items = tuple(
            MultipleChoice(str(n), f"{count} {n} " + "parola " * 1150, (" sì", " no"), 0) for n in range(count)
        )
        selection = Selection(TASKS["sample_questions"], "test", items, count, 42)
        with AnswerCache(tmp_path, quiet) as cache:
            tracemalloc.start()
            try:
                evaluate(
                    tiny_llama(),
                    byte_tokenizer(True),
                    [selection],
                    model_name="tiny",
                    options=ReadOptions(cache=ModelCache(cache, ONE)),
                )
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(10)  # what is made once
    growth = (peak(900) - peak(300)) / 600
    assert growth < 2000
