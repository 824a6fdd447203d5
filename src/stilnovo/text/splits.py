"""How byte-level BPE vocabularies cut a text before they merge, by the names that llama.cpp has for it (`tokenizer.ggml.pre`).

A GGUF file does not hold the rule, only its name; so a vocabulary can be written to one only where its rule has a name. Unusual:
the name is found by behaviour. One rule is spelt in many ways (a pattern, or several steps), and a model's name says nothing; two
rules that cut a thousand made texts of every kind of character alike are taken for the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Fast

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
# Words by the case of their letters: "ItalianText" is two.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_REST_OR_SLASH}"
_GPT4O = rf"{_CASED[0]}{_CONTRACTION}?|{_CASED[1]}{_CONTRACTION}?|\p{{N}}{{1,3}}|{_REST_OR_SLASH}"


@dataclass(frozen=True)
class BpeSplit:
    """A rule by its name: `steps` makes the pre-tokenizer's; `whole_words`: a word that is in the vocabulary is not merged."""

    name: str
    steps: Callable[[], list[Any]]
    whole_words: bool = False

    def pre_tokenizer(self) -> Any:
        """The rule as a pre-tokenizer of the library."""
        return pre_tokenizers.Sequence(self.steps())


def _by(pattern: str) -> Callable[[], list[Any]]:
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return lambda: [pre_tokenizers.Split(Regex(pattern), "isolated"), bare]


def _gpt2() -> list[Any]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


#: Every rule that is read and written; of two that cut alike, the one before merges differently.
SPLITS = (
    BpeSplit("llama-bpe", _by(LLAMA3_SPLIT), whole_words=True),
    BpeSplit("smaug-bpe", _by(LLAMA3_SPLIT)),
    BpeSplit("qwen2", _by(_QWEN2)),
    BpeSplit("tekken", _by(_TEKKEN), whole_words=True),
    BpeSplit("gpt-4o", _by(_GPT4O)),
    BpeSplit("smollm", lambda: [pre_tokenizers.Digits(individual_digits=True), *_gpt2()]),
    BpeSplit("gpt-2", _gpt2),
)
BY_NAME = {split.name: split for split in SPLITS} | {"default": SPLITS[-1]}


def find_split(fast: Fast) -> BpeSplit | None:
    """The rule by which a byte-level BPE tokenizer cuts texts; None where no known one makes the same tokens."""
    cuts = [_cuts(fast.pre_tokenizer, text) for text in _probes()]
    alike = [
        split
        for split in SPLITS
        if all(_cuts(split.pre_tokenizer(), t) == c for t, c in zip(_probes(), cuts, strict=True))
    ]
    ignores = bool(fast.model.ignore_merges)
    exact = next((split for split in alike if split.whole_words == ignores), None)
    return exact or (alike[0] if alike and _merges_reach_all(fast) else None)


def _cuts(pre_tokenizer: Any, text: str) -> list[str]:
    return [part for part, _ in pre_tokenizer.pre_tokenize_str(text)]


@cache
def _probes() -> tuple[str, ...]:
    """Texts in which characters of all classes stand side by side: some written, the others drawn from a fixed seed."""
    written = (
        "L'anno 1861 c'era un'Italia, dall'Alpi al mare: 12345 km², 3,14 €!\n\n  Perché?\tÈ così.\r\n", "I'VE we'll don'T HE'S",
        "ItalianText camelCase ABCdef àÈì", "日本語 текст ελληνικά عربى हिन्दी 👩‍👩‍👧 ①②③ ½ _x_ a_b --- … //path/to\n/x",
        "   \n \n\n\t  a   b  ",
    )  # fmt: skip
    letters = "aàzAÈZ'stremvlld019  \n\r\t.,!?-/«»…_()€日本ʼǅʰ́½²🙂"
    draw = random.Random(0)
    return written + tuple("".join(draw.choices(letters, k=24)) for _ in range(1000))


def _merges_reach_all(fast: Fast) -> bool:
    """Whether merging makes every word of the vocabulary: then it makes no difference whether whole words are looked up first."""
    words = fast.get_vocab(with_added_tokens=False)
    model = Fast.from_str(fast.to_str()).model
    model.ignore_merges = False
    return all([token.id for token in model.tokenize(word)] == [index] for word, index in words.items())
