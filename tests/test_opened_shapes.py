"""Every shape of Llama, Mistral and Qwen2 that transformers opens: the same numbers here, in each way that computes them.

Models are made by transformers from seeded settings: rotary scaling in both spellings, biases, tied and untied heads, grouped heads,
folders that name no architecture or were saved without their head.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from conftest import TINY, write_weights
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError
from stilnovo.generate.decoder import Decoder
from stilnovo.generate.kv_cache import KVCache
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.forest import Forest
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.rotary import RotaryTable
from stilnovo.plan.ledger import lasting_items
from stilnovo.plan.levers import Levers
from stilnovo.plan.model_shape import config_of
from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.spec import ModelSpec

VOCABULARY, CONTEXT = 101, 64
ROPES: tuple[dict[str, Any] | None, ...] = (
    None,
    {"type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16, "beta_slow": 2,
     "attention_factor": 1.3, "truncate": False},
    {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
)  # fmt: skip
FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
}  # fmt: skip
BIASED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def their_model(seed: int, family: str, rope: dict[str, Any] | None, **settings: Any) -> Any:
    config, kind = FAMILIES[family]
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT, "rope_theta": 5e5 if seed % 2 else 1e4,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = kind(config(**sizes, **settings, **({} if rope is None else {"rope_scaling": dict(rope)}))).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms off one, biases off zero, matrices large enough to be seen
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def drawn_model(seed: int) -> Any:
    draw = random.Random(seed)
    family, rope = draw.choice(list(FAMILIES)), ROPES[seed % len(ROPES)]
    settings: dict[str, Any] = {
        "num_key_value_heads": draw.choice([1, 2, 4]),
        "tie_word_embeddings": draw.random() < 0.5,
    }
    if family == "llama":
        settings |= {
            "attention_bias": draw.random() < 0.5,
            "mlp_bias": draw.random() < 0.5,
            "head_dim": draw.choice([None, 16]),
        }
    return their_model(seed, family, rope, **settings)  # fmt: skip


def saved(model: Any, folder: Path, **config: Any) -> Path:
    model.save_pretrained(folder)
    path = folder / "config.json"
    said = json.loads(path.read_text()) | config
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return folder


def opened(folder: Path) -> Llama:
    return open_llama(ModelSpec(str(folder), quantization="none", device="cpu"))


def ours(model: Llama, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, positions_of([len(tokens)]), Blocks([len(tokens)]))


def theirs(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(tokens[None], use_cache=False).logits[0]
    return found


def tokens_of(seed: int, length: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(14))
def test_a_drawn_shape_computes_what_transformers_computes(seed: int, tmp_path: Path) -> None:
    model = drawn_model(seed)
    bare = model.config.tie_word_embeddings and seed % 3 == 0
    folder = saved(model.model if bare else model, tmp_path, **({} if seed % 4 else {"architectures": None}))
    mine, tokens = opened(folder), tokens_of(seed, 50 if seed < 7 else 90)  # beyond the context too
    assert (ours(mine, tokens) - theirs(model, tokens)).abs().max() <= 1e-5
    assert config_of(str(folder)).parameters() == sum(p.numel() for p in model.parameters())
    assert mine.config.max_positions == CONTEXT

    # Documents of a pack, endings over one context, and what is written a token at a time.
    apart = torch.cat([theirs(model, part) for part in tokens[:50].split([30, 20])])
    with torch.no_grad():
        packed = mine(tokens[:50], positions_of([30, 20]), Blocks([30, 20]))
        assert (packed - apart).abs().max() <= 1e-5
        mask = torch.ones(24, 24, dtype=torch.bool).tril()
        mask[17:, 12:17] = False
        places = torch.cat([torch.arange(17), torch.arange(12, 19)])
        tree = mine(tokens[:24], places, Forest([mask], torch.device("cpu"), torch.float32))
        second = theirs(model, torch.cat([tokens[:12], tokens[17:24]]))
        assert (tree[17:] - second[12:]).abs().max() <= 1e-5
        cache, decoder = KVCache(mine.config, 1, 40, torch.device("cpu"), torch.float32), Decoder(mine, "fp32")
        hidden = mine.hidden(tokens[:10], cache.expect([10]), cache)
        cache.advance()
        for token in tokens[10:16]:
            hidden = decoder.hidden(token[None], cache.expect([1]), cache)
            cache.advance()
        assert (decoder.logits(hidden)[-1] - theirs(model, tokens[:16])[-1]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("groups", "layer"), [(1, "keep"), (1, "recompute"), (2, "keep"), (2, "attention")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("seed", [1, 4])
def test_a_training_step_has_autograds_gradients(groups: int, layer: Any, seed: int, tmp_path: Path) -> None:
    """Loss and gradients of the explicit step with every bias and a scaled rotation, beside autograd on the plain model."""
    model = their_model(seed, "llama", ROPES[seed], num_key_value_heads=2, attention_bias=True, mlp_bias=True)
    mine, tokens, lengths = opened(saved(model, tmp_path)), tokens_of(seed, 40), [25, 15]
    lora.attach(mine, LoraConfig(r=3, alpha=6.0))
    for module in lora.adapters(mine).values():
        module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=torch.Generator().manual_seed(2))
    mine.train()
    positions = positions_of(lengths)
    mine.hidden(tokens, positions, Blocks(lengths)).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in lora.parameters(mine) if parameter.grad is not None]
    for parameter in lora.parameters(mine):
        parameter.grad = None
    engine = TrainingEngine(mine, Levers(layers=(layer, layer), attention_groups=groups))
    engine.hidden(tokens, lengths).square().sum().backward()
    for parameter, right in zip(lora.parameters(mine), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))
    assert len(mine.config.biases) == 7


def test_biases_are_counted() -> None:
    plain = LoraConfig(r=2)
    biased = TINY.__class__(**{**TINY.__dict__, "biases": BIASED})
    sizes = [
        sum(item.size for item in lasting_items(Run(config=config, lora=plain), Levers(layers=("keep", "keep"))))
        for config in (TINY, biased)
    ]
    added = biased.parameters() - TINY.parameters()
    assert added == TINY.layers * sum(shape[0] for shape in TINY.linear_shapes().values())
    assert sizes[1] - sizes[0] == 2 * added


def test_a_text_beyond_the_context_stretches_no_other(tmp_path: Path) -> None:
    """`dynamic` goes by a text's own length: in a pack the short ones keep the plain angles."""
    scaling = RopeScaling(3.0, original_max_positions=16, kind="dynamic")
    table = RotaryTable(TINY.__class__(**{**TINY.__dict__, "rope_scaling": scaling}))
    plain = RotaryTable(TINY)
    together = table(positions_of([10, 40, 12]), torch.float32)[0]
    for part, length in zip(together.split([10, 40, 12]), (10, 40, 12), strict=True):
        assert torch.equal(part, table(torch.arange(length), torch.float32)[0])
        same = torch.equal(part, plain(torch.arange(length), torch.float32)[0])
        assert same == (length <= 16)


# — Names, heads and copies —


def changed_names(folder: Path, change: Any) -> None:
    stored = load_file(folder / "model.safetensors")
    save_file({change(name): tensor for name, tensor in stored.items()}, folder / "model.safetensors", {"format": "pt"})


def test_a_model_that_was_saved_alone_opens_when_its_head_is_tied(tmp_path: Path) -> None:
    model = their_model(3, "llama", None, tie_word_embeddings=True)
    expected = theirs(model, tokens_of(1, 20))
    for number, architectures in enumerate((["LlamaModel"], None, ["LlamaForCausalLM"])):
        folder = saved(model.model, tmp_path / str(number), architectures=architectures)
        assert all(name.startswith(("layers", "embed", "norm")) for name in load_file(folder / "model.safetensors"))
        assert (ours(opened(folder), tokens_of(1, 20)) - expected).abs().max() <= 1e-5
    untied = saved(their_model(3, "llama", None).model, tmp_path / "untied")
    with pytest.raises(InputError, match=r"(?s)no output head.*tie_word_embeddings"):
        opened(untied)


def test_of_tied_tables_one_is_enough_and_two_must_agree(tmp_path: Path) -> None:
    model = their_model(5, "llama", None, tie_word_embeddings=True)
    expected, folder = theirs(model, tokens_of(1, 20)), saved(model, tmp_path)
    changed_names(folder, lambda name: name.replace("model.embed_tokens", "lm_head"))
    assert (ours(opened(folder), tokens_of(1, 20)) - expected).abs().max() <= 1e-5
    stored = load_file(folder / "model.safetensors")
    for head, fine in ((stored["lm_head.weight"], True), (stored["lm_head.weight"] + 1, False)):
        both = {**stored, "model.embed_tokens.weight": stored["lm_head.weight"].clone(), "lm_head.weight": head.clone()}
        save_file(both, folder / "model.safetensors", {"format": "pt"})
        if fine:
            assert (ours(opened(folder), tokens_of(1, 20)) - expected).abs().max() <= 1e-5
        else:
            with pytest.raises(InputError, match="holds another head"):
                opened(folder)


def test_the_same_weights_under_two_names_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    stored = load_file(tmp_path / "model.safetensors")
    twice = {name.removeprefix("model."): tensor.clone() for name, tensor in stored.items() if "layers.0" in name}
    save_file(stored | twice, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"(?s)twice.*one copy"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pytorch_model.bin", r"(?s)pytorch_model\.bin.*pickle.*save_pretrained"),
        ("consolidated.00.pth", r"(?s)consolidated\.00\.pth.*pickle"),
        ("consolidated.safetensors", r"(?s)holds consolidated\.safetensors.*index"),
        ("model.Q4_K_M.gguf", r"(?s)--model .*model\.Q4_K_M\.gguf"),
        ("notes.txt", "Only safetensors and GGUF"),
    ],
)
def test_a_folder_without_readable_weights_says_what_it_holds(file: str, words: str, tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    (tmp_path / "model.safetensors").rename(tmp_path / file)
    with pytest.raises(InputError, match=words):
        opened(tmp_path)


def test_further_copies_beside_the_weights_are_not_read(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    expected = ours(opened(tmp_path), tokens_of(1, 9) % 97)
    for name in ("consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "model.gguf"):
        (tmp_path / name).write_bytes(b"no weights at all")
    assert torch.equal(ours(opened(tmp_path), tokens_of(1, 9) % 97), expected)


@pytest.mark.parametrize("option", ["rms_norm_eps", "rope_theta", "hidden_size", "num_attention_heads", "vocab_size"])
@pytest.mark.parametrize("value", [None, "x", -1, float("nan"), float("inf"), []])
def test_a_number_that_is_none_is_no_model(option: str, value: Any, tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {option: value}))
    if option == "rope_theta" and value in (None, []):  # left out
        assert config_of(str(tmp_path)).rope_theta == 10_000
        return
    with pytest.raises(InputError):
        opened(tmp_path)


@pytest.mark.parametrize(
    "quantization",
    [{"quant_method": "gptq", "bits": 4}, {"quant_method": "fp8"}, {"load_in_8bit": True, "quant_method": "bitsandbytes"}],
    ids=["gptq", "fp8", "int8"],
)  # fmt: skip
def test_what_other_methods_quantised_is_refused_with_what_helps(quantization: dict[str, Any], tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization}))
    with pytest.raises(
        InputError, match=rf"(?s)quantization_config={quantization['quant_method']}.*before it was quantised"
    ):
        opened(tmp_path)
