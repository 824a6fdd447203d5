"""`stilnovo train` as people use it: stopped, resumed by its folder alone, and asked afterwards without dropout."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stilnovo.cli.common import load_weights, writer_of
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama, open_model
from stilnovo.runlog import RunFolder
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "parola " * (3 + i % 7)}) + "\n" for i in range(60)))
    return path


def options(model: Path, rows: Path, folder: Path, *more: str) -> list[str]:
    """A training of many short steps."""
    return [
        "train", "--model", str(model), "--quantization", "none", "--device", "cpu", "--data", str(rows), "--out", str(folder),
        "--steps", "100000", "--set", "data.pack_tokens=64", "--set", "lora.r=2", "--set", "train.batch_packs=1", *more,
    ]  # fmt: skip


def begun(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, some steps after its start or resume."""
    before = len(RunFolder(folder).metrics()) if folder.exists() else 0
    process = subprocess.Popen(
        [sys.executable, "-m", "stilnovo.cli.main", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not folder.exists() or len(RunFolder(folder).metrics()) < before + 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_stopped_training_says_how_to_go_on_and_goes_on_by_its_folder_alone(
    tiny_folder: Path, rows: Path, tmp_path: Path
) -> None:
    """Stopped by Ctrl-C, resumed with its folder alone, stopped by SIGTERM: every step is there once."""
    folder = tmp_path / "run"
    for arguments, signal_number in (
        (options(tiny_folder, rows, folder), signal.SIGINT),
        (["train", "--resume", "--out", str(folder)], signal.SIGTERM),
    ):
        process = begun(folder, arguments)
        process.send_signal(signal_number)
        said = process.communicate(timeout=100)[1].splitlines()
        last = re.fullmatch(r"Stopped at step (\d+) of 100000\. Continue from step (\d+) with --resume\.", said[-1])
        assert process.returncode == 130 and last is not None, said[-3:]
        assert f"stilnovo train --resume --out {folder}" in said[-2]
        steps = [row["step"] for row in RunFolder(folder).metrics()]
        assert steps == list(range(1, int(last[1]) + 1)) and last[1] == last[2]


def stopped(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in this process, stopped after its third step as by a kill: nothing is saved."""
    from stilnovo.train.loop import Trainer

    step = Trainer.train_step

    def three(self: Trainer, *batches: object) -> object:
        if self.step == 3:
            raise SystemExit(9)
        return step(self, *batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", three)
        assert CliRunner().invoke(app, arguments).exit_code == 9
    assert (folder / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (["--learning-rate", "0.01"], ["train.learning_rate"]),
        (["--quantization", "nf4"], ["model.quantization"]),
        (["--set", "lora.r=4", "--set", "data.pack_tokens=32"], ["lora.r", "data.pack_tokens"]),
        (["--steps", "7"], ["train.steps"]),
    ],
)
def test_another_option_at_a_resume_is_refused_by_name(
    changes: list[str], names: list[str], tiny_folder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    stopped(folder, options(tiny_folder, rows, folder, "--steps", "5"), monkeypatch)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = CliRunner().invoke(app, ["train", "--resume", "--out", str(folder), *changes])
    assert isinstance(refused.exception, InputError) and refused.exception.exit_code == 2
    assert refused.exception.found == f"Changed: {', '.join(names)}"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    done = CliRunner().invoke(app, ["train", "--resume", "--out", str(folder), "--set", "train.checkpoint_every=1"])
    assert done.exit_code == 0, done.output
    assert [row["step"] for row in RunFolder(folder).metrics()] == [1, 2, 3, 4, 5]


def dropping(folder: Path, base: Path, dropout: float) -> Path:
    """An adapter that was learnt with dropout."""
    model, config = open_llama(ModelSpec(str(base), device="cpu")), lora.LoraConfig(r=4, dropout=dropout)
    lora.attach(model, config)
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(model).values():
        module.lora_B.data = 0.3 * torch.randn(module.lora_B.shape, generator=generator)
    lora.save(model, config, folder, str(base))
    return folder


def logits(model: Llama) -> torch.Tensor:
    tokens = torch.arange(3, 40)
    with torch.no_grad():
        return model(tokens, positions_of([len(tokens)]), Blocks([len(tokens)]))


def written(spec: ModelSpec) -> Llama:
    """As `chat`, `ask` and `serve` open a model."""
    writer = writer_of(spec.model, spec.adapter, "none", None, None, None, "cpu")
    load_weights(writer)
    assert isinstance(writer, Generator)
    return writer.model


def on_the_base(spec: ModelSpec) -> Llama:
    """As a training opens its frozen adapter."""
    model = open_llama(replace(spec, adapter=None))
    assert spec.adapter is not None
    lora.attach_frozen(model, spec.adapter)
    return model


@pytest.mark.parametrize(
    "opened",
    [open_llama, lambda spec: open_model(spec)[0], written, on_the_base],
    ids=["llama", "model", "writer", "frozen"],
)
def test_nothing_is_dropped_at_inference(
    opened: Callable[[ModelSpec], Llama], tiny_folder: Path, tmp_path: Path
) -> None:
    spec = ModelSpec(str(tiny_folder), quantization="none", device="cpu")
    bare = logits(open_llama(replace(spec, adapter=dropping(tmp_path / "bare", tiny_folder, 0.0))))
    model = opened(replace(spec, adapter=dropping(tmp_path / "dropping", tiny_folder, 0.5)))
    assert not any(module.training for module in model.modules())
    assert torch.allclose(logits(model), bare, atol=1e-5) and torch.equal(logits(model), logits(model))
    assert not torch.allclose(bare, logits(open_llama(spec)), atol=0.1)
    if opened is on_the_base:  # what is frozen never drops, while another adapter learns on it neither
        assert torch.equal(logits(model.train()), logits(model))


def test_answers_at_temperature_0_are_equal(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = str(dropping(tmp_path / "adapter", tiny_folder, 0.5))
    shared = ["--model", str(tiny_folder), "--quantization", "none", "--adapter", adapter, "--device", "cpu"]
    few = [*shared, "--temperature", "0", "--max-new-tokens", "12"]
    answers = [CliRunner().invoke(app, ["generate", "Ciao", *few]) for _ in range(3)]
    assert all(answer.exit_code == 0 for answer in answers), answers[0].output
    assert len({answer.stdout for answer in answers}) == 1 and answers[0].stdout.strip()
    talks = [CliRunner().invoke(app, ["chat", *few], input="Ciao\nE poi?\n") for _ in range(2)]
    assert talks[0].exit_code == 0, talks[0].output
    assert talks[0].stdout == talks[1].stdout
    engine = writer_of(str(tiny_folder), Path(adapter), "none", None, None, None, "cpu")
    assert isinstance(engine, Generator)
    (texts,) = {tuple(engine.stream([Message("user", "Ciao")], Sampling(0.0, max_new_tokens=12))) for _ in range(2)}
    assert texts


def test_every_module_opens_where_unix_modules_are_missing() -> None:
    """As on Windows: none of the package's own modules needs what only Unix has; what it imports has its own ways."""
    code = """
import builtins, importlib, pkgutil
import stilnovo
missing, real = {"resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "syslog"}, builtins.__import__
def on_windows(name, globals=None, *more, **named):
    if name.partition(".")[0] in missing and str((globals or {}).get("__name__")).startswith("stilnovo"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, globals, *more, **named)
builtins.__import__ = on_windows
names = [module.name for module in pkgutil.walk_packages(stilnovo.__path__, "stilnovo.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an optional package that is not installed
        if error.name in missing or error.name.startswith("stilnovo"):
            raise
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 150
