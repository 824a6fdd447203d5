"""What a written token costs a card by arithmetic, at the width of an 8B model: little more than reading its weights once."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stilnovo.plan.levers import BLOCK, NESTED_BLOCK
from stilnovo.plan.shape import LLAMA_3_8B

BENCH = Path(__file__).parents[1] / "bench"
CONFIG = replace(LLAMA_3_8B, layers=8)


def counted(kernels: str) -> list[tuple[int, int]]:
    """Bytes and launches of a token, with kernels or without, in a process of its own, which sets aside what it decided once."""
    code = (
        "import decode_floor, json; from dataclasses import replace; from stilnovo.plan.shape import LLAMA_3_8B as c; "
        "c = replace(c, layers=8); print(json.dumps([[t.bytes, t.launches] for t in (decode_floor.token(c, way, texts, 1000, on) "
        "for way, texts, on in (('plain', 1, False), ('fused', 1, False), ('fused', 8, False), ('fused', 1, True)))]))"
    )
    environment = {"PYTHONPATH": ":".join([str(BENCH), *sys.path]), "STILNOVO_KERNELS": kernels, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return [(moved, launches) for moved, launches in json.loads(done.stdout.splitlines()[-1])]


def test_a_token_moves_little_more_than_the_weights_as_they_are_kept() -> None:
    plain, fused, many, adapted = counted("0")
    leaner = counted("1")[1]
    matrices = CONFIG.layers * CONFIG.layer_matrix() * (0.5 + 1 / BLOCK + 4 / (BLOCK * NESTED_BLOCK))
    head = 2 * CONFIG.vocab_size * CONFIG.hidden_size
    cached = 2 * 1001 * CONFIG.layers * CONFIG.kv_heads * CONFIG.head_dim * 2
    weights = matrices + head + cached
    assert weights < fused[0] < 1.03 * weights
    assert many[0] < 1.03 * (weights + 7 * cached + 8 * 12 * CONFIG.vocab_size)
    assert fused[1] < 0.7 * plain[1]
    assert leaner[1] <= fused[1] - 4 * CONFIG.layers
    assert leaner[0] <= fused[0]
    assert plain[0] > 4 * matrices + head
    low_rank = 2 * CONFIG.layers * 32 * sum(sum(shape) for shape in CONFIG.linear_shapes().values())
    assert adapted[0] - fused[0] < 1.3 * low_rank


def test_a_forecast_is_of_memory_gaps_and_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import decode_floor
    from op_costs import Op

    traffic = decode_floor.Traffic(CONFIG, 1, 10)
    traffic.ops = [Op("", "product", "aten.mm.default", 0.0, 2_400_000_000)] * 100
    options = argparse.Namespace(cards=["rtx-4060"], gap_us=2.0, launch_us=20_000.0)
    memory = 100 * 2.4e9 / decode_floor.CARDS["rtx-4060"].memory_speed * 1e3
    captured, fused = (decode_floor.forecasts(traffic, way, 1, options)["rtx-4060"] for way in ("captured", "fused"))
    assert captured["memory_ms"] == pytest.approx(memory, abs=0.01)
    assert captured["ms"] == pytest.approx(memory + 0.2, abs=0.01)
    assert fused["ms"] == pytest.approx(2000, abs=0.01)  # the host is slower
