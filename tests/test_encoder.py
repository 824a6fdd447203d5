"""The remembering encoder gives the plain tokeniser's ids, on random, nasty and real text."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.model.llama import Llama
from stilnovo.text import encoder
from stilnovo.text.encoder import Encoder
from stilnovo.text.tokenizer import Tokenizer, from_folder, from_tiktoken

# Everything that a pre-tokeniser treats in its own way, so that random strings run into every corner.
PARTS = [
    " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "\x1c", "a", "perché", "Roma", "dell'", "c'è", "l’", "'s",
    "'S", "è", "e\u0301", "Ł", "дом", "日本", "🙂", "1", "12345", "3,14", ".", "...", ",", "(", "«", "»", "—", "_", "-",
    "<|im_end|>", "\u200b", "'Stato", "'llo", "(", "…", "'", "\"", "dI'D",
    "×", "ª", "µ", "²", "½", "\x00", "\x85", "\u2003", "•", "\ufeff", "٣", "ÿ", "€", "\r", "a\n", "\nb", "1\n", "\n1", "«\n",
]  # fmt: skip


def trained(step: object, normalizer: object = None, added: bool = False) -> Tokenizer:
    """A byte-level BPE tokeniser trained on the sample, with a given pre-tokeniser."""
    fast = Fast(models.BPE())
    fast.pre_tokenizer, fast.decoder = step, decoders.ByteLevel()
    if normalizer is not None:
        fast.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<e>"], initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator((row["text"] for row in read_rows(sample.path("encyclopaedia_a.jsonl"))), trainer)
    if added:
        fast.add_tokens([AddedToken("  ", special=False, normalized=False)])
    return Tokenizer(fast, specials={"<e>": 0}, bos=None, eos="<e>")


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(PARTS) for _ in range(rng.randint(0, 25)))


def check(tokenizer: Tokenizer, seed: int, count: int = 1500) -> None:
    fast, rng = Encoder(tokenizer), random.Random(seed)
    assert fast.remembers
    texts = [random_text(rng) for _ in range(count)]
    for text, together in zip(texts, fast.encode(texts), strict=True):
        assert together.tolist() == tokenizer.encode(text), repr(text)
        assert fast.encode([text])[0].tolist() == together.tolist(), repr(text)
    assert [ids.tolist() for ids in fast.documents(texts)] == [tokenizer.document(text) for text in texts]


def test_equals_the_plain_tokeniser_on_random_text(smollm2: tuple[Llama, Tokenizer]) -> None:
    check(smollm2[1], 1)
    check(trained(pre_tokenizers.ByteLevel(add_prefix_space=False)), 2)


def test_equals_llama3_on_random_text(shared_data: Path) -> None:
    check(from_tiktoken(shared_data / "tokenizer_llama3" / "tokenizer.model"), 3)


def test_equals_the_plain_tokeniser_on_real_text(smollm2: tuple[Llama, Tokenizer], shared_data: Path) -> None:
    _, tokenizer = smollm2
    fast = Encoder(tokenizer)
    lines = (shared_data / "wikipedia_it" / "passages.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    texts = [json.loads(line)["text"] for line in lines]
    texts.append((shared_data / "library" / "commedia.txt").read_text(encoding="utf-8")[:200_000])
    assert [ids.tolist() for ids in fast.encode(texts)] == [tokenizer.encode(text) for text in texts]


def test_a_long_text_is_encoded_in_segments(smollm2: tuple[Llama, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_BATCH", 50)
    check(smollm2[1], 4, 200)
    text = " ".join(random_text(random.Random(n)) for n in range(40))
    for long in (text, "x" * 500):
        assert [ids.tolist() for ids in Encoder(smollm2[1]).encode([long, "", long])] == [
            smollm2[1].encode(one) for one in (long, "", long)
        ]


def test_memory_is_bounded(smollm2: tuple[Llama, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_PIECES", 5)
    monkeypatch.setattr(encoder, "_BEFORE", 5)
    fast = Encoder(smollm2[1])
    text = " ".join(f"parola{n} «{chr(97 + n % 26)}{n}" for n in range(100))
    for _ in range(2):  # the second time, a part is in the older half
        assert fast.encode([text])[0].tolist() == smollm2[1].encode(text)
    memories = (fast._pieces, fast._before)
    assert max(max(len(memory), len(memory._older)) for memory in memories) <= 5
    assert fast._pieces._older


@pytest.mark.parametrize("odd", ["normaliser", "added", "split", "none"])
def test_tokenisers_whose_cuts_are_unknown_are_asked_text_by_text(odd: str, tiny_folder: Path) -> None:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = {
        "normaliser": lambda: trained(level, normalizer=normalizers.NFC()),
        "added": lambda: trained(level, added=True),
        "split": lambda: trained(pre_tokenizers.Sequence([pre_tokenizers.Split("a", "isolated"), level])),
        "none": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    }[odd]()
    fast, rng = Encoder(tokenizer), random.Random(5)
    assert not fast.remembers
    for text in (random_text(rng) for _ in range(50)):
        assert fast.encode([text])[0].tolist() == tokenizer.encode(text)


def test_a_tokeniser_survives_pickling(tiny_folder: Path) -> None:
    tokenizer = from_folder(tiny_folder)
    again = pickle.loads(pickle.dumps(tokenizer))
    text = "Perché? <|im_end|>"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.document(text) == tokenizer.document(text)
