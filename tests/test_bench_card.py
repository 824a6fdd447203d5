"""The card's benchmark and the trials on a card that is not there: shapes alone, so that what they call exists and fits together.

A number that is read from such a tensor is 1: what is compared is wrong, but nothing may fail.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT
from fake_cuda import CARD, fake_card
from stilnovo.model import kernels
from stilnovo.trials import step_trials
from stilnovo.trials.parts import attempt, trials, uses

HOPPER = (9, 0)
CAP = int(7.5 * 2**30)


class Graph:
    """A recorded graph, which does nothing."""

    def replay(self) -> None:
        return


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trials and the benchmark ask of a card beyond what fake tensors answer."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda *_: nullcontext())
    monkeypatch.setattr(step_trials, "pinned_memory", lambda size, _: torch.empty(size, dtype=torch.uint8))


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("generation", [(7, 5), HOPPER], ids=str)
@pytest.mark.parametrize("name", trials(torch.device("cuda")))
def test_each_trial_runs(name: str, generation: tuple[int, int]) -> None:
    if name == "Triton kernels":
        pytest.skip("compiled, and tried in a process of their own: test_kernels.py, test_kernels_remembered.py")
    with fake_card(generation):
        found = attempt(name, CARD)
    assert found.outcome in ("works", "wrong"), found


@pytest.mark.usefixtures("card")
def test_what_is_used_depends_on_the_generation() -> None:
    found = []
    for generation in ((7, 5), HOPPER):
        with fake_card(generation):
            found.append(uses(CARD))
    assert found[0]["type"].startswith("fp16") and found[1]["type"] == "bf16"
    assert "document by document" in found[0]["attention"] and "flash" in found[1]["attention"]


def job(**more: Any) -> dict[str, Any]:
    """A part's job, on the smallest shape."""
    base = {"device": "cuda", "shape": "tiny", "card": None, "host_memory": "128GB", "tokens": 128, "cap": None}
    return {**base, "until": time.monotonic() + 100, **more}


@pytest.mark.usefixtures("card")
def test_the_machine_is_asked() -> None:
    import gpu_starts

    with fake_card(HOPPER):
        facts, card = gpu_starts.machine(job())
    assert facts["trials"] == list(trials(CARD))
    assert set(facts["ways"]) == {"captured", "fused", "plain"}
    assert card["card"]["bf16"] and card["card"]["measured"]
    assert card["card"]["name"] == facts["hardware"]["gpu"]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("generation", "more"),
    [((7, 5), {"cap": CAP}), (HOPPER, {"cap": CAP, "small_card": True, "one_document": True})],
    ids=["fp16", "an 8 GB card's plan"],
)
def test_a_plans_memory_and_the_speeds(
    more: dict[str, Any], generation: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_step

    monkeypatch.setattr(kernels, "installed", lambda: True)
    kernels._decided.cache_clear()
    with fake_card(generation):
        planned, measured = gpu_step.memory(job(kernels=False, steps=1, **more))
        rows = list(gpu_step.speeds(job(kernels=[False, True], steps=1, rounds=2, **more)))
    kernels._decided.cache_clear()
    assert planned["predicted_bytes"] > 0 and planned["planned"]
    assert measured["allocated_bytes"] is not None and len(measured["step_seconds"]) == 1
    assert [(row.get("turn"), row.get("kernels")) for row in rows] == [
        (None, None), (0, False), (0, True), (1, False), (1, True),
    ]  # fmt: skip
    assert all(row["tokens_per_second"] > 0 for row in rows[1:])


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("way", ["captured", "fused"])
def test_writing(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_decoding

    monkeypatch.setenv("STILNOVO_CARD", "plain")  # set back afterwards
    with fake_card(HOPPER):
        (row,) = gpu_decoding.decoding(job(way=way, streams=2, tokens=[2, 4], rounds=1, kernels=False))
    assert row["way"] == way and row["seconds_a_token"] is not None


@pytest.mark.usefixtures("card")
def test_the_peers_checkpoint_is_drawn_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import synthetic

    drawn: list[Any] = []
    randint = torch.randint
    monkeypatch.setattr(
        torch, "randint", lambda *given, **more: (drawn.append(more["device"]), randint(*given, **more))[1]
    )
    code = torch.zeros(16)
    with fake_card(HOPPER):
        found = synthetic.linear_entries("w", 64, 128, code, code, CARD)
    assert drawn == [CARD, CARD]
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
