"""The vocabulary of a GGUF file: tokens, merges, special tokens, chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stilnovo.model.weights import GGUFReader

if TYPE_CHECKING:
    import gguf

    from stilnovo.export.opened import Opened


def add_vocabulary(writer: gguf.GGUFWriter, opened: Opened) -> None:
    """Add what a file says of its tokeniser."""
    import gguf

    if isinstance(opened.reader, GGUFReader):
        kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING}
        for key, value in opened.reader.fields.items():
            if key.startswith("tokenizer."):
                writer.add_key_value(key, value, kinds.get(type(value), gguf.GGUFValueType.ARRAY))
        return
    definition, rows = json.loads(opened.tokenizer.definition), opened.config.vocab_size
    names = {index: name for name, index in definition["model"]["vocab"].items()}
    added = {token["id"]: token["content"] for token in definition["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([added.get(index) or names.get(index) or f"[unused{index}]" for index in range(rows)])
    writer.add_token_types([3 if index in added else 1 if index in names else 5 for index in range(rows)])
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in definition["model"]["merges"]]
    writer.add_token_merges(pairs)
    writer.add_eos_token_id(opened.tokenizer.eos_id)
    if opened.tokenizer.jinja:
        writer.add_chat_template(opened.tokenizer.jinja)
