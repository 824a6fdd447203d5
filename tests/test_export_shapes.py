"""Exported folders of drawn models, opened by transformers: logits, weights, tokens, conversations and stops as they are here.

Whatever the base was: tied or not, grouped heads, scaled rotations, biases, padded vocabularies, shards, no named architecture, a
bare model, a GGUF file, with an adapter on it.
"""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from conftest import CHATML, SPECIALS, write_byte_tokenizer
from stilnovo.errors import InputError, StilnovoError
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.merged import export_model
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message
from test_opened_shapes import FAMILIES, ROPES

VOCABULARY = 256 + len(SPECIALS)
TOKENS = torch.tensor([3, 40, 99, 7, 200, 31, 5, 258, 17, 60, 8, 9, 77])
PROBES = ("Così è, se vi pare.", "l'àncora\n\n  1 234,50 €", "日本 🐎 <|im_end|>", "")
TALK = [Message("system", "Breve."), Message("user", "Chi è Dante?"), Message("assistant", "Un poeta.")]


def drawn_folder(seed: int, folder: Path) -> dict[str, Any]:
    """A chat model in a folder, as transformers writes it; returns what was drawn."""
    draw = random.Random(seed)
    family, rope = draw.choice(list(FAMILIES)), ROPES[seed % len(ROPES)]
    kind, model_class = FAMILIES[family]
    padded = draw.choice([0, 0, 5])
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY + padded, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": draw.choice([1, 2, 4]), "max_position_embeddings": 256,
        "tie_word_embeddings": draw.random() < 0.5, "bos_token_id": None, "eos_token_id": 0,
    }  # fmt: skip
    if family == "llama":
        settings |= {"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5}
    if rope is not None:
        settings["rope_scaling"] = dict(rope)
    torch.manual_seed(seed)
    model = model_class(kind(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    bare = settings["tie_word_embeddings"] and draw.random() < 0.5
    shards = draw.random() < 0.5
    (model.model if bare else model).save_pretrained(folder, max_shard_size="30kB" if shards else "1GB")
    path = folder / "config.json"
    if draw.random() < 0.3:
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "architectures"}))
    write_byte_tokenizer(folder, SPECIALS, eos_token="<|endoftext|>", chat_template=CHATML)
    return {"family": family, "padded": padded, "bare": bare, "shards": shards}


def spec(model: Path, adapter: Path | None = None) -> ModelSpec:
    return ModelSpec(str(model), adapter=adapter, quantization="none", device="cpu")


def ours(model: Path, adapter: Path | None = None) -> Tensor:
    opened = open_model(spec(model, adapter))[0]
    with torch.no_grad():
        logits: Tensor = opened(TOKENS, positions_of([len(TOKENS)]), Blocks([len(TOKENS)]))
    return logits


def theirs(model: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(TOKENS[None], use_cache=False).logits[0]
    return logits.float()


def write_adapter(base: Path, folder: Path) -> Path:
    model, config = open_model(spec(base))[0], LoraConfig(r=2, alpha=4.0)
    lora.attach(model, config)
    for module in lora.adapters(model).values():
        module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=torch.Generator().manual_seed(1))
    lora.save(model, config, folder, str(base))
    return folder


@pytest.mark.parametrize("seed", range(7))
def test_a_drawn_model_is_the_same_in_transformers(seed: int, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    drawn = drawn_folder(seed, source)
    adapter = write_adapter(source, tmp_path / "adapter") if seed % 2 else None
    if seed in (0, 1):  # from a GGUF file of it: one plain, one with a linear scaling
        file = export_gguf(spec(source), tmp_path / "gguf", type_name="f32").file
        source = tmp_path / "gguf" / file
    dtype = torch.float32 if seed % 3 else torch.bfloat16
    made = export_model(spec(source, adapter), out, dtype=dtype, shard_bytes=20_000 if drawn["shards"] else 10**9)
    assert (len(made.files) > 1) == drawn["shards"]
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == dtype and loaded.config.model_type in (drawn["family"], "llama" if source.is_file() else "")
    if dtype == torch.float32:
        expected = ours(source, adapter)
        assert (theirs(loaded) - expected).abs().max() <= 1e-5
        assert (ours(out) - expected).abs().max() <= 1e-5
        if adapter is not None:  # and PEFT on the base as it was
            base = AutoModelForCausalLM.from_pretrained(tmp_path / "source")
            assert (theirs(PeftModel.from_pretrained(base, adapter)) - expected).abs().max() <= 1e-5
    else:
        stored = {name: tensor for file in made.files for name, tensor in load_file(out / file).items()}
        model = open_model(spec(source, adapter))[0]
        exact = model.embed_tokens.to(dtype)
        assert torch.equal(stored["model.embed_tokens.weight"], exact)
        assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.state_dict().items() if name in stored)
    # The tokenizer, the conversation and the end.
    tokenizer, mine = AutoTokenizer.from_pretrained(out), open_model(spec(out))[1]
    for text in PROBES:
        assert tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] == mine.encode(text)
    turns = [{"role": turn.role, "content": turn.content} for turn in TALK]
    assert tokenizer.apply_chat_template(turns, return_dict=False) == mine.render(TALK, generation=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in GenerationConfig.from_pretrained(out).eos_token_id and end in loaded.generation_config.eos_token_id


# What vLLM reads of a folder before it opens the weights: vllm/config/model.py and vllm/transformers_utils/config.py, by format only.
VLLM_CONFIG = (
    "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "dtype", "torch_dtype", "hidden_act",
)  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_folder_has_every_field_that_others_read(seed: int, tmp_path: Path) -> None:
    drawn_folder(seed, tmp_path / "source")
    export_model(spec(tmp_path / "source"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert not [name for name in VLLM_CONFIG if config.get(name) is None]
    assert config["architectures"] == [type(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).__name__]
    assert AutoConfig.from_pretrained(tmp_path / "out").vocab_size == config["vocab_size"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja", "model.safetensors", "README.md",
    }  # fmt: skip


def test_rows_beyond_the_vocabulary_stay_and_missing_ones_are_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    model = FAMILIES["llama"][1](
        FAMILIES["llama"][0](vocab_size=VOCABULARY - 3, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    )  # fmt: skip
    model.save_pretrained(source)
    write_byte_tokenizer(source, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    with pytest.raises(InputError, match=r"(?s)does not go with the model.*258.*256 rows"):
        export_model(spec(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("full", ["model-00002", "README.md", "model.safetensors.index.json"])
def test_a_disk_that_ends_at_any_file_leaves_nothing(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_folder(1, tmp_path / "source")
    (tmp_path / "parent").mkdir()
    opening, replacing = Path.open, os.replace

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        into = Path("/dev/full") if mode == "wb" and self.name.startswith(full) else self
        return opening(into, mode, *rest, **options)

    def replaced(source: Any, target: Any) -> None:
        if Path(target).name == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replacing(source, target)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(StilnovoError, match="disk is full"):
        export_model(spec(tmp_path / "source"), tmp_path / "parent" / "deep" / "out", shard_bytes=20_000)
    assert not list((tmp_path / "parent").iterdir())
