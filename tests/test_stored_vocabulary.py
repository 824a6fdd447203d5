"""Vocabularies inside GGUF files: rules by name, scores and pairs; against the library's own tokenizers."""

from __future__ import annotations

import random

import pytest
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Fast

from stilnovo.text.sentencepiece import pairs_of, scores_of
from stilnovo.text.splits import LLAMA3_SPLIT, SPLITS, find_split
from stilnovo.text.tokenizer import from_gguf

TEXTS = ["Nel mezzo del cammin di nostra vita", "mi ritrovai per una selva oscura", "ché la diritta via era smarrita."]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.name)
def test_a_rule_is_found_by_what_it_does(split: object) -> None:
    fast = Fast(models.BPE(vocab={"a": 0}, merges=[], ignore_merges=split.whole_words))  # type: ignore[attr-defined]
    fast.pre_tokenizer = split.pre_tokenizer()  # type: ignore[attr-defined]
    assert find_split(fast) is split


def test_a_rule_spelt_otherwise_is_found_and_an_unknown_one_is_not() -> None:
    fast = Fast(models.BPE(vocab={"a": 0}, merges=[], ignore_merges=True))
    spelt = LLAMA3_SPLIT.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(spelt), "removed", invert=True), bare])
    found = find_split(fast)
    assert found is not None and found.name == "llama-bpe"
    for step in (pre_tokenizers.ByteLevel(add_prefix_space=True), bare):
        fast.pre_tokenizer = step
        assert find_split(fast) is None


def test_where_merges_reach_every_word_the_order_of_looking_makes_no_difference() -> None:
    rule = next(split for split in SPLITS if split.name == "qwen2")
    for vocabulary, name in (({"a": 0, "b": 1, "ab": 2}, "qwen2"), ({"a": 0, "b": 1, "ab": 2, "ba": 3}, None)):
        fast = Fast(models.BPE(vocab=vocabulary, merges=[("a", "b")], ignore_merges=True))
        fast.pre_tokenizer = rule.pre_tokenizer()
        found = find_split(fast)
        assert (found and found.name) == name


def test_scores_say_the_pairs_again() -> None:
    words = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    pairs = [("a", "b"), ("ab", "c")]
    scores = scores_of(words, pairs)
    assert scores == {"ab": -1.0, "abc": -2.0}
    assert pairs_of({**dict.fromkeys("abc", 0.0), **scores}) == pairs
    assert scores_of({**words, "bc": 5}, pairs) is None  # bc + … would be merged, a + bc too
    assert scores_of(words, [("ab", "c"), ("a", "b")]) is not None
    doubled = {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4}
    assert scores_of(doubled, [("a", "b"), ("ab", "a"), ("b", "a"), ("a", "ba")]) is None  # its pairs stand apart


def test_a_vocabulary_with_scores_makes_the_tokens_of_its_pairs() -> None:
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "▁")})
    draw = random.Random(1)
    scores = dict.fromkeys(letters, 0.0)
    made: list[str] = []
    for place in range(60):
        left, right = draw.choice([*letters, *made]), draw.choice([*letters, *made])
        if left + right not in scores:
            made.append(left + right)
            scores[left + right] = -1.0 - place
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *scores]
    fields = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [scores.get(word, 0.0) for word in words],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(scores),
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_space_prefix": True,
    }  # fmt: skip
    tokenizer = from_gguf(fields)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    for text in (*TEXTS, "però ❤", "a  b"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert [words[index] for index in ids] == _by_scores("▁" + text.replace(" ", "▁"), scores)


def _by_scores(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's merging in its plainest form: the best neighbours first, the leftmost of equals."""
    parts = list(text)
    while True:
        found = [
            (-scores[parts[at] + parts[at + 1]], at)
            for at in range(len(parts) - 1)
            if parts[at] + parts[at + 1] in scores
        ]
        if not found:
            break
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [
        piece
        for part in parts
        for piece in ([part] if part in scores else [f"<0x{byte:02X}>" for byte in part.encode()])
    ]
