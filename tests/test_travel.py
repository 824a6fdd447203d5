"""What is exported, run by a real llama.cpp: the benchmark's own measures, on a tiny model; slow: on real weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT

sys.path.append(str(ROOT / "bench"))


@pytest.fixture
def travel() -> Any:
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    import travel

    return travel


def test_a_strength_is_the_share_of_the_change(travel: Any) -> None:
    plain = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    change = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    there = 0.2 * change
    there[0, 0] = float("nan")  # a token that was not named
    assert travel.strength((plain + there, plain), (plain + change, plain)) == pytest.approx(0.2, rel=0.2)
    assert travel.strength((plain + change, plain), (plain + change, plain)) == pytest.approx(1)


def test_continuations_are_compared_token_by_token(travel: Any) -> None:
    assert travel.equal_tokens([1, 2, 3], [1, 2, 4]) == 2
    assert travel.equal_tokens([1, 2], [1, 2, 4]) == 2


@pytest.mark.slow
def test_llama_cpp_computes_and_writes_what_we_do(travel: Any, smollm2_gguf: Path, tmp_path: Path) -> None:
    journey = travel.Journey("smollm2", tmp_path, 200)
    journey.exact()
    journey.sixteen_bit_weights()
    journey.sixteen_bits()
    journey.fewer_bits()
    journey.adapter(None)
    seen = journey.figures
    assert seen["f32_max_logprob_difference"] < 1e-3
    assert seen["f16_weights_max_logprob_difference"] < 1e-3
    # Rounding inputs to fp16 makes of every last bit of a sum, within a few layers, as much as the rounding itself: 0.02 in our own engine.
    assert seen["f16_arithmetic_beside_itself_max_logprob_difference"] > 1e-2
    assert seen["f16_median_logprob_difference"] < 1e-2
    assert seen["f16_max_logprob_difference"] < 1.5 * seen["f16_rounding_alone_max_logprob_difference"]
    assert seen["greedy_equal_tokens"] == 64 and seen["template_tokens_equal"] and seen["stops_at_end_of_turn"]
    assert seen["chat_over_server_equal"]
    assert abs(seen["q8_bits_per_byte_difference"]) < 0.01 and abs(seen["q4_k_m_difference_to_our_reading"]) < 0.02
    assert seen["adapter_strength_elsewhere"] == pytest.approx(1, abs=1e-3)
    assert seen["adapter_f32_max_logprob_difference"] < 1e-3 and seen["merged_f32_max_logprob_difference"] < 1e-3
