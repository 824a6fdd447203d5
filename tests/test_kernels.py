"""Triton's kernels against bitsandbytes and torch, run by Triton's interpreter in a process of its own (no card needed).

The interpreter is chosen by an environment variable when a kernel is defined, hence the child process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stilnovo.model.kernels import available

CHILD = Path(__file__).with_name("kernels_child.py")


def test_kernels_are_for_cards_alone() -> None:
    assert not available(torch.device("cpu"))
    assert not available(torch.device("meta"))


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton (286 MB): make test-kernels, or pip install -e '.[kernels]'",
)
@pytest.mark.parametrize("check", ["nf4", "fp4", "swiglu", "swiglu_backward", "rms_norm", "rms_norm_backward"])
def test_kernel_equals_torch(check: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CHILD), check],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("compared "), done.stdout
