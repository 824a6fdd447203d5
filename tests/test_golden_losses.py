"""Golden losses: a tiny fixed training of every objective has the losses that stand in `assets/losses`.

They change only when the arithmetic of a training does: then say why in the commit, and renew them with

    STILNOVO_RENEW_LOSSES=1 python -m pytest tests/test_golden_losses.py

The tolerance: everything is fp32 (forced: a processor may train in bf16) with 24 bits (6e-8), but processors sum in different
orders (AVX2 or AVX-512, one thread or several), and AdamW divides gradients by their own size, so that what is almost zero
is rounding. After six steps at these rates runs of different machines differ by about 1e-6; a wrong mask, scale, rate or
order of the data by far more than 1e-4.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stilnovo.model import processor
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import OBJECTIVES
from stilnovo.runlog import RunFolder
from stilnovo.train.run import TrainingRun

FOLDER = Path(__file__).parent / "assets" / "losses"
TOLERANCE = 1e-4
BF16_TOLERANCE = 1e-2  # 8 bits (4e-3) in each activation, fp32 in losses, adapter and optimizer
ROWS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": f"Il numero {n}: " + "parola " * (3 + n % 7)} for n in range(40)],
    "sft": [{"instruction": f"Quanto fa {n} più uno?", "output": f"Fa {n + 1}."} for n in range(40)],
    "dpo": [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(24)],
}


@pytest.mark.parametrize("engine", ["auto", "plain"])
@pytest.mark.parametrize("task", list(OBJECTIVES))
def test_losses_are_the_golden_ones(
    task: str, engine: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILNOVO_CPU", "fp32")
    losses = _losses(task, engine, tiny_folder, tmp_path)
    path = FOLDER / f"{task}.txt"
    if os.environ.get("STILNOVO_RENEW_LOSSES") and engine == "auto":
        path.write_text("".join(f"{loss:.8f}\n" for loss in losses))
    golden = _golden(task)
    assert losses == pytest.approx(golden, rel=TOLERANCE)
    assert len(golden) == 6 and golden[-1] != pytest.approx(golden[0], rel=10 * TOLERANCE)  # it learns


@pytest.mark.parametrize("task", list(OBJECTIVES))
def test_losses_of_steps_in_bf16_are_near(
    task: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "instruction_sets", lambda: ("avx2", "avx512", "avx512_bf16"))
    monkeypatch.delenv("STILNOVO_CPU", raising=False)
    losses, golden = _losses(task, "auto", tiny_folder, tmp_path), _golden(task)
    assert losses == pytest.approx(golden, rel=BF16_TOLERANCE)
    assert losses != pytest.approx(golden, rel=1e-6)  # the step did compute in another type


def _losses(task: str, engine: str, tiny_folder: Path, tmp_path: Path) -> list[float]:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[task]))
    recipe = Recipe().changed(
        {
            "model.name": str(tiny_folder), "model.device": "cpu", "model.quantization": "none", "lora.r": 4,
            "data.paths": [str(data)], "data.pack_tokens": 256, "train.task": task, "train.steps": 6,
            "train.batch_packs": 1, "train.accumulation": 2, "train.learning_rate": 1e-3, "train.engine": engine,
        }
    )  # fmt: skip
    TrainingRun(recipe, tmp_path / "run").train()
    return [row["loss"] for row in RunFolder(tmp_path / "run").metrics()]


def _golden(task: str) -> list[float]:
    return [float(line) for line in (FOLDER / f"{task}.txt").read_text().split()]
