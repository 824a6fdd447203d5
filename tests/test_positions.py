"""Loss by position: against cross-entropy computed directly, paired, kept, and refused where it cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stilnovo.errors import InputError
from stilnovo.model.attention import Blocks
from stilnovo.scoring.answer_cache import AnswerCache, ModelCache
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.perplexity import score_texts
from stilnovo.scoring.positions import differences, score_positions
from stilnovo.scoring.reading import ReadOptions
from test_evaluate_scoring import byte_tokenizer, tiny_llama

TEXTS = ["Nel mezzo del cammin di nostra vita " * 3, "sì", "mi ritrovai per una selva oscura, " * 9]
EDGES = (1, 4, 16, 64)


@pytest.mark.parametrize("token_budget", [1, 150, 2048])
def test_sums_by_position_are_cross_entropies(token_budget: int) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    found = score_positions(model, tokenizer, TEXTS, edges=EDGES, window=200, options=ReadOptions(token_budget))
    assert found.names == ["1–3", "4–15", "16–63", "64+"]
    for text, nats, counts in zip(TEXTS, found.nats, found.tokens, strict=True):
        tokens = torch.tensor([0, *tokenizer.encode(text)][:201])
        with torch.no_grad():
            logits = model(tokens[:-1], torch.arange(len(tokens) - 1), Blocks([len(tokens) - 1]))
        losses = F.cross_entropy(logits.double(), tokens[1:], reduction="none")
        for p, (first, last) in enumerate(zip(EDGES, (*EDGES[1:], 10_000), strict=True)):
            part = losses[first - 1 : last - 1]  # the first loss is that of position 1
            assert counts[p] == len(part)
            assert nats[p] == pytest.approx(float(part.sum()), abs=1e-4)


def test_ranges_together_are_the_whole_text() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    found, whole = score_positions(model, tokenizer, TEXTS), score_texts(model, tokenizer, TEXTS)
    assert [sum(row) for row in found.nats] == pytest.approx(whole.nats, abs=1e-4)
    assert tuple(sum(row) for row in found.tokens) == whole.tokens
    means = found.nats_per_token()
    assert means[0] is not None
    assert means[0].value == pytest.approx(sum(n[0] for n in found.nats) / sum(t[0] for t in found.tokens))
    assert means[-1] is None, "no document reaches position 512"


def test_differences_are_paired() -> None:
    tokenizer = byte_tokenizer(True)
    before, after = (score_positions(tiny_llama(seed=seed), tokenizer, TEXTS, edges=EDGES) for seed in (0, 1))
    found = differences(before, after)
    for p, change in enumerate(found):
        assert change is not None
        expected = sum(b[p] - a[p] for a, b in zip(before.nats, after.nats, strict=True)) / sum(
            t[p] for t in before.tokens
        )
        assert change.value == pytest.approx(expected)
    same = differences(before, before)[0]
    assert same is not None
    assert (same.value, same.standard_error, same.has_interval) == (0, 0, False), "three texts are too few"
    with pytest.raises(InputError, match="different texts"):
        differences(before, replace(after, texts_sha256="other"))
    with pytest.raises(InputError, match="different tokens"):
        differences(before, replace(after, tokens=tuple((0,) * 4 for _ in TEXTS)))


def test_documents_are_kept_one_by_one(tmp_path: Path) -> None:
    tokenizer, identity = byte_tokenizer(True), Identity("weights", None, "none", "float32", "cpu")
    with AnswerCache(tmp_path, pytest.fail) as cache:
        bound = ModelCache(cache, identity)
        first = score_positions(tiny_llama(), tokenizer, TEXTS[:2], options=ReadOptions(cache=bound))
        calls: list[tuple[str, int, int]] = []
        # another model under the same name: what it did not read itself shows that it was kept
        mixed = score_positions(
            tiny_llama(seed=1),
            tokenizer,
            TEXTS,
            options=ReadOptions(cache=bound, progress=lambda *call: calls.append(call)),
        )
        assert mixed.nats[:2] == first.nats
        assert calls == [("positions", 3, 3)]
        other = score_positions(
            tiny_llama(seed=1),
            tokenizer,
            TEXTS,
            options=ReadOptions(cache=ModelCache(cache, replace(identity, device="x"))),
        )
        assert other.nats[0] != first.nats[0]
        assert other.nats[2] == mixed.nats[2]


def test_edges_that_make_no_sense() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    for edges in ((), (0, 4), (1, 8, 4), (1, 4, 4)):
        with pytest.raises(ValueError, match="ascend from 1"):
            score_positions(model, tokenizer, TEXTS, edges=edges)
    with pytest.raises(ValueError, match="not empty"):
        score_positions(model, tokenizer, [""])
