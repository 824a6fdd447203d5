"""Our Llama against transformers on the same weights, and packing against separate runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import LlamaConfig as TheirConfig

from conftest import TINY
from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.forest import Forest
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.load import build
from stilnovo.model.weights import SafetensorsReader
from stilnovo.plan.shape import LlamaConfig, lora_parameters
from stilnovo.text.tokenizer import Tokenizer

TOLERANCE = 1e-4
BASE: dict[str, Any] = {"vocab_size": 211, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
LLAMA31 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SHAPES: dict[str, Any] = {
    "llama2": TheirConfig(**BASE, num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5),
    "llama3": TheirConfig(**BASE, num_attention_heads=8, num_key_value_heads=2, rope_theta=500_000.0),
    "llama3-tied": TheirConfig(**BASE, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True),
    "llama3.1": TheirConfig(**BASE, num_attention_heads=4, num_key_value_heads=2, rope_parameters=LLAMA31),
    "wide-heads": TheirConfig(**BASE, num_attention_heads=4, num_key_value_heads=2, head_dim=32),
    "mistral": MistralConfig(**BASE, num_attention_heads=4, num_key_value_heads=2, sliding_window=None),
    "mistral-window": MistralConfig(**BASE, num_attention_heads=4, num_key_value_heads=2, sliding_window=128),
}


def logits(model: Llama, tokens: Tensor, lengths: list[int]) -> Tensor:
    with torch.no_grad():
        return model(tokens, positions_of(lengths), Blocks(lengths))


def their_logits(model: torch.nn.Module, documents: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part[None], use_cache=False).logits[0] for part in documents])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shards", ["single", "sharded"])
def test_equals_transformers_on_random_shapes(shape: str, shards: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = SHAPES[shape]
    theirs = (MistralForCausalLM if "mistral" in shape else LlamaForCausalLM)(config).eval()
    with torch.no_grad():  # transformers starts norms at one and matrices small: make every weight count
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path, max_shard_size="100kB" if shards == "sharded" else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "sharded")
    ours = build(SafetensorsReader(tmp_path), "none", torch.device("cpu"), torch.float32)
    tokens = torch.randint(0, 211, (150,))
    expected = their_logits(theirs, tokens.split([90, 60]))
    assert expected.abs().max() > 1  # logits worth comparing
    assert (logits(ours, tokens, [90, 60]) - expected).abs().max() <= TOLERANCE
    assert ours.config.parameters() == sum(p.numel() for p in theirs.parameters())
    assert ours.config.max_positions == (128 if shape == "mistral-window" else config.max_position_embeddings)


def test_equals_transformers_on_smollm2(smollm2: tuple[Llama, Tokenizer], smollm2_gguf: Path) -> None:
    model, tokenizer = smollm2
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    ).eval()
    rows = read_rows(sample.path("encyclopaedia_a.jsonl"))
    documents = [torch.tensor(tokenizer.encode(rows[i]["text"])[:length]) for i, length in enumerate((400, 150))]
    expected = their_logits(theirs, tuple(documents))
    packed = torch.cat(documents)
    assert (logits(model, packed, [400, 150]) - expected).abs().max() <= TOLERANCE


def test_nothing_crosses_a_document_boundary(tiny: Llama) -> None:
    lengths = [30, 1, 20]
    documents = [torch.randint(0, 97, (length,)) for length in lengths]
    packed = logits(tiny, torch.cat(documents), lengths)
    apart = torch.cat([logits(tiny, document, [len(document)]) for document in documents])
    assert torch.allclose(packed, apart, atol=1e-5)
    other = logits(tiny, torch.cat([documents[0].flip(0), *documents[1:]]), lengths)
    assert torch.equal(other[30:], packed[30:])
    assert not torch.allclose(other[:30], packed[:30])


def test_two_endings_share_one_context(tiny: Llama) -> None:
    context, first, second = (torch.randint(0, 97, (length,)) for length in (12, 5, 7))
    size = 12 + 5 + 7
    mask = torch.ones(size, size, dtype=torch.bool).tril()
    mask[17:, 12:17] = False  # the second ending does not see the first
    positions = torch.cat([torch.arange(17), torch.arange(12, 19)])
    with torch.no_grad():
        tree = tiny(torch.cat([context, first, second]), positions, Forest([mask], torch.device("cpu"), torch.float32))
    assert torch.allclose(tree[:17], logits(tiny, torch.cat([context, first]), [17]), atol=1e-5)
    assert torch.allclose(tree[17:], logits(tiny, torch.cat([context, second]), [19])[12:], atol=1e-5)


def test_angles_stay_exact_in_another_type() -> None:
    model = Llama(TINY, random_source())
    before = model.rotary.frequencies.clone()
    model.to(torch.bfloat16)
    cos, _ = model.rotary(torch.arange(500), torch.bfloat16)
    assert cos.dtype == model.dtype == torch.bfloat16
    assert torch.equal(model.rotary.frequencies, before)


def test_half_precision_stays_near_single(tiny: Llama) -> None:
    tokens = torch.randint(0, 97, (40,))
    exact = logits(tiny, tokens, [40])
    rough = logits(tiny.to(torch.bfloat16), tokens, [40])
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_each_weight_is_asked_for_once_and_layer_by_layer() -> None:
    asked: list[str] = []
    source = random_source()

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        asked.append(name)
        return source(name, shape)

    Llama(TINY, tensor)
    assert len(asked) == len(set(asked)) == 2 * 9 + 3
    layers = [int(name.split(".")[2]) for name in asked if ".layers." in name]
    assert all(first <= second for first, second in pairwise(layers))


def test_base_has_no_parameters_until_lora_adds_them(tiny: Llama) -> None:
    assert list(tiny.parameters()) == []
    lora.attach(tiny, lora.LoraConfig(r=4))
    assert sum(p.numel() for p in tiny.parameters()) == lora_parameters(TINY, lora.LoraConfig(r=4))


def test_eight_billion_shape_counts() -> None:
    shape = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, layers=32, heads=32, kv_heads=8, head_dim=128
    )
    assert shape.parameters() == 8_030_261_248
    assert lora_parameters(shape, lora.LoraConfig(r=32)) == 83_886_080
    assert round(100 * 83_886_080 / shape.parameters(), 2) == 1.04
