"""What test_card_writer.py runs under Triton's interpreter: a step's element-wise parts by kernels, beside torch's."""

from __future__ import annotations

import torch

from stilnovo.generate.elementwise_step import KernelStep, TorchStep


def main() -> None:
    """Compare all of them on strided rows, as a step has them."""
    numbers = torch.Generator().manual_seed(3)
    rows = torch.randn(3, 8, 32, generator=numbers)
    cos, sin = (f(torch.rand(3, 1, 16, generator=numbers)) for f in (torch.cos, torch.sin))
    found = []
    for by in (TorchStep(), KernelStep()):
        mine, x = rows.clone(), torch.linspace(-1, 1, 3 * 128).view(3, 128)
        by.turn_(mine[:, :6], by.angles(cos, sin))
        x = x.clone()
        first = by.normed(x, None, torch.linspace(0.5, 1.5, 128), 1e-5)
        second = by.normed(x, first, torch.linspace(0.5, 1.5, 128), 1e-5)
        found.append((mine, first, second, x, by.gated(rows.view(3, -1))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    print("same")


if __name__ == "__main__":
    main()
