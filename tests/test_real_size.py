"""The benchmark at the real size, on small shapes: its checkpoint, its measuring of commands, its journal and its last line."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, TINY
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.load import open_model
from stilnovo.spec import ModelSpec

SHAPE = replace(TINY, vocab_size=1024, max_positions=512)


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_checkpoint_opens_here_and_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import real_checkpoint

    real_checkpoint.write(tmp_path, SHAPE, shard_bytes=100_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ours, tokenizer = open_model(ModelSpec(str(tmp_path), quantization="none", device="cpu"))
    assert ours.config == SHAPE
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    text = "La città dorme; il guardiano del faro no."
    ids = tokenizer.encode(text)
    assert ids == AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    assert len(ids) < len(text)  # words of the sample are known
    with torch.no_grad():
        expected = theirs(torch.tensor([ids]), use_cache=False).logits[0]
        found = ours(torch.tensor(ids), positions_of([len(ids)]), Blocks([len(ids)]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_writing_that_was_stopped_goes_on(tmp_path: Path) -> None:
    import real_checkpoint

    whole = real_checkpoint.write(tmp_path / "whole", SHAPE, shard_bytes=100_000)
    shutil.copytree(whole, tmp_path / "stopped")
    stopped = tmp_path / "stopped"
    (stopped / "config.json").unlink()
    second = sorted(stopped.glob("*.safetensors"))[1]
    second.rename(second.with_suffix(".part"))
    second.with_suffix(".part").write_bytes(b"half of it")
    real_checkpoint.write(stopped, SHAPE, shard_bytes=100_000)
    assert contents(stopped) == contents(whole)


def test_a_command_is_measured() -> None:
    from measured import measure

    held = "import json, time; kept = b'1' * 2**28; time.sleep(0.3); print('text'); print(json.dumps({'a': 1}))"
    done = measure([sys.executable, "-c", held])
    assert (done.code, done.result) == (0, {"a": 1})
    assert done.output.startswith("text\n")
    assert 2**28 < done.anonymous_bytes <= done.resident_bytes < 2**28 + 2**26
    assert done.cpu_seconds > 0
    failed = measure([sys.executable, "-c", "import sys; print(input(), file=sys.stderr); sys.exit(3)"], typed="said\n")
    assert (failed.code, failed.errors, failed.result) == (3, "said\n", {})


def test_a_command_is_killed_when_it_is_told(tmp_path: Path) -> None:
    from measured import measure

    code = f"import time; open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(60)"
    assert measure([sys.executable, "-c", code], kill_when=(tmp_path / "begun").exists).code == -signal.SIGKILL


def test_a_stage_is_measured_once_and_a_failed_one_again(tmp_path: Path) -> None:
    import real_size

    done = []

    def work() -> dict[str, Any]:
        done.append(1)
        if len(done) == 1:
            raise real_size.StageError("no room")
        return {"predicted_bytes": 2**30, "measured_bytes": 2**30, "opening_cpu_seconds": 3.0}

    assert real_size.RealSize(tmp_path, None, 2).stage("train", work)["failed"] == "no room"
    for _ in range(2):
        stages = real_size.RealSize(tmp_path, None, 2)
        row = stages.stage("train", work)
        assert row["predicted_bytes"] == 2**30
        assert row["commit"]
    assert len(done) == 2
    figures = real_size.figures({**stages.rows, "write": {"failed": "it is not there"}})
    assert figures["train_predicted_bytes"] == 2**30
    assert figures["write_ratio_llama_cpp_1"] is None
    assert figures["why_not"] == {"write": "it is not there"}
    assert real_size.RealSize(tmp_path, None, 3).rows == {}  # another model's


@pytest.mark.slow
def test_every_stage_runs_on_a_small_model(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import real_size

    monkeypatch.setattr(
        real_size.RealSize, "write", lambda _: {key: 0.5 for key in real_size.FIGURES if key.startswith("write_")}
    )
    arguments = [
        "real_size.py",
        "--model",
        str(tiny_folder),
        "--folder",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out.json"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    real_size.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(real_size.FIGURES) < set(last)
    assert last["why_not"] == {}
    assert last["train_measured_bytes"] > 0
    assert {"commit", "hardware", "versions", "date", "command", "n", "rows"} <= set(
        json.loads((tmp_path / "out.json").read_text())
    )
