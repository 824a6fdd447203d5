"""Two processes under torchrun: each scores a share, the result is that of one process, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import CHATML, SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo import dist

WIDE = replace(TINY, vocab_size=300)  # room for a token a byte
PROGRAM = "from stilnovo.cli.main import main\nmain()\n"
SCRIPT = """
from stilnovo import dist
mine = dist.share(list(range(7)))
assert mine == list(range(dist.rank(), 7, 2))
assert dist.gather(mine) == [[0, 2, 4, 6], [1, 3, 5]]
assert dist.same(f"from {dist.rank()}") == "from 0"
assert dist.is_first() == (dist.rank() == 0)
dist.stop()
# One write a line: torchrun's children do not buffer, and the pieces of two lines may come in between each other.
print(f"agreed {dist.rank()} {dist.world_size()}\\n", end="")
"""


def run(program: list[str], folder: Path, processes: int) -> str:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "STILNOVO_CACHE": str(folder / f"cache{processes}")}
    done = subprocess.run([*start, *program], capture_output=True, text=True, cwd=folder, env=settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shares_come_back_in_order(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    assert sorted(run(["script.py"], tmp_path, 2).splitlines()) == ["agreed 0 2", "agreed 1 2"]


def test_one_process_is_the_whole() -> None:
    dist.start()
    assert dist.share([1, 2, 3]) == [1, 2, 3]
    assert dist.gather("x") == ["x"]
    assert dist.same("x") == "x"
    assert (dist.rank(), dist.world_size(), dist.is_first()) == (0, 1, True)
    dist.stop()


def test_two_processes_evaluate_as_one(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_byte_tokenizer(model, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    write_weights(model, WIDE)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "text.txt").write_text("Nel mezzo del cammin di nostra vita.\n" * 40, encoding="utf-8")
    found: dict[int, dict[str, Any]] = {}
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        command = [
            "program.py", "evaluate", "--model", str(model), "--device", "cpu", "--tasks", "sample_questions", "--limit",
            "9", "--text", "text.txt", "--json", "--out", str(out),
        ]  # fmt: skip
        printed = run(command, tmp_path, processes)
        assert printed.count('"model"') == 1, "one process speaks"
        found[processes] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    one, two = (found[processes]["tasks"]["sample_questions"] for processes in (1, 2))
    assert [item["id"] for item in two["items"]] == [item["id"] for item in one["items"]]
    for item, other in zip(two["items"], one["items"], strict=True):
        assert item["loglikelihoods"] == pytest.approx(other["loglikelihoods"], abs=1e-5)
    assert found[2]["text"]["nats"] == pytest.approx(found[1]["text"]["nats"], abs=1e-4)
