"""Tokens drawn for several texts at once, on their device: the distribution of the sampler that draws for one text on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stilnovo.generate.sampler import LIKELIEST, UNDECIDED, draw, looked_at, nucleus, uniforms
from stilnovo.generate.sampling import Sampling

V = 1000


def peaked(rows: int, spread: float, seed: int = 0) -> Tensor:
    return spread * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def drawn(logits: Tensor, temperature: float, top_p: float, uniform: Tensor, most: int = LIKELIEST) -> Tensor:
    rows = len(logits)
    return draw(logits, torch.full((rows,), temperature), torch.full((rows,), top_p), uniform, most)


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.95, 1.0])
def test_each_token_of_the_nucleus_is_as_wide_as_it_is_likely(spread: float, temperature: float, top_p: float) -> None:
    """A grid of numbers in place of random ones finds every token as often as the nucleus says, to the grid's width."""
    logits = peaked(1, spread, seed=3)
    ids, weights = nucleus(torch.softmax(logits[0] / temperature, -1), top_p)
    count = 20_000
    grid = (torch.arange(count) + 0.5) / count
    found = drawn(logits.expand(count, -1), temperature, top_p, grid, V)
    share = torch.bincount(found, minlength=V) / count
    expected = torch.zeros(V).scatter(0, ids, weights)
    assert float((share - expected).abs().max()) < 2 / count + 2e-5


def test_of_the_likeliest_alone_it_is_the_same_token_or_none() -> None:
    logits = torch.cat([peaked(200, spread, seed=int(spread)) for spread in (0.5, 3.0, 8.0)])
    uniform = torch.rand(len(logits), generator=torch.Generator().manual_seed(1))
    for most in (2, 16, LIKELIEST):
        first, every = drawn(logits, 0.8, 0.9, uniform, most), drawn(logits, 0.8, 0.9, uniform, V)
        decided = first != UNDECIDED
        assert torch.equal(first[decided], every[decided])
        sizes = torch.tensor([len(nucleus(torch.softmax(row / 0.8, -1), 0.9)[0]) for row in logits])
        assert bool(decided[sizes < most].all())
        assert not bool(decided[sizes > most].any())
    assert 0.1 < float((every != first).float().mean()) < 0.9  # both happen


def test_temperature_0_is_the_likeliest_token_beside_texts_that_are_drawn() -> None:
    logits = peaked(3, 0.1)
    found = draw(logits, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.9, 0.9, 1.0]), torch.rand(3), 16)
    assert found[[0, 2]].tolist() == logits.argmax(-1)[[0, 2]].tolist()
    assert found[1] == UNDECIDED


def test_a_row_does_not_depend_on_the_others() -> None:
    logits, uniform = peaked(8, 3.0), torch.rand(8, generator=torch.Generator().manual_seed(2))
    whole = drawn(logits, 0.7, 0.95, uniform)
    assert [int(drawn(logits[i : i + 1], 0.7, 0.95, uniform[i : i + 1])) for i in range(8)] == whole.tolist()


def test_scores_that_are_no_numbers_are_undecided_whatever_is_looked_at() -> None:
    logits = peaked(2, 1.0)
    logits[1, 5] = torch.nan
    for most in (16, V):
        assert drawn(logits, 1.0, 0.9, torch.full((2,), 0.5), most)[1] == UNDECIDED


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("top_p", [1e-6, 0.9, 1.0])
def test_the_ends_of_the_range_fall_on_members(uniform: float, top_p: float) -> None:
    logits = peaked(50, 4.0)
    for row, token in zip(logits, drawn(logits, 1.0, top_p, torch.full((50,), uniform), V), strict=True):
        ids, _ = nucleus(torch.softmax(row, -1), top_p)
        assert int(token) in (
            range(V) if top_p == 1 else ids.tolist()
        )  # of all, the last ones are a matter of rounding


def test_random_numbers_depend_on_the_seed_and_not_on_how_many_are_wanted() -> None:
    few, many = (uniforms(Sampling(seed=3), count) for count in (5, 2000))
    assert torch.equal(few, many[: len(few)])
    assert not torch.equal(few, uniforms(Sampling(seed=4), 5))
    assert 0.48 < float(many.mean()) < 0.52
    assert 0 <= float(many.min()) <= float(many.max()) < 1


def test_all_tokens_are_looked_at_where_the_nucleus_is_the_vocabulary() -> None:
    assert looked_at([Sampling(), Sampling(top_p=1, temperature=0)], 5000) == LIKELIEST
    assert looked_at([Sampling(), Sampling(top_p=1)], 5000) == 5000
    assert looked_at([Sampling()], 100) == 100
    greedy = Sampling(temperature=0)
    assert looked_at([greedy, replace(greedy, top_p=1)], 5000) == 1
    logits = peaked(3, 1.0)
    assert torch.equal(drawn(logits, 0.0, 0.9, torch.rand(3), 1), logits.argmax(-1))
