"""Triton's kernels against bitsandbytes and torch, run by Triton's interpreter in a process of its own (no card needed).

The interpreter is chosen by an environment variable when a kernel is defined, hence the child process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernels_child import WHOLE
from stilnovo.engine import elementwise
from stilnovo.errors import InputError
from stilnovo.model import kernels
from stilnovo.model.kernels import operators, parity
from stilnovo.model.quantize import AffineLinear, FourBitLinear


def test_one_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, shapes, card = torch.device("cpu"), torch.device("meta"), torch.device("cuda")
    for value in (None, "", "0"):
        monkeypatch.delenv(kernels.SWITCH, raising=False) if value is None else monkeypatch.setenv(
            kernels.SWITCH, value
        )
        assert not any(kernels.wanted(device) for device in (cpu, shapes))
    monkeypatch.setenv(kernels.SWITCH, "1")
    assert kernels.wanted(shapes) and not kernels.wanted(cpu)
    assert kernels.wanted(card) is (kernels.installed() or not torch.cuda.is_available())
    monkeypatch.setenv(kernels.SWITCH, "yes")
    with pytest.raises(InputError, match="STILNOVO_KERNELS is 'yes'"):
        kernels.wanted(shapes)


class Seen(TorchDispatchMode):
    """Names of the project's own operators, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "stilnovo":
            self.names.append(function._opname)
            assert function._schema.is_mutable
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["meta", "cuda"])
@pytest.mark.parametrize("fake", [True, False])
def test_shapes_without_storage_pass_through_the_operators(
    device: str, fake: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda" and not fake:
        pytest.skip("needs a card: test_on_card.py")
    monkeypatch.setenv(kernels.SWITCH, "1")
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext(), Seen() as seen:
        x = torch.empty(6, 64, device=device, dtype=torch.bfloat16)
        weight, total = torch.empty(64, device=device), torch.empty_like(x)
        assert elementwise.normed(x, weight, 1e-5).shape == x.shape
        assert elementwise.added_normed(x, total, weight, 1e-5).shape == x.shape
        elementwise.norm_backward_(x, total, weight, 1e-5)
        elementwise.norm_backward_add(x, x, weight, 1e-5, total)
        assert elementwise.gated(x, total).dtype == x.dtype
        elementwise.gated_backward_(x, total, torch.empty_like(x))
        angles = torch.empty(6, 1, 16, device=device, dtype=torch.bfloat16)
        elementwise.rotate_(x.view(6, 2, 32), angles, angles)
        byte = torch.empty(512, device=device, dtype=torch.uint8)
        operators.dequantize_4bit(byte, byte, weight, weight, weight, weight, x)
        operators.dequantize_affine(byte, byte, byte, 8, x)
        assert all(t.device.type == device for t in (x, byte))
        if device == "meta":  # as the modules call them
            assert FourBitLinear.of_shape(8, 64, "nf4", x.device).dense(torch.bfloat16).shape == (8, 64)
            assert AffineLinear(torch.empty(8, 100, device=device), 4).dense(torch.float16).shape == (8, 100)
    assert set(seen.names) == {
        "rms_norm", "add_rms_norm", "rms_norm_backward_", "rms_norm_backward_add", "swiglu", "swiglu_backward", "rotate",
        "dequantize_4bit", "dequantize_affine",
    }  # fmt: skip


@pytest.mark.parametrize("current", [0, 1])
def test_a_kernel_is_launched_on_the_card_of_its_tensors(current: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [current]

    class Chosen:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            cards.append(self.index)

        def __exit__(self, *_: object) -> None:
            cards.pop()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: cards[-1])
    monkeypatch.setattr(torch.cuda, "device", Chosen)
    seen: list[int] = []
    with FakeTensorMode():
        x = torch.empty(2, device="cuda:1")
    operators.on_its_card(lambda *_: seen.append(cards[-1]), x, x)
    assert seen == [1] and cards == [current]


needs_triton = pytest.mark.skipif(
    not kernels.installed(), reason="needs Triton (286 MB): make test-kernels, or pip install -e '.[kernels]'"
)


def run(program: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
@pytest.mark.parametrize("check", [*parity.COMPARISONS, *WHOLE])
def test_kernel_equals_torch(check: str) -> None:
    said = run("kernels_child.py", check, TRITON_INTERPRET="1", **{kernels.SWITCH: "1"})
    assert said.startswith("compared "), said


def test_every_operator_is_compared() -> None:
    assert set(parity.COMPARISONS) == {str(name).split("::")[1] for name in operators._LIBRARY._op_defs}


@needs_triton
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 100, 120])
def test_kernels_compile_for_every_generation_of_cards(capability: int, tmp_path: Path) -> None:
    lines = run(
        "kernels_compiled.py", str(capability), TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0"
    ).splitlines()
    made = [json.loads(line) for line in lines]
    assert {one["kernel"] for one in made} == {
        "_rms_norm", "_rms_norm_backward", "_swiglu", "_swiglu_backward", "_rotate", "_four_bit", "_affine", "_affine_product", "_tile",
        "_whole",
    }  # fmt: skip
    for one in made:
        assert one["target"].startswith(f"sm_{capability}"), one
        assert one["local"] == one["stack"] == 0, one  # nothing is spilled
        assert one["reg"] <= 128, one
        assert max(one["shared"], one["shared_asked"]) <= 48 * 1024, one  # what every card gives without being asked
        if one["kernel"] in ("_four_bit", "_affine"):
            assert one["fma"] == 0, one  # product and sum are rounded apart, as bitsandbytes rounds them
        else:
            assert one["wide_loads"] > 0, one  # several values at once
