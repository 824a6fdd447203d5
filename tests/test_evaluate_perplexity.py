"""Bits per byte: every token once, whatever the windows; and held-out text cut without loss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stilnovo.benchmarks.task import Draw
from stilnovo.errors import InputError
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama
from stilnovo.scoring.perplexity import held_out_texts, pieces, score_short_windows, score_texts, texts_sha256, windows
from stilnovo.scoring.reading import ReadOptions
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_scoring import byte_tokenizer, tiny_llama

TEXTS = (
    "Nel mezzo del cammin di nostra vita",
    "sì",
    "mi ritrovai per una selva oscura, ché la diritta via era smarrita.",
)


def plain_nats(model: Llama, tokenizer: Tokenizer, text: str) -> float:
    """One long window over the whole document."""
    opening = tokenizer.end_of_text_id if tokenizer.bos_id is None else tokenizer.bos_id
    tokens = torch.tensor([opening, *tokenizer.encode(text)])
    with torch.no_grad():
        logits = model(tokens, torch.arange(len(tokens)), Blocks([len(tokens)]))
    return float(torch.nn.functional.cross_entropy(logits[:-1].double(), tokens[1:], reduction="sum"))


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("token_budget", [64, 2048])
def test_equals_one_long_window_when_the_text_fits(bos: bool, token_budget: int) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos)
    found = score_texts(model, tokenizer, TEXTS, window=100, options=ReadOptions(token_budget))
    assert found.nats == pytest.approx([plain_nats(model, tokenizer, text) for text in TEXTS], abs=1e-4)
    assert found.tokens == tuple(len(tokenizer.encode(text)) for text in TEXTS)
    assert found.sizes == (35, 3, 67), "UTF-8 bytes, not characters"
    assert found.bits_per_byte().value == pytest.approx(sum(found.nats) / math.log(2) / sum(found.sizes))


@pytest.mark.parametrize("tokens", [2, 3, 16, 17, 18, 33, 100])
@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, 16), (16, 1), (5, 3), (1, 1)])
def test_windows_score_every_token_once_with_context(tokens: int, window: int, stride: int) -> None:
    parts = windows(tokens, window, stride)
    scored = [index for _, stop, first in parts for index in range(first, stop + 1)]
    assert scored == list(range(1, tokens))
    for number, (start, stop, first) in enumerate(parts):
        assert 0 <= start < first
        assert stop - start <= window
        assert number == 0 or first - start >= min(window - stride, first - 1) + 1


def test_sliding_windows_are_what_they_say() -> None:
    """Each window on its own, cut and scored by hand."""
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    tokens = [0, *tokenizer.encode(TEXTS[2])]
    expected = 0.0
    for start, stop, first in windows(len(tokens), 20, 8):
        read = torch.tensor(tokens[start:stop])
        with torch.no_grad():
            logs = torch.log_softmax(model(read, torch.arange(len(read)), Blocks([len(read)])).double(), -1)
        expected -= sum(float(logs[index - start - 1, tokens[index]]) for index in range(first, stop + 1))
    found = score_texts(model, tokenizer, [TEXTS[2]], window=20, stride=8, options=ReadOptions(50))
    assert found.nats == pytest.approx([expected], abs=1e-4)
    assert found.tokens == (len(tokens) - 1,)


def test_few_documents_have_no_interval() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    alone = score_texts(model, tokenizer, TEXTS[:1]).bits_per_byte()
    assert alone.between(2) == "(no interval: units 1, at least 8 needed)"
    several = score_texts(model, tokenizer, [f"{text} {place}" for text in TEXTS for place in range(4)]).bits_per_byte()
    assert several.has_interval
    assert several.between(2) == f"({several.low:.2f}–{several.high:.2f})"


def test_the_window_never_exceeds_the_model() -> None:
    found = score_texts(tiny_llama(max_positions=24), byte_tokenizer(True), TEXTS, window=2048)
    assert (found.window, found.stride) == (24, 12)


def test_progress_and_refusals() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    calls: list[tuple[str, int, int]] = []
    score_texts(model, tokenizer, TEXTS, window=64, options=ReadOptions(64, lambda *call: calls.append(call)))
    assert calls[-1] == ("held-out text", 3, 3)
    with pytest.raises(ValueError, match="not empty"):
        score_texts(model, tokenizer, ["", "a"])


def test_hash_knows_where_documents_end() -> None:
    assert texts_sha256(["ab", "c"]) != texts_sha256(["a", "bc"])
    assert texts_sha256(["ab", "c"]) == texts_sha256(("ab", "c"))


def test_a_single_text_becomes_documents_and_nothing_is_lost(tmp_path: Path) -> None:
    lines = [f"Riga numero {number}, scritta per la prova." for number in range(500)]
    file = tmp_path / "tutto.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    texts = held_out_texts([file])
    assert len(texts) >= 6
    assert "\n".join(texts).endswith("\n".join(lines))
    assert all(len(text) >= 1900 for text in texts)
    fewer = held_out_texts([file], Draw(3))
    assert len(fewer) == 3
    assert fewer == [text for text in texts if text in fewer], "in their order"
    assert held_out_texts([file], Draw(3)) == fewer, "seeded"
    assert pieces("breve") == ["breve"]


def test_many_documents_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "molti.jsonl"
    file.write_text("".join(f'{{"text": "Documento {n}. {"x" * 5000}"}}\n' for n in range(40)), encoding="utf-8")
    assert len(held_out_texts([file])) == 40


def test_a_missing_text_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        held_out_texts([tmp_path / "manca.txt"])


@pytest.mark.parametrize("bos", [True, False])
def test_short_windows_are_the_reports(bos: bool) -> None:
    """Each window alone, cut by hand: its first token not predicted, an opening token in a text's first window only."""
    model, tokenizer = tiny_llama(), byte_tokenizer(bos)
    texts = ["x", *TEXTS]
    losses, counts = score_short_windows(model, tokenizer, texts, window=8, options=ReadOptions(20))
    means: list[float] = []
    for number, text in enumerate(texts):
        tokens = ([tokenizer.bos_id] if tokenizer.bos_id is not None else []) + tokenizer.encode(text)
        cut = [tokens[start : start + 8] for start in range(0, len(tokens), 8)]
        own = []
        for piece in (torch.tensor(part) for part in cut if len(part) > 1):
            with torch.no_grad():
                logits = model(piece, torch.arange(len(piece)), Blocks([len(piece)]))
            own.append(float(torch.nn.functional.cross_entropy(logits[:-1].double(), piece[1:])))
        assert counts[number] == len(own)
        assert losses[number] == pytest.approx(sum(own), abs=1e-4)
        means += own
    assert counts[0] == (1 if bos else 0), "a single token predicts nothing"
    score = replace(score_texts(model, tokenizer, texts), short_losses=losses, short_windows=counts)
    found = score.perplexity_of_short_windows()
    assert found is not None
    assert found.value == pytest.approx(math.exp(sum(means) / len(means)), rel=1e-4)
    assert found.low < found.value < found.high
    assert score_texts(model, tokenizer, texts).perplexity_of_short_windows() is None
