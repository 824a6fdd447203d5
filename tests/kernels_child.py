"""What test_kernels.py runs under Triton's interpreter: one kernel against its torch counterpart."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model.functions import rms_norm, swiglu
from stilnovo.model.kernels import elementwise, nf4
from stilnovo.model.quantize import FourBitLinear

GENERATOR = torch.Generator().manual_seed(11)
EPS = 1e-5


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=GENERATOR).to(dtype)


def check_four_bit(scheme: str) -> int:
    # 160 × 192 weights: 480 blocks, more than one nested block and a last program that is not full.
    linear = FourBitLinear(random(160, 192) * 0.05, scheme)  # type: ignore[arg-type]
    compared = 0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found, expected = nf4.dequantize(linear, torch.empty(160, 192, dtype=dtype)), linear.dense(dtype)
        if dtype == torch.bfloat16:  # the interpreter cuts where a card rounds: one unit in the last place
            torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(found, expected), (scheme, dtype)
        compared += found.numel()
    assert nf4.can(linear)
    assert not nf4.can(FourBitLinear(random(3, 32), scheme))  # type: ignore[arg-type]
    return compared


def check_swiglu() -> int:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        both = random(5, 2 * 1100, dtype=dtype)
        gate, up = both[:, :1100], both[:, 1100:]
        found = elementwise.swiglu(gate, up, torch.empty(5, 1100, dtype=dtype))
        torch.testing.assert_close(found, F.silu(gate) * up, atol=tolerance, rtol=tolerance)
    return found.numel()


def check_swiglu_backward() -> int:
    gate, up, grad = random(5, 1100).requires_grad_(), random(5, 1100).requires_grad_(), random(5, 1100)
    expected = torch.autograd.grad(swiglu(gate, up), (gate, up), grad)
    both = torch.cat([gate.detach(), up.detach()], 1)
    elementwise.swiglu_backward_(grad, both[:, :1100], both[:, 1100:])
    torch.testing.assert_close(both, torch.cat(expected, 1), atol=1e-6, rtol=1e-5)
    return both.numel()


def check_rms_norm() -> int:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        x, weight = random(7, 576, dtype=dtype), 1 + 0.1 * random(576).to(dtype)
        found = elementwise.rms_norm(x, weight, EPS, torch.empty_like(x))
        torch.testing.assert_close(found, rms_norm(x, weight, EPS), atol=tolerance, rtol=tolerance)
    return found.numel()


def check_rms_norm_backward() -> int:
    x, weight, grad = random(7, 576).requires_grad_(), 1 + 0.1 * random(576), random(7, 576)
    (expected,) = torch.autograd.grad(rms_norm(x, weight, EPS), x, grad)
    found = elementwise.rms_norm_backward_(grad.clone(), x.detach(), weight, EPS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    return found.numel()


if __name__ == "__main__":
    checks = {
        "nf4": lambda: check_four_bit("nf4"), "fp4": lambda: check_four_bit("fp4"), "swiglu": check_swiglu,
        "swiglu_backward": check_swiglu_backward, "rms_norm": check_rms_norm, "rms_norm_backward": check_rms_norm_backward,
    }  # fmt: skip
    print(f"compared {checks[sys.argv[1]]()} values")
