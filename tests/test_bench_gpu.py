"""The card's benchmark without a card: its lines run, its synthetic checkpoint is what transformers reads."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import ROOT, TINY
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.load import build
from stilnovo.model.weights import SafetensorsReader

BENCH = ROOT / "bench"


@pytest.mark.parametrize("fused", [False, True], ids=["any processor", "avx512_bf16"])
def test_synthetic_weights_are_those_transformers_computes_with(
    fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor has avx512_bf16, `Linear4bit` in eval mode repacks its weights and computes in bf16: not so in train mode.

    Rows are whole blocks, as bitsandbytes' own layer needs on processors with AVX-512.
    """
    import bitsandbytes.nn.modules
    from transformers import AutoModelForCausalLM

    monkeypatch.syspath_prepend(str(BENCH))
    import synthetic

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: fused)
    synthetic.write(tmp_path, replace(TINY, intermediate_size=128), torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}, dtype=torch.float32).train()
    assert type(theirs.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    ours = build(SafetensorsReader(tmp_path), "nf4", torch.device("cpu"), torch.float32)
    tokens = torch.arange(30) % 97
    with torch.no_grad():
        expected = theirs(tokens[None], use_cache=False).logits[0]
        found = ours(tokens, positions_of([30]), Blocks([30]))
    assert expected.std() > 0
    # Ours reads the dense values and packs them again; the scales are quantised once more.
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.std()), rtol=0)


@pytest.mark.slow
def test_every_part_runs_on_a_tiny_shape(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "gpu.py"), "--tiny-cpu", "--tokens", "128", "--steps", "2", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--longest", "256", "--out", str(tmp_path / "out.json")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    assert record == json.loads((tmp_path / "out.json").read_text())
    assert len(record["parity"]) == 11
    assert all(row["same"] for row in record["parity"])
    assert record["context"]["longest_context_tokens"] == 256
    ours = [row for row in record["rows"] if row["contestant"] == "stilnovo"]
    assert [row["cap_bytes"] for row in ours] == [record["cap_bytes"], None]
    assert all(row["predicted_bytes"] > 0 for row in ours)
    assert all(row["tokens_per_second"] > 10 for row in record["rows"]), record["rows"]
    assert {row["contestant"] for row in record["rows"]} == {"stilnovo", "trl"}


def test_without_a_card_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = subprocess.run([sys.executable, str(BENCH / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs a CUDA card" in done.stderr
