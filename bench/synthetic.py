"""A Llama of any shape as a 4-bit checkpoint that transformers loads, its packed weights drawn at random.

Speed and memory do not depend on the values, so an 8B shape needs no download and no dense matrix: what is written is what
bitsandbytes would have packed (NF4, double quantisation), 5.6 GB for 8B. The scales are all alike and small.

Needs: stilnovo.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stilnovo.model.four_bit import bitsandbytes_functional
from stilnovo.plan.levers import BLOCK, NESTED_BLOCK
from stilnovo.plan.shape import ATTENTION_PROJECTIONS, LlamaConfig


def linear_entries(
    name: str, rows: int, columns: int, code: Tensor, nested: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """The tensors under which bitsandbytes serialises one 4-bit weight; drawn on `device`."""
    blocks = -(-rows * columns // BLOCK)
    state = {
        "quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": [rows, columns], "nested_blocksize": NESTED_BLOCK,
        "nested_dtype": "float32", "nested_offset": 0.02,
    }  # fmt: skip
    return {
        name: torch.randint(0, 256, (rows * columns // 2, 1), dtype=torch.uint8, device=device).cpu(),
        f"{name}.absmax": torch.randint(0, 256, (blocks,), dtype=torch.uint8, device=device).cpu(),
        f"{name}.quant_map": code.clone(),
        f"{name}.nested_absmax": torch.full((-(-blocks // NESTED_BLOCK),), 0.005),
        f"{name}.nested_quant_map": nested.clone(),
        f"{name}.quant_state.bitsandbytes__nf4": torch.frombuffer(
            bytearray(json.dumps(state).encode()), dtype=torch.uint8
        ),
    }


def write(
    folder: Path, config: LlamaConfig, dtype: torch.dtype = torch.bfloat16, device: torch.device | None = None
) -> Path:
    """Write config, tokeniser and one safetensors file a layer; random numbers are drawn on `device` (a card: in seconds)."""
    place = device or torch.device("cpu")
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    functional = bitsandbytes_functional()
    code, nested = functional.get_4bit_type("nf4", device="cpu"), functional.create_dynamic_map(signed=True)
    placed: dict[str, str] = {}

    def save(file: str, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, folder / file, metadata={"format": "pt"})
        placed.update(dict.fromkeys(tensors, file))

    for index in range(config.layers):
        prefix = f"model.layers.{index}"
        tensors: dict[str, Tensor] = {}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = torch.ones(config.hidden_size, dtype=dtype)
        for name, (rows, columns) in config.linear_shapes().items():
            part = "self_attn" if name in ATTENTION_PROJECTIONS else "mlp"
            tensors |= linear_entries(f"{prefix}.{part}.{name}.weight", rows, columns, code, nested, place)
        save(f"layer-{index:03d}.safetensors", tensors)
    table = torch.randn(config.vocab_size, config.hidden_size, device=place).mul_(0.02).to(dtype).cpu()
    ends = {"model.embed_tokens.weight": table, "model.norm.weight": torch.ones(config.hidden_size, dtype=dtype)}
    if not config.tie_embeddings:
        ends["lm_head.weight"] = table.clone()
    save("ends.safetensors", ends)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    index_file = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    (folder / "config.json").write_text(json.dumps(settings(config, dtype)))
    tokenizer(folder)
    return folder


def settings(config: LlamaConfig, dtype: torch.dtype) -> dict[str, Any]:
    """`config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_eps, "rope_theta": config.rope_theta, "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": 131_072, "torch_dtype": str(dtype).removeprefix("torch."), "bos_token_id": 0, "eos_token_id": 1,
        "quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
            "bnb_4bit_quant_storage": "uint8",
        },
    }  # fmt: skip


def tokenizer(folder: Path) -> None:
    """The smallest tokeniser the peers accept: documents arrive as ids and are never read."""
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>")).save(
        str(folder / "tokenizer.json")
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131_072, **names})
    )
