"""Names and row order of a Llama's weights in a GGUF file, beside those of a Hugging Face folder.

Unusual: of query and key, GGUF's `llama` architecture keeps the two dimensions that rotate together side by side, where a
Hugging Face folder keeps all first ones of a head before all second ones. The same holds for their biases, and for the rows of an
adapter's B.
"""

from __future__ import annotations

import re

_NAMES = (
    (re.compile(r"model\.embed_tokens\.weight"), "token_embd.weight"),
    (re.compile(r"model\.norm\.weight"), "output_norm.weight"),
    (re.compile(r"lm_head\.weight"), "output.weight"),
    (re.compile(r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)"), r"blk.\1.attn_\2.\3"),
    (re.compile(r"model\.layers\.(\d+)\.self_attn\.o_proj\.(weight|bias)"), r"blk.\1.attn_output.\2"),
    (re.compile(r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.(weight|bias)"), r"blk.\1.ffn_\2.\3"),
    (re.compile(r"model\.layers\.(\d+)\.input_layernorm\.weight"), r"blk.\1.attn_norm.weight"),
    (re.compile(r"model\.layers\.(\d+)\.post_attention_layernorm\.weight"), r"blk.\1.ffn_norm.weight"),
)
_PAIRED = re.compile(r"(?:model\.layers|blk)\.\d+\.(?:self_attn\.|attn_)([qk])(?:_proj)?\.\w+")
#: Divisors of the rotary frequencies, one a pair of dimensions.
ROPE_FREQS = "rope_freqs.weight"


def gguf_name(name: str) -> str:
    """The GGUF name of a weight by its Hugging Face name; one that is not known stays as it is."""
    return next((pattern.sub(new, name) for pattern, new in _NAMES if pattern.fullmatch(name)), name)


def paired_heads(name: str, heads: int, kv_heads: int) -> int | None:
    """How many heads' rows a weight holds in another order than a Hugging Face folder; None where the order is the same.

    Args:
        name: The weight's name, in either form.
        heads: The model's query heads.
        kv_heads: Its key heads.
    """
    found = _PAIRED.fullmatch(name)
    return None if found is None else heads if found[1] == "q" else kv_heads


def stored_rows(rows: int, heads: int) -> list[int]:
    """For each row of a query or key weight as GGUF stores it: its number in the Hugging Face order."""
    half = rows // heads // 2
    return [head * 2 * half + part * half + place for head in range(heads) for place in range(half) for part in (0, 1)]
