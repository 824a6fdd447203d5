"""Training from prepared shards, killed with SIGKILL again and again, ends as if nothing had happened.

A warm parent (torch imported, nothing computed) forks each training, so that a kill costs no new interpreter. Every
second kill falls while a checkpoint is being written, the others anywhere: while the model is opened, in a step, between
steps. What is killed is resumed from its newest checkpoint as a user would, or started anew when it had none yet.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stilnovo.data.prepare import prepare
from stilnovo.data.work import PreparationSettings
from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.runlog import RunFolder
from stilnovo.text.tokenizer import from_folder

STEPS = 24
CLOCKS = {"seconds", "tokens_per_second", "memory_bytes"}  # of a line of metrics, what no two runs share
WEIGHTS = "adapter/adapter_model.safetensors"


def run(recipe: dict[str, Any], folder: Path) -> None:
    """Train in this process: resume when there is a checkpoint, else begin, over the remains of an earlier start."""
    from stilnovo.recipe import Recipe
    from stilnovo.train.run import TrainingRun

    resume = any((folder / "checkpoints").glob("step-*"))
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    TrainingRun(Recipe.model_validate(recipe), folder, resume=resume).train()


def forked(recipe: dict[str, Any], folder: Path) -> int:
    """The process id of a child that trains and then ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            os.dup2(log.fileno(), 2)
            run(recipe, folder)
        (folder.parent / "modules.json").write_text(json.dumps(sorted(sys.modules)))
        status = 0
    finally:
        os._exit(status)


def outcome(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    """All that must be equal: every figure of every step but the clocks, and the adapter's bytes."""
    rows = [{key: row[key] for key in row.keys() - CLOCKS} for row in RunFolder(folder).metrics()]
    return rows, (folder / WEIGHTS).read_bytes()


def ended(child: int) -> bool:
    """Whether a child has ended by itself; it must have ended well."""
    found, status = os.waitpid(child, os.WNOHANG)
    assert not found or status == 0, f"a training failed: {status}"
    return bool(found)


def moment(kind: str, folder: Path, whole: float, rng: random.Random) -> Iterator[None]:
    """Waits for a random moment, a little at each turn."""
    if kind == "anywhere":
        until = time.monotonic() + rng.uniform(0, 0.6) * whole
        while time.monotonic() < until:
            yield time.sleep(0.001)
        return
    for _ in range(rng.randint(1, 4)):  # the first to the fourth checkpoint from here
        while any(folder.glob("checkpoints/.*.partial")):
            yield time.sleep(0.0001)
        while not any(folder.glob("checkpoints/.*.partial")):
            yield time.sleep(0.0001)
    yield time.sleep(rng.uniform(0, 0.003))


def kill_often(recipe: dict[str, Any], work: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill `kills` times; each training that comes to its end is compared with one that nobody disturbed."""
    rng = random.Random(seed)
    start = time.monotonic()
    assert os.waitpid(forked(recipe, work / "whole"), 0)[1] == 0
    whole = time.monotonic() - start
    for name in json.loads((work / "modules.json").read_text()):  # what a training imports on its way
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    expected = outcome(work / "whole")
    assert len(expected[0]) == STEPS
    done, trainings = list[dict[str, Any]](), 0
    while len(done) < kills or (work / f"cut{trainings}").exists():
        folder = work / f"cut{trainings}"
        child = forked(recipe, folder)
        kind = "while saving" if len(done) % 2 else "anywhere"
        if len(done) < kills:
            over = any(ended(child) for _ in moment(kind, folder, whole, rng))
        else:
            over = os.waitpid(child, 0)[1] == 0
            assert over, "the last resumption failed"
        if over:
            assert outcome(folder) == expected, f"training {trainings} ended otherwise, after {done}"
            trainings += 1
            continue
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if status == 0:  # it had come to its end in that very moment
            assert outcome(folder) == expected
            trainings += 1
            continue
        assert os.WTERMSIG(status) == signal.SIGKILL
        metrics = folder / "metrics.jsonl"
        steps = metrics.read_text().count("\n") if metrics.is_file() else 0
        partial = any(folder.glob("checkpoints/.*.partial"))
        done.append({"kind": kind, "training": trainings, "steps_done": steps, "checkpoint_half_written": partial})
    return {"kills": done, "trainings": trainings, "steps": STEPS, "seed": seed, "all_equal": True}


def described(tiny_folder: Path, work: Path) -> dict[str, Any]:
    """A recipe of a training from prepared shards: some epochs of few packs, dropout, warm-up, a checkpoint every step."""
    rng = random.Random(1)
    texts = [row["text"][: rng.randint(40, 240)] for row in read_rows(sample.path("encyclopaedia_a.jsonl"))]
    data = work / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare(PreparationSettings((str(data),)), from_folder(tiny_folder), str(tiny_folder), work / "prepared")
    return {
        "model": {"name": str(tiny_folder), "device": "cpu", "quantization": "none"},
        "lora": {"r": 4, "dropout": 0.1},
        "data": {"paths": [str(work / "prepared")], "pack_tokens": 256},
        "train": {"steps": STEPS, "checkpoint_every": 1, "learning_rate": 1e-2, "warmup_steps": 5, "optimizer": "adamw"},
    }  # fmt: skip


def in_a_warm_parent(tiny_folder: Path, work: Path, kills: int, seed: int) -> dict[str, Any]:
    """`kill_often` in a process of its own that has imported everything and computed nothing."""
    (work / "recipe.json").write_text(json.dumps(described(tiny_folder, work)), encoding="utf-8")
    script = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_kills, torch\n"
        "import stilnovo.train.run; torch.set_num_threads(1); work = Path(sys.argv[2])\n"
        "recipe = json.loads((work / 'recipe.json').read_text())\n"
        "print(json.dumps(test_kills.kill_often(recipe, work, int(sys.argv[3]), int(sys.argv[4]))))\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(work), str(kills), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    logs = "".join(path.read_text(errors="replace")[-1500:] for path in sorted(work.glob("*.log")))
    assert found.returncode == 0, f"{found.stderr[-3000:]}\n{logs}"
    return json.loads(found.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_four_kills_leave_no_trace(tiny_folder: Path, tmp_path: Path) -> None:
    found = in_a_warm_parent(tiny_folder, tmp_path, 4, seed=5)
    assert len(found["kills"]) == 4
    assert found["trainings"] >= 1


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tiny_folder: Path, tmp_path: Path) -> None:
    found = in_a_warm_parent(tiny_folder, tmp_path, 20, seed=42)
    assert len(found["kills"]) == 20
    assert any(kill["checkpoint_half_written"] for kill in found["kills"])
    assert len({kill["steps_done"] for kill in found["kills"]}) > 5
    # For the record in results/.
    print(json.dumps(found))
