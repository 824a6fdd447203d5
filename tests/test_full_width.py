"""Every command on an 8B Llama 3 at its full width, two layers of it: what only shows at real sizes shows here.

The checkpoint is made here (`bench/real_checkpoint.py`), and every command is a process of its own, as a user runs it, with the
flags that a user would give. Nothing is timed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from stilnovo.io import sample
from stilnovo.plan.shape import LLAMA_3_8B

pytestmark = pytest.mark.slow
GIB = 2**30
LEARN = (
    "data.pack_tokens=64",
    "train.batch_packs=1",
    "train.accumulation=1",
    "train.checkpoint_every=1",
    "train.samples=[]",
)


@dataclass
class Wide:
    """The model, a folder to work in, and the commands that run there."""

    model: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "STILNOVO_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}

    def run(self, *arguments: str, **more: Any) -> dict[str, Any]:
        """A command that must succeed: its JSON, with `resident`, the most memory that it held."""
        measured = sys.modules["measured"]
        done = measured.stilnovo(*arguments, "--json", environment=self.environment, folder=self.folder, **more)
        assert done.code == 0, f"{' '.join(arguments)}: {done.code}\n{done.output[-1500:]}\n{done.errors[-1500:]}"
        print(f"{arguments[0]:<12}{done.cpu_seconds:7.1f} CPU-s  {done.resident_bytes / GIB:.2f} GiB")
        return {**done.result, "resident": done.resident_bytes, "said": done.output + done.errors}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wide]:
    folder = tmp_path_factory.mktemp("full-width")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        import measured  # noqa: F401
        import real_checkpoint

        real_checkpoint.write(folder / "llama", replace(LLAMA_3_8B, layers=2))
        yield Wide("llama", folder)
    shutil.rmtree(folder)  # pytest would keep gigabytes of three runs


@pytest.fixture(scope="module")
def adapter(wide: Wide) -> Path:
    """An adapter of two steps: killed after the first, and resumed."""
    import measured

    learn = [word for key in LEARN for word in ("--set", key)]
    checkpoints = wide.folder / "run" / "checkpoints"
    killed = measured.stilnovo(
        "train", "--recipe", "wikipedia-it", "--model", wide.model, "--data", "sample", "--steps", "2", "--out", "run", *learn,
        environment=wide.environment, folder=wide.folder, kill_when=(checkpoints / "step-1").is_dir,
    )  # fmt: skip
    assert killed.code == -signal.SIGKILL, killed.errors[-1500:]
    found = wide.run("train", "--resume", "--out", "run")
    assert found["steps"] == 2
    assert 10 < found["last_loss"] < 14
    return wide.folder / "run" / "adapter"


def test_models_and_doctor(wide: Wide) -> None:
    assert "anita" in wide.run("models")["models"]
    wide.run("doctor")
    assert "ok" in wide.run("doctor", "--model", wide.model)["said"]


def test_plan(wide: Wide) -> None:
    found = wide.run("plan", "--model", wide.model, "--tokens", "64")
    numbers = "hidden=4096,layers=2,heads=32,kv_heads=8,ffn=14336,vocab=128256"
    assert found["items"] == wide.run("plan", "--shape", numbers, "--tokens", "64")["items"]


def test_generate(wide: Wide) -> None:
    found = wide.run("generate", "--model", wide.model, "Dove nasce il Po?", "--max-new-tokens", "4")
    assert found["text"]
    assert found["resident"] < 6.5 * GIB


def test_an_evaluation_before_and_after_are_compared(wide: Wide, adapter: Path) -> None:
    tasks = ("--model", wide.model, "--tasks", "sample_questions", "--limit", "4")
    wide.run("evaluate", *tasks, "--quantization", "nf4", "--out", "before")
    after = wide.run("evaluate", *tasks, "--adapter", str(adapter), "--out", "after")
    assert after["resident"] < 6.5 * GIB
    assert wide.run("compare", "before", "after")


def test_chat(wide: Wide, adapter: Path) -> None:
    found = wide.run(
        "chat",
        "--model",
        wide.model,
        "--adapter",
        str(adapter),
        "--max-new-tokens",
        "4",
        typed="Ciao!\nChi era Dante?\n",
    )
    assert found["said"]


def test_ask(wide: Wide) -> None:
    wide.run("library", "add", *map(str, sample.library_texts()), "--library", "libri.sqlite")
    found = wide.run("ask", "Chi accende il faro?", "--model", wide.model, "--library", "libri.sqlite")
    assert found


def ask_service(address: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address.rstrip('/')}/v1/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_serve(wide: Wide) -> None:
    command = [
        sys.executable,
        "-m",
        "stilnovo.cli.main",
        "serve",
        "--model",
        wide.model,
        "--sample",
        "--library",
        "serviti.sqlite",
    ]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], cwd=wide.folder, env=wide.environment, stdout=subprocess.PIPE, text=True,
    ) as service:  # fmt: skip
        try:
            assert service.stdout is not None
            address = next(json.loads(line)["address"] for line in service.stdout if line.startswith("{"))
            names = [model["id"] for model in ask_service(address, "models")["data"]]
            name = next(name for name in names if name != "stilnovo-library")
            body = {"model": name, "messages": [{"role": "user", "content": "Dove nasce il Po?"}], "max_tokens": 4}
            assert ask_service(address, "chat/completions", body)["choices"][0]["message"]["content"]
        finally:
            service.send_signal(signal.SIGINT)


def test_sweep(wide: Wide, adapter: Path) -> None:
    text = wide.folder / "held-out.txt"
    text.write_text("Il faro si accende ogni sera. Il guardiano sale le scale e guarda il mare.\n", encoding="utf-8")
    found = wide.run(
        "sweep", "--model", wide.model, "--adapter", str(adapter), "--held-out", str(text), "--scales", "0,1", "--tasks", "none",
        "--prompts", "1", "--max-new-tokens", "4",
    )  # fmt: skip
    assert found["resident"] < 6.5 * GIB


def test_export(wide: Wide, adapter: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = wide.run("export", "--model", wide.model, "--adapter", str(adapter), "--out", "merged")
    assert found["resident"] < 3 * GIB
    folder = wide.folder / "merged"
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = AutoTokenizer.from_pretrained(folder)("Nel mezzo del cammin", return_tensors="pt")
    with torch.inference_mode():
        assert theirs(**ids).logits.isfinite().all()


def test_the_quantised_base_was_kept(wide: Wide, adapter: Path) -> None:
    assert adapter.is_dir()
    kept = list((wide.folder / "cache" / "bases").glob("*.safetensors"))
    assert len(kept) == 1, kept
    assert kept[0].name in wide.run("models", "--cache")["said"]
