"""A Llama 3 of any shape as a checkpoint of 16-bit shards with a whole tokenizer: 16 GB for 8B, in minutes, without a download.

Written as the hub has them: shards of 5 GB, an index, `config.json`, a byte-level BPE tokenizer with Llama 3's special tokens and
template. The weights are normal numbers, the same ones over and over, each matrix from another place on: loading, memory and
speed do not depend on their values. The tokenizer knows the words of the project's sample; the rest of the vocabulary is made up.

Unusual: shards are written piece by piece, since a shard in memory would be a third of the model. Each appears under its name
when it is whole, `config.json` after all of them: a writing that was stopped goes on where it was, and what is not whole is no model.

Needs: stilnovo.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import string
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stilnovo.io import sample
from stilnovo.plan.shape import LlamaConfig
from stilnovo.text import template

SHARD_BYTES = 5_000_000_000
NUMBERS = 2**24 + 43  # no row begins with the same number as another soon
STEP = 5_915_587  # between the places at which two tensors begin
MERGES = 4000


def write(folder: Path, config: LlamaConfig, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write the checkpoint, or what is missing of it."""
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    shards, index = _shards(config, shard_bytes), dict[str, str]()
    numbers: torch.Tensor | None = None
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        index |= dict.fromkeys(shard, name)
        if not (folder / name).is_file():
            numbers = _numbers() if numbers is None else numbers
            _write_shard(folder / name, shard, numbers, list(config.weight_shapes()))
    total = 2 * sum(math.prod(shape) for shape in config.weight_shapes().values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    specials = _write_tokenizer(folder, config.vocab_size)
    part = folder / "config.json.part"
    part.write_text(json.dumps(_settings(config, specials), indent=1))
    part.rename(folder / "config.json")
    return folder


def _shards(config: LlamaConfig, shard_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in config.weight_shapes().items():
        if size + 2 * math.prod(shape) > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += 2 * math.prod(shape)
    return shards


def _numbers() -> torch.Tensor:
    drawn = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(7))
    return drawn.mul_(0.02).to(torch.bfloat16)


def _write_shard(path: Path, shard: dict[str, tuple[int, ...]], numbers: torch.Tensor, order: list[str]) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shard.items():
        start, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, shape in shard.items():
            for piece in _pieces(numbers, order.index(name) * STEP % NUMBERS, math.prod(shape)):
                stored = piece.add(1) if len(shape) == 1 else piece
                file.write(stored.view(torch.int16).numpy().data)
    os.replace(part, path)


def _pieces(numbers: torch.Tensor, start: int, count: int) -> Iterator[torch.Tensor]:
    while count:
        piece = numbers[start : start + count]
        yield piece
        start, count = 0, count - len(piece)


def _settings(config: LlamaConfig, specials: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "hidden_act": "silu",
        "bos_token_id": specials["<|begin_of_text|>"], "eos_token_id": specials["<|eot_id|>"], "hidden_size": config.hidden_size,
        "initializer_range": 0.02, "intermediate_size": config.intermediate_size, "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions, "num_attention_heads": config.heads, "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads, "rms_norm_eps": config.rms_eps, "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings, "torch_dtype": "bfloat16", "vocab_size": config.vocab_size,
    }  # fmt: skip


def _write_tokenizer(folder: Path, size: int) -> dict[str, int]:
    """Write `tokenizer.json` and its settings; returns the ids of the special tokens, which are the last."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain = size - len(template.LLAMA3_SPECIALS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [str(path) for path in (*sample.library_texts(), *map(sample.path, sample.ENCYCLOPAEDIA))]
    learnt.train(
        texts,
        trainers.BpeTrainer(vocab_size=min(plain, MERGES), initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(learnt.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    made_up = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4))
    known = set(vocabulary)
    vocabulary += itertools.islice((word for word in made_up if word not in known), plain - len(vocabulary))
    fast = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(vocabulary)},
            merges=[tuple(pair) for pair in model["merges"]],
        )
    )
    fast.pre_tokenizer, fast.decoder = learnt.pre_tokenizer, decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in template.LLAMA3_SPECIALS])
    fast.save(str(folder / "tokenizer.json"))
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "chat_template": template.LLAMA3_JINJA,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return {token: plain + number for number, token in enumerate(template.LLAMA3_SPECIALS)}
