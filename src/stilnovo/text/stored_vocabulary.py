"""Build the library's tokenizer from the vocabulary inside a GGUF file: byte-level (`gpt2`) or SentencePiece's (`llama`).

Unusual: a file of the first kind names the rule by which texts are cut (`stilnovo.text.splits`); one of the second has scores, of
which the pairs are made again (`stilnovo.text.sentencepiece`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Fast

from stilnovo.errors import InputError
from stilnovo.text.sentencepiece import SPACE, pairs_of
from stilnovo.text.splits import BY_NAME

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # gguf.TokenType
#: Spelling of a token that stands for a byte of what the vocabulary lacks.
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
#: llama.cpp's name for merging by a list of pairs over whole lines, spaces as ▁ (since 2026).
PAIRS = "sarvam-moe"
_REQUIRED = {"gpt2": ("tokens", "merges", "eos_token_id"), "llama": ("tokens", "scores", "token_type", "eos_token_id")}


def check_vocabulary_fields(fields: Mapping[str, Any]) -> None:
    """Check that a GGUF file has a vocabulary of a kind that is read here.

    Raises:
        InputError: when it is another kind, or not whole.
    """
    kind, rule = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind not in _REQUIRED:
        raise InputError(
            "The GGUF file's tokeniser is not supported.",
            f"Found {kind!r}; supported: 'gpt2' (byte-level BPE) and 'llama' (SentencePiece).",
        )
    missing = [name for name in _REQUIRED[kind] if fields.get(f"tokenizer.ggml.{name}") is None]
    if missing:
        raise InputError(f"The GGUF file lacks tokenizer.ggml.{missing[0]}.", next="Give a file of a whole model.")
    if kind == "gpt2" and rule not in (*BY_NAME, PAIRS):
        raise InputError(
            "The GGUF file's pre-tokeniser is not supported.",
            f"Found {rule!r}; supported: {', '.join(BY_NAME)}, {PAIRS}.",
        )


def stored_vocabulary(fields: Mapping[str, Any]) -> tuple[Fast, dict[str, int]]:
    """The tokenizer and its special tokens, of checked fields; raises whatever the library does on lists that do not fit."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: Sequence[int] = fields.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    by_kind: dict[int, list[str]] = {}
    for token, kind in zip(tokens, types, strict=True):
        by_kind.setdefault(kind, []).append(token)
    spaces = fields["tokenizer.ggml.model"] == "llama" or fields.get("tokenizer.ggml.pre") == PAIRS
    fast = _with_spaces(fields, tokens, types) if spaces else _byte_level(fields, tokens)
    unknown = by_kind.get(UNKNOWN, []) if spaces else []
    specials = [*unknown, *by_kind.get(CONTROL, [])]
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    fast.add_tokens([AddedToken(token, special=False, normalized=False) for token in by_kind.get(USER, [])])
    ids = {token: index for index, token in enumerate(tokens)}
    return fast, {token: ids[token] for token in specials}


def _byte_level(fields: Mapping[str, Any], tokens: list[str]) -> Fast:
    rule = BY_NAME[fields.get("tokenizer.ggml.pre", "default")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    fast = Fast(models.BPE(vocab=vocabulary, merges=_listed(fields), ignore_merges=rule.whole_words))
    fast.pre_tokenizer = rule.pre_tokenizer()
    fast.decoder = decoders.ByteLevel()
    return fast


def _listed(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"] if merge)  # [""] where there are none
    return [(left, right) for left, right in pairs]


def _with_spaces(fields: Mapping[str, Any], tokens: list[str], types: Sequence[int]) -> Fast:
    """A vocabulary in which ▁ stands for a space, with bytes for what it lacks."""
    ids = {token: index for index, token in enumerate(tokens)}
    if fields["tokenizer.ggml.model"] == "llama":
        scores = fields["tokenizer.ggml.scores"]
        normal = {token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind == NORMAL}
        pairs = pairs_of(normal)
    else:
        pairs = _listed(fields)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    model = models.BPE(vocab=ids, merges=pairs, byte_fallback=BYTE in types, fuse_unk=True, unk_token=unknown)
    before = fields.get("tokenizer.ggml.add_space_prefix", fields["tokenizer.ggml.model"] == "llama")
    fast = Fast(model)
    escape = normalizers.Replace(" ", SPACE)
    fast.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), escape]) if before else escape
    spaces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)] if before else spaces)
    return fast
