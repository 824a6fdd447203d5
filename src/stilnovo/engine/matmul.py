"""Matrix products of a training step: torch's own, but in fp32 on a processor oneDNN's where those are wanted.

torch multiplies fp32 matrices on a processor by MKL, which on AMD's processors uses AVX2 at most: on one with AVX-512
oneDNN's product of the same matrices takes half the time, with AVX2 alone nine tenths, and where MKL does use AVX-512 as
long as MKL's. Both sum in fp32, in other orders. `stilnovo.model.processor.onednn_products` decides.

Unusual: torch has no plain name for that product; it is the operator by which its compiler multiplies, x Wᵀ. It takes matrices
that are dense, or dense once transposed; part of a wider one is a thousand times slower, or an error. Small matrices (`_SMALL`
multiplications) are not worth its call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stilnovo.model.processor import onednn_products

_SMALL = 2**18


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply a (m, k) by b (k, n) → (m, n), into `out` where given."""
    if not _by_onednn(a, b):
        return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)
    if _turned(a) and a.shape[0] > b.shape[1]:  # the smaller of the two is turned
        product = _linear(b.T.contiguous(), a.T.contiguous().T).T.contiguous()
    else:
        product = _linear(a.contiguous(), b.T)
    return product if out is None else out.copy_(product)


def add_matmul_(total: Tensor, a: Tensor, b: Tensor, scale: float = 1) -> Tensor:
    """Add scale · a b to `total` (m, n), in place: a (m, k), b (k, n)."""
    if not _by_onednn(a, b):
        return total.addmm_(a, b, alpha=scale)
    return total.add_(matmul(a, b), alpha=scale)


def batched_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply each of a (n, m, k) by its b (n, k, l) → (n, m, l)."""
    if len(a) > 1:  # of small matrices: one call for all of them
        return torch.bmm(a, b)
    return matmul(a[0], b[0])[None]


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    dense = weight.is_contiguous() or weight.T.is_contiguous()
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight if dense else weight.contiguous(), None, "none", [], ""
    )
    return product


def _turned(a: Tensor) -> bool:
    """Whether the values of a column lie side by side, not those of a row."""
    return a.stride(0) == 1 and a.stride(1) != 1


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    if a.dtype != torch.float32 or a.device.type != "cpu":
        return False
    return a.shape[0] * a.shape[1] * b.shape[1] > _SMALL and onednn_products()
