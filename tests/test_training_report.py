"""The page of a training: written by every training, bounded, escaped, honest about its status, and cheap."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stilnovo.api import train_recipe
from stilnovo.plan.ledger import MemoryItem
from stilnovo.recipe import Recipe
from stilnovo.report import training
from stilnovo.report.charts import loss_chart, step_chart
from stilnovo.report.training import TrainingReport, read_training, training_page
from stilnovo.runlog import RunFolder
from stilnovo.train.loop import Trainer


def folder_of(path: Path, steps: int, *, evaluations: int = 10, seed: int = 0, answer: str = "Dante.") -> RunFolder:
    """A run folder as a training of so many steps leaves it."""
    chance, folder = random.Random(seed), RunFolder(path)
    folder.write_manifest(
        recipe=Recipe().model_dump(mode="json"), steps=steps, remarks=["3 left out, no text (first: rows.jsonl:3)"],
        documents=40, tokens_per_epoch=12345, trainable_parameters=10, total_parameters=1000,
    )  # fmt: skip
    lines = []
    for step in range(1, steps + 1):
        row: dict[str, Any] = {
            "step": step, "loss": 2 + 3 * math.exp(-step / steps) + chance.random(), "learning_rate": 1e-4, "gradient_norm": 1.0,
            "tokens": 10 * step, "tokens_per_second": 100.0, "seconds": 0.1 * step, "memory_bytes": 2**30,
        }  # fmt: skip
        if step % max(1, steps // evaluations) == 0:
            row |= {
                "held_out_loss": 3.5,
                "base_held_out_loss": 4.25,
                "samples": [{"prompt": "Chi è?", "answer": answer}],
            }
        lines.append(json.dumps(row) + "\n")
    (path / "metrics.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("steps", [0, 1, 2, 137])
@pytest.mark.parametrize("status", ["running", "interrupted", "finished", "stopped early", "failed"])
def test_a_run_of_any_length_has_a_page(steps: int, status: str, tmp_path: Path) -> None:
    record = read_training(folder_of(tmp_path / "a run", steps), [MemoryItem("logits", "card", 100)], 200)
    record.status, record.why = status, "The loss is nan." if status == "failed" else ""
    page = training_page(record)
    assert f"{steps:,} of {steps:,} steps" in page or steps == 0
    assert ("stilnovo train --resume --out" in page) == (status in ("running", "interrupted", "failed"))
    assert ("The loss is nan." in page) == (status == "failed")
    assert "3 left out, no text" in page and "logits" in page
    assert ("4.250" in page and "Chi è?" in page) == (steps > 0)
    assert ("Rate, norm and speed" in page) == (steps > 1)


def test_the_page_does_not_grow_with_the_run(tmp_path: Path) -> None:
    short = training_page(read_training(folder_of(tmp_path / "short", 500)))
    long = training_page(
        read_training(folder_of(tmp_path / "long", 20_000, evaluations=2_000, answer="parola " * 20_000))
    )
    assert len(long) < 1.5 * len(short) + 20_000


def test_generated_text_and_file_names_are_escaped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "<b>run", 3, answer="<script>alert(1)</script>\x00\ud800")
    page = training_page(read_training(folder))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "<b>run" not in page
    page.encode()


def test_odd_figures_do_not_spoil_the_charts() -> None:
    rows = [
        {"step": step, "loss": loss, "tokens": step, "learning_rate": 0.1, "held_out_loss": held}
        for step, loss, held in ((1, 2.0, math.nan), (2, math.inf, 1.0), (3, 1.5, None), (4, 1.0, 9.0))
    ]
    chart = loss_chart(rows, width=700, key="k")
    assert chart is not None and "nan" not in chart and "inf" not in chart and "held-out loss 9.000" in chart
    assert step_chart(rows, "absent", "norm", width=700, key="k") is None
    assert step_chart(rows[:1], "loss", "loss", width=700, key="k") is None


def changes(tiny: Path, **more: Any) -> dict[str, Any]:
    return {
        "model.name": str(tiny), "model.device": "cpu", "lora.r": 4, "data.max_documents": 10, "data.pack_tokens": 64,
        "train.steps": 3, "train.checkpoint_every": 1, **more,
    }  # fmt: skip


def status_of(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["status"])


def test_a_training_writes_its_page(tmp_path: Path, tiny_folder: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("uno due tre quattro", "", "cinque sei sette otto"))
    )
    train_recipe(Recipe(), tmp_path / "run", changes=changes(tiny_folder, **{"data.paths": [str(rows)]}))
    page = (tmp_path / "run" / "report.html").read_text()
    assert status_of(tmp_path / "run") == "finished" and "Finished after 3 of 3 steps" in page
    assert "1 left out" in page and "frozen projections" in page and "Sum of the measured items" in page


def test_an_interrupted_and_a_failed_training_have_one_and_a_resumed_one_shows_all(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, out = Trainer.train_step, tmp_path / "run"

    def stopping(self: Trainer, batches: Any) -> Any:
        if self.step == 2:
            raise error
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", stopping)
    error: BaseException = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_recipe(Recipe(), out, changes=changes(tiny_folder))
    assert status_of(out) == "interrupted" and "Interrupted after 2 of 3 steps" in (out / "report.html").read_text()
    error = ValueError("a <fault>")
    with pytest.raises(ValueError, match="fault"):
        train_recipe(Recipe(), out, changes=changes(tiny_folder), resume=True)
    assert status_of(out) == "failed" and "a &lt;fault&gt;" in (out / "report.html").read_text()
    monkeypatch.setattr(Trainer, "train_step", step)
    train_recipe(Recipe(), out, changes=changes(tiny_folder), resume=True)
    assert "Finished after 3 of 3 steps" in (out / "report.html").read_text()


def test_pairs_have_their_own_figures_and_the_end_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", 3)
    recipe = Recipe().changed({"train.task": "dpo"}).model_dump(mode="json")
    folder.write_manifest(recipe=recipe, steps=3)
    rows = [{**row, "margin": -0.25 * row["step"], "accuracy": 0.5} for row in folder.metrics()]
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stop = {"ended": True, "adapter_step": 2, "why": "regressed <much>"}
    folder.write_json("train.json", {"held_out": {"n": 4, "loss": 0.5}, "guard": stop, "memory": []})
    page = training_page(read_training(folder))
    for shown in (
        "nats per pair",
        "margin against training step",
        "From −0.250 to −0.750",
        "held-out loss",
        "0.5000",
        "regressed &lt;much&gt;",
    ):
        assert shown in page
    assert "held_out_loss against" not in page and "nats per token" not in page


def test_renewals_take_less_than_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = [0.0], []
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def page(record: Any) -> str:
        clock[0] += 0.5
        written.append(clock[0])
        return "page"

    monkeypatch.setattr(training, "training_page", page)
    run: Any = SimpleNamespace(recipe=Recipe(), folder=folder_of(tmp_path, 2), corpus=None, plan=None)
    report = TrainingReport()
    report.begin(run)
    for step in range(1, 1001):
        clock[0] += 1.0
        report.checkpoint(step)
    report.end(run, "finished")
    assert 0.5 * len(written) < 0.01 * clock[0] + 1.5
    assert len(written) > 10
