"""Triton kernels of the training step, for CUDA only; each must equal its torch counterpart.

Triton comes with torch's CUDA builds and with nothing else, so it is imported when a kernel is first called; `available()`
says whether that can succeed. Their arithmetic is tested without a card through Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import importlib.util
import os

import torch

SWITCH = "STILNOVO_KERNELS"


def available(device: torch.device) -> bool:
    """Whether kernels may be used for tensors on `device`: a CUDA card, and Triton installed."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def wanted(device: torch.device) -> bool:
    """Whether kernels are used: available, and asked for by STILNOVO_KERNELS=1.

    Off unless asked for, because no card has measured them yet; `make bench-gpu` compares both.
    """
    return os.environ.get(SWITCH) == "1" and available(device)
