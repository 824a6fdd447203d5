"""Read Llama 3's `tokenizer.model`, a tiktoken rank file: each line has a token in base64 and its rank.

A rank file has no merges. A token's are found by merging its bytes with the ranks below its own: the last two parts are the
pair that makes it. The 256 special tokens are not in the file; they follow the ranks in the order of
`stilnovo.text.template.LLAMA3_SPECIALS`, and the chat template is not there either.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.text.stored_vocabulary import CONTROL
from stilnovo.text.template import LLAMA3_JINJA, LLAMA3_SPECIALS

# GPT-2's printable letter for each byte: itself where it is visible Latin-1, else the next letter from U+0100 on.
_VISIBLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
BYTE_LETTERS = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + at) for at, byte in enumerate(_HIDDEN)}


def gguf_fields(path: Path) -> dict[str, Any]:
    """Read the file into the fields that a GGUF file would hold.

    Raises:
        InputError: when the file is another kind (SentencePiece) or is broken, with the line.
    """
    ranks: dict[bytes, int] = {}
    for line_number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise InputError(
                f"{path} is not a tiktoken rank file.", f"Line {line_number}: {line[:40]!r}",
                "SentencePiece models are not supported; give a tokenizer.json.",
            ) from error  # fmt: skip
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise InputError(
            f"{path} is not whole.", f"{len(ranks)} ranks, not 0 … n − 1 with every byte.", "Fetch it again."
        )
    written = {"".join(BYTE_LETTERS[byte] for byte in token): rank for token, rank in ranks.items()}
    pairs = [_last_pair(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    merges = [
        " ".join("".join(BYTE_LETTERS[byte] for byte in part) for part in pair) for pair in pairs if len(pair) == 2
    ]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.tokens": [*sorted(written, key=written.__getitem__), *LLAMA3_SPECIALS],
        "tokenizer.ggml.token_type": [1] * len(ranks) + [CONTROL] * len(LLAMA3_SPECIALS),
        "tokenizer.ggml.bos_token_id": len(ranks),
        "tokenizer.ggml.eos_token_id": len(ranks) + LLAMA3_SPECIALS.index("<|eot_id|>"),
        "tokenizer.chat_template": LLAMA3_JINJA,
    }  # fmt: skip


def _last_pair(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    below = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], below), i) for i in range(len(parts) - 1))
        if best >= below:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
