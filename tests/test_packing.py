"""Packing loses nothing and mixes nothing; batches depend on seed and epoch alone; rows do not change the loss."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain

import pytest
import torch

from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.packing import pack
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from training import batch_loss


@pytest.mark.parametrize("seed", range(8))
def test_every_token_is_predicted_exactly_once(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.choice([1, 2, 3, 17, 31, 32, 33, 64, 65, 200, rng.randint(1, 90)]) for _ in range(60)]
    documents = [[1000 * i + j for j in range(length)] for i, length in enumerate(lengths)]
    corpus = pack(documents, 32)
    predicted: Counter[int] = Counter()
    for number in range(len(corpus.packs)):
        batch = BatchStream(corpus, 1, 0)._batch([number])
        assert sum(batch.lengths) == len(batch.tokens) <= 32
        assert torch.equal(batch.targets, batch.tokens + 1)  # the next token of the same document
        predicted.update(batch.targets.tolist())
        start = 0
        for length in batch.lengths:
            assert len({token // 1000 for token in batch.tokens[start : start + length].tolist()}) == 1
            start += length
    assert predicted == Counter(token for document in documents for token in document[1:])
    assert corpus.tokens == sum(length - 1 for length in lengths)
    assert len(corpus.packs) <= corpus.tokens / 32 * 1.15 + 1  # best fit leaves little empty


def test_a_document_that_fits_is_not_cut() -> None:
    corpus = pack([list(range(20))] * 9, 32)
    assert corpus.packs.length.tolist() == [19] * 9


@pytest.mark.parametrize("documents", [[], [[1]], [[1], []]])
def test_nothing_to_predict_gives_no_packs(documents: list[list[int]]) -> None:
    corpus = pack(documents, 32)
    assert (len(corpus.packs), corpus.tokens) == (0, 0)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    corpus = pack([list(range(i, i + 30)) for i in range(20)], 32)
    first, again, other = (BatchStream(corpus, 3, seed) for seed in (7, 7, 8))
    order = [next(iter(first)).tokens.tolist() for _ in range(2 * first.batches_per_epoch())]
    assert order == [next(iter(again)).tokens.tolist() for _ in range(len(order))]
    assert order != [next(iter(other)).tokens.tolist() for _ in range(len(order))]
    half = len(order) // 2
    assert order[:half] != order[half:]
    assert sorted(chain(*order[:half])) == sorted(chain(*order[half:]))
    resumed = BatchStream(corpus, 3, 7)
    for _ in range(5):
        next(iter(resumed))
    fresh = BatchStream(corpus, 3, 7)
    fresh.restore(resumed.state())
    assert next(iter(fresh)).tokens.tolist() == order[5]


def single(tokens: torch.Tensor) -> Batch:
    return Batch(tokens[:-1], tokens[1:], (len(tokens) - 1,))


def test_packed_loss_is_the_sum_of_separate_losses(tiny: Llama) -> None:
    documents = [torch.randint(0, 97, (n,)) for n in (20, 7, 33)]
    joined = Batch(
        torch.cat([d[:-1] for d in documents]),
        torch.cat([d[1:] for d in documents]),
        tuple(len(d) - 1 for d in documents),
    )
    apart = sum(batch_loss(tiny, single(d), 16).item() for d in documents)
    assert batch_loss(tiny, joined, 16).item() == pytest.approx(apart, rel=1e-5)


def test_accumulation_is_a_bigger_batch(tiny: Llama) -> None:
    lora.attach(tiny, lora.LoraConfig(r=4))
    documents = [torch.randint(0, 97, (n,)) for n in (20, 7, 33, 12)]
    count = sum(len(d) - 1 for d in documents)
    parameters = lora.parameters(tiny)
    for d in documents:
        (batch_loss(tiny, single(d), 16) / count).backward()
    little = [p.grad.clone() for p in parameters if p.grad is not None]
    for p in parameters:
        p.grad = None
    joined = Batch(
        torch.cat([d[:-1] for d in documents]),
        torch.cat([d[1:] for d in documents]),
        tuple(len(d) - 1 for d in documents),
    )
    (batch_loss(tiny, joined, 16) / count).backward()
    for got, parameter in zip(little, parameters, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(got, parameter.grad, atol=1e-6)
