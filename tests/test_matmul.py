"""Products of a training step: oneDNN's equal torch's for matrices however they lie, and are taken only where they are wanted."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from stilnovo.engine import matmul as products
from stilnovo.engine.matmul import add_matmul_, batched_matmul, matmul
from stilnovo.model import processor
from stilnovo.model.processor import onednn_products

needs_onednn = pytest.mark.skipif(not processor._has_onednn(), reason="torch has no vectorised oneDNN here")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have every size multiplied by oneDNN, and count."""
    made: list[str] = []
    linear = products._linear
    monkeypatch.delenv(processor.VARIABLE, raising=False)
    monkeypatch.setattr(products, "_SMALL", 0)
    monkeypatch.setattr(products, "_linear", lambda x, weight: made.append("oneDNN") or linear(x, weight))
    return made


def _lying(rows: int, columns: int, how: int, seed: int) -> Tensor:
    """A matrix that is dense, dense once transposed, some columns of a wider one, or some rows of the transpose of one."""
    noise = torch.Generator().manual_seed(seed)
    if how == 0:
        return torch.randn(rows, columns, generator=noise)
    if how == 1:
        return torch.randn(columns, rows, generator=noise).T
    if how == 2:
        return torch.randn(rows, columns + 7, generator=noise)[:, 3 : 3 + columns]
    return torch.randn(columns, rows + 5, generator=noise)[:, 2 : 2 + rows].T


@needs_onednn
@pytest.mark.parametrize("seed", range(40))
def test_products_are_those_of_torch_however_the_matrices_lie(seed: int, calls: list[str]) -> None:
    generator = random.Random(seed)
    m, k, n = (generator.choice([1, 2, 3, 16, 33, 64, 130]) for _ in range(3))
    a, b = _lying(m, k, seed % 4, seed), _lying(k, n, seed // 4 % 4, seed + 1)
    exact = a.double() @ b.double()

    def near(found: Tensor, wanted: Tensor) -> None:
        assert found.dtype == torch.float32 and found.shape == wanted.shape
        assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-4)

    near(matmul(a, b), exact)
    wide = torch.zeros(m, n + 4)
    out = wide[:, 2 : 2 + n]
    assert matmul(a, b, out) is out
    near(out, exact)
    assert not wide[:, :2].any() and not wide[:, -2:].any()
    near(add_matmul_(out, a, b, 0.5), 1.5 * exact)
    many = batched_matmul(torch.stack([a, 2 * a]), torch.stack([b, b]))
    near(many[1], 2 * exact)  # of small ones, all in one call of torch's
    near(batched_matmul(a[None], b[None])[0], exact)
    assert len(calls) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_multiplied_by_torch(dtype: torch.dtype, calls: list[str]) -> None:
    a, b = torch.randn(8, 8).to(dtype), torch.randn(8, 8).to(dtype)
    assert torch.equal(matmul(a, b), a @ b)
    assert torch.equal(batched_matmul(a[None], b[None])[0], (a[None] @ b[None])[0])
    assert not calls


def test_the_reference_way_keeps_torchs_own_product(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processor.VARIABLE, "fp32")
    a, b = torch.randn(70, 80), torch.randn(80, 90)
    assert not onednn_products()
    assert torch.equal(matmul(a, b), a @ b)
    assert not calls
