"""What other programs wrote: adapters by PEFT's rules, and options, tensors and configurations that are refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig as TheirLlama
from transformers import LlamaForCausalLM, MistralConfig

from conftest import TINY, write_weights
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.plan.adapter import frozen_ranks, read_adapter_config
from stilnovo.plan.shape import PROJECTIONS, config_from_json
from stilnovo.spec import ModelSpec
from test_lora import logits, their_logits

#: As PEFT 0.10 to 0.21 write them: every option off.
PEFT_OFF: dict[str, Any] = {
    "auto_mapping": None, "revision": None, "fan_in_fan_out": False, "modules_to_save": None, "layers_pattern": None,
    "rank_pattern": {}, "alpha_pattern": {}, "megatron_config": None, "megatron_core": "megatron.core", "loftq_config": {},
    "use_dora": False, "layer_replication": None, "exclude_modules": None, "trainable_token_indices": None, "eva_config": None,
    "corda_config": None, "lora_bias": False, "use_qalora": False, "qalora_group_size": 16, "target_parameters": None,
    "alora_invocation_tokens": None, "arrow_config": None, "ensure_weight_tying": False, "kasa_config": None,
    "lora_ga_config": None, "monteclora_config": None, "peft_version": "0.21.2", "use_bdlora": None, "velora_config": None,
    "init_lora_weights": True, "an_option_of_tomorrow": None,
}  # fmt: skip


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Llama, LlamaForCausalLM]:
    (tmp_path / "base").mkdir()
    write_weights(tmp_path / "base", TINY)
    ours = open_llama(ModelSpec(str(tmp_path / "base"), quantization="none", device="cpu"))
    return ours, LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()


CONFIGS: dict[str, dict[str, Any]] = {
    "all linear": {"target_modules": "all-linear"},
    "lower layers": {"target_modules": list(PROJECTIONS), "layers_to_transform": [0]},
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": 1},
    "rank pattern": {"target_modules": list(PROJECTIONS), "rank_pattern": {"q_proj": 4, r".*\.1\.mlp\.up_proj": 3}},
    "alpha pattern": {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"layers.0.self_attn.v_proj": 40}},
    "both, rsLoRA": {
        "target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 9}, "alpha_pattern": {"down_proj": 3},
        "use_rslora": True,
    },
    "a regular expression": {"target_modules": r".*\.(0|1)\.(self_attn\.[qk]|mlp\.gate)_proj"},
    "excluded": {"target_modules": list(PROJECTIONS), "exclude_modules": ["layers.0.mlp.up_proj", "o_proj"]},
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONFIGS))
def test_pefts_adapters_answer_as_in_peft(pair: tuple[Llama, LlamaForCausalLM], tmp_path: Path, name: str) -> None:
    ours, theirs = pair
    base = logits(ours)
    adapted = get_peft_model(theirs, PeftConfig(r=8, lora_alpha=16, init_lora_weights=False, **CONFIGS[name])).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    config = lora.load(ours, tmp_path / "adapter")
    expected = their_logits(adapted)
    assert (logits(ours) - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert (expected - base).abs().max() > 0.05
    ranks = frozen_ranks(tmp_path / "adapter", TINY)
    assert sum(map(sum, ranks)) == sum(len(module.lora_A) for module in lora.adapters(ours).values())
    lora.save(ours, config, tmp_path / "again", "base")  # one rank, one scale: the same adapter
    lora.detach(ours)
    lora.load(ours, tmp_path / "again")
    assert (logits(ours) - expected).abs().max() <= 1e-3 * expected.abs().max()


def adapter(folder: Path, **changes: Any) -> Path:
    model = Llama(TINY)
    lora.attach(model, config := lora.LoraConfig(r=2))
    lora.save(model, config, folder, "tiny")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | PEFT_OFF | changes))
    return folder


def test_options_that_are_off_pass_and_some_say_nothing(tmp_path: Path) -> None:
    for begun in (True, False, "gaussian", "eva", "orthogonal"):
        folder = adapter(tmp_path, init_lora_weights=begun, eva_config={"rho": 2.0}, revision="main")
        assert len(lora.stored(folder, TINY)) == 7 * TINY.layers


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("init_lora_weights", value) for value in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "new", 1)),
        ("use_dora", True), ("modules_to_save", ["lm_head"]), ("trainable_token_indices", [3]), ("lora_bias", True),
        ("layer_replication", [[0, 1]]), ("target_parameters", ["mlp.w"]), ("alora_invocation_tokens", [1, 2]),
        ("megatron_config", {"a": 1}), ("use_qalora", True), ("use_bdlora", {"x": 1}),
        ("arrow_config", {"k": 1}), ("kasa_config", {"k": 1}), ("layers_pattern", "layers"), ("an_option_of_tomorrow", 3),
    ],
)  # fmt: skip
def test_an_option_that_computes_otherwise_is_refused_by_name(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option):
        read_adapter_config(adapter(tmp_path, **{option: value}))


def test_any_option_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    draw = random.Random(4)
    for _ in range(20):
        name = "".join(draw.choices("abcdefgh_", k=9))
        with pytest.raises(InputError, match=name):
            read_adapter_config(adapter(tmp_path, **{name: draw.choice([True, 1, "on", [1], {"a": 1}])}))
        read_adapter_config(adapter(tmp_path, **{name: draw.choice([None, False, [], {}, ""])}))


def changed(folder: Path, **changes: Any) -> Path:
    write_weights(folder, TINY)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 97, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip


@pytest.mark.parametrize("theirs", [TheirLlama(**SIZES), MistralConfig(**SIZES)], ids=["llama", "mistral"])
def test_configs_of_transformers_open(theirs: Any, tmp_path: Path) -> None:
    """As transformers writes them, differences alone or every key; and what older versions wrote beside."""
    older = {
        "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "_name_or_path": "x", "torch_dtype": "float16",
        "pretraining_tp": 1, "transformers_version": "4.31.0.dev0", "use_bfloat16": False, "is_encoder_decoder": False,
        "pruned_heads": {}, "top_k": 50, "temperature": 1.0, "tie_encoder_decoder": False, "_flash_attn_2_enabled": True,
        "attn_logit_softcapping": None, "num_experts": None, "unsloth_version": "2025.12.5", "quantization_config": None,
    }  # fmt: skip
    for content in (theirs.to_dict(), theirs.to_diff_dict() | SIZES, theirs.to_dict() | older):
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert config_from_json(tmp_path / "config.json").hidden_size == 64


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_act", "gelu"), ("attn_logit_softcapping", 50.0),
        ("num_experts", 8), ("num_local_experts", 8), ("partial_rotary_factor", 0.5),
        ("layer_types", ["full_attention", "linear_attention"]),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}), ("quantization_config", {"quant_method": "awq"}),
        ("quantization_config", {"quant_method": "fp8"}), ("quantization_config", {"quant_method": "compressed-tensors"}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}), ("embedding_multiplier", 12.0), ("qk_norm", True),
        ("auto_map", {"AutoModelForCausalLM": "modeling.Mine"}), ("alibi", True),
        ("rope_scaling", {"rope_type": "longrope", "factor": 4.0}), ("rope_scaling", {"type": "su", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.25}),
        ("rope_parameters", {"rope_type": "default", "mrope_section": [1, 2]}),
    ],
)  # fmt: skip
def test_a_model_that_computes_otherwise_is_refused_by_name(tmp_path: Path, option: str, value: Any) -> None:
    name = option
    if option.startswith("rope_"):
        name = next((key for key in value if ("factor" in key and value[key] < 1) or "section" in key), "rope_type")
    with pytest.raises(InputError, match=rf"{name}="):
        config_from_json(changed(tmp_path, **{option: value}))


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.1.mlp.experts.0.up_proj.weight", "score.weight"]
)
def test_a_stored_tensor_that_nobody_reads_is_refused(tmp_path: Path, name: str) -> None:
    write_weights(tmp_path, TINY)
    stored = load_file(tmp_path / "model.safetensors")
    harmless = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(8) for n in range(2)}
    save_file(stored | harmless, tmp_path / "model.safetensors")
    open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu"))
    save_file(stored | {name: torch.ones(64)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"does not read\.\n{name}"):
        open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu"))


def test_a_tied_model_with_a_head_of_its_own(tmp_path: Path) -> None:
    """Versions of transformers differ in what they do with it; a head that repeats the embedding is none."""
    changed(tmp_path, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"lm_head\.weight"):
        open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu"))
    stored = load_file(tmp_path / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, tmp_path / "model.safetensors")
    assert open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu")).lm_head is None


def test_a_missing_tensor_is_named_before_anything_is_read(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    stored = load_file(tmp_path / "model.safetensors")
    del stored["model.norm.weight"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no tensor model\.norm\.weight"):
        open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu"))
