"""Our Llama against transformers on the same weights, and packing against separate runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import LlamaConfig as TheirConfig

from stilnovo.data import sample
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, LlamaConfig
from stilnovo.model.load import build
from stilnovo.model.memory import measure_kept
from stilnovo.model.weights import SafetensorsReader
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
}


def logits(model: Llama, tokens: Tensor, lengths: list[int]) -> Tensor:
    with torch.no_grad():
        return model(tokens, positions_of(lengths), Blocks.documents(lengths))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shards", ["single", "sharded"])
def test_equals_transformers_on_random_shapes(shape: str, shards: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = SHAPES[shape]
    theirs = (MistralForCausalLM if shape == "mistral" else LlamaForCausalLM)(config).eval()
    with torch.no_grad():  # transformers starts norms at one and matrices small: make every weight count
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path, max_shard_size="100kB" if shards == "sharded" else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "sharded")
    ours = build(SafetensorsReader(tmp_path), "none", torch.device("cpu"), torch.float32)
    tokens = torch.randint(0, 211, (150,))
    with torch.no_grad():
        expected = torch.cat([theirs(part[None], use_cache=False).logits[0] for part in tokens.split([90, 60])])
    assert (logits(ours, tokens, [90, 60]) - expected).abs().max() <= TOLERANCE
    assert ours.config.parameters() == sum(p.numel() for p in theirs.parameters())


def test_equals_transformers_on_smollm2(smollm2: tuple[Llama, Tokenizer], smollm2_gguf: Path) -> None:
    model, tokenizer = smollm2
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    ).eval()
    tokens = torch.tensor(tokenizer.encode(sample.rows("encyclopaedia_a.jsonl")[0]["text"])[:300])
    with torch.no_grad():
        expected = theirs(tokens[None], use_cache=False).logits[0]
    assert (logits(model, tokens, [len(tokens)]) - expected).abs().max() <= TOLERANCE


def test_nothing_crosses_a_document_boundary(tiny: Llama) -> None:
    first, second = torch.randint(0, 97, (30,)), torch.randint(0, 97, (20,))
    packed = logits(tiny, torch.cat([first, second]), [30, 20])
    apart = torch.cat([logits(tiny, first, [30]), logits(tiny, second, [20])])
    assert torch.allclose(packed, apart, atol=1e-5)
    other = logits(tiny, torch.cat([first.flip(0), second]), [30, 20])
    assert torch.equal(other[30:], packed[30:])


def gradients(model: Llama, tokens: Tensor) -> tuple[float, list[Tensor]]:
    for parameter in lora.parameters(model):
        parameter.grad = None
    loss = model(tokens, positions_of([40, 24]), Blocks.documents([40, 24])).square().mean()
    loss.backward()
    return loss.item(), [p.grad.clone() for p in lora.parameters(model) if p.grad is not None]


def test_checkpointing_changes_memory_and_nothing_else(tiny: Llama) -> None:
    lora.attach(tiny, lora.LoraConfig(r=4))
    for module in lora.adapters(tiny).values():
        torch.nn.init.normal_(module.lora_B, std=0.1)
    tokens = torch.randint(0, 97, (64,))
    plain_loss, plain = gradients(tiny, tokens)
    forward = lambda: tiny.hidden(tokens, positions_of([64]), Blocks.documents([64]))  # noqa: E731
    kept = measure_kept(tiny, forward)
    tiny.checkpointing = True
    loss, recomputed = gradients(tiny, tokens)
    assert loss == plain_loss
    assert len(plain) == 2 * 14
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert measure_kept(tiny, forward) < kept / 4


def test_eight_billion_shape_counts() -> None:
    shape = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, layers=32, heads=32, kv_heads=8, head_dim=128
    )
    assert shape.parameters() == 8_030_261_248
    assert lora.count(shape, lora.LoraConfig(r=32)) == 83_886_080
    assert round(100 * 83_886_080 / shape.parameters(), 2) == 1.04


def test_unsupported_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(InputError, match="GPT2LMHeadModel is not supported"):
        SafetensorsReader(tmp_path)


def test_truncated_safetensors_is_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(SHAPES["llama2"]).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="truncated"):
        SafetensorsReader(tmp_path)
