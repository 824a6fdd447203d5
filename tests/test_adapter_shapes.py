"""Adapters of every shape that PEFT writes: they answer as they do in PEFT, or are refused by the name of what is not supported.

What counts is PEFT's model after `save_pretrained` and `from_pretrained`: some ways to begin are made once more there.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig as TheirLlama
from transformers import LlamaForCausalLM

from conftest import TINY, write_weights
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.plan.adapter import adapter_values, frozen_ranks, read_adapter_config
from stilnovo.plan.shape import PROJECTIONS
from stilnovo.spec import ModelSpec
from test_lora import logits, their_logits

FULL = [
    f"model.layers.{n}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}" for n in range(2) for name in PROJECTIONS
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    folder = tmp_path_factory.mktemp("base")
    write_weights(folder, TINY, std=0.05)  # gentle: transformers keeps norms and rotations in fp32
    return folder, LlamaForCausalLM.from_pretrained(folder).eval()


def peft_folder(
    theirs: LlamaForCausalLM, folder: Path, seed: int = 0, dtype: torch.dtype | None = None, **options: Any
) -> Path:
    """An adapter that PEFT made and that has learnt something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(copy.deepcopy(theirs), PeftConfig(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or parameter.requires_grad:
                drawn = 0.05 * torch.randn(parameter.shape, generator=generator)
                parameter.data = drawn.to(dtype or parameter.dtype)
        adapted.save_pretrained(folder)
    return folder


def in_peft(theirs: LlamaForCausalLM, folder: Path) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return their_logits(PeftModel.from_pretrained(copy.deepcopy(theirs), folder).eval().double())


def made(draw: random.Random) -> dict[str, Any]:
    """Options of an adapter; about a third of them hold something that changes more than W by s · B·A."""
    some = draw.sample(PROJECTIONS, draw.randint(1, 7))
    options: dict[str, Any] = {
        "r": draw.randint(1, 9), "lora_alpha": draw.choice([1, 7, 16, 24.5]), "use_rslora": draw.random() < 0.4,
        "lora_dropout": draw.choice([0.0, 0.4]),
        "target_modules": draw.choice([
            "all-linear", some, draw.sample(FULL, draw.randint(1, 14)), [*draw.sample(FULL, 2), *some],
            rf".*\.({'|'.join(some)})", r"model\.layers\.1\..*_proj", [f"self_attn.{draw.choice('qkvo')}_proj", "layers.0.mlp.up_proj"],
        ]),
        "init_lora_weights": draw.choice([True, False, "gaussian", "orthogonal", "mica"]),
    }  # fmt: skip
    if options["init_lora_weights"] == "orthogonal":
        options["r"] += options["r"] % 2
    if isinstance(options["target_modules"], list) and draw.random() < 0.4:
        options["layers_to_transform"] = draw.choice([0, 1, [0], [1], [0, 1]])
        options["layers_pattern"] = draw.choice([None, "layers", ["layers"], ["blocks", "layers"], r"lay\w+"])
    if draw.random() < 0.3:
        options["exclude_modules"] = draw.choice([["o_proj", "layers.0.mlp.up_proj"], r".*\.0\..*down_proj", FULL[3:5]])
    if options["init_lora_weights"] != "orthogonal" and draw.random() < 0.5:
        options["rank_pattern"] = draw.choice([
            {"q_proj": 3}, {r".*\.1\.mlp\.up_proj": 5, "up_proj": 2}, {FULL[0]: 11, r"^model.layers.1.self_attn.v_proj": 4},
            {r"layers\.[01]\.mlp\.\w+": 6}, {"proj": 50},
        ])  # fmt: skip
    if draw.random() < 0.5:
        options["alpha_pattern"] = draw.choice([
            {"v_proj": 40}, {r"self_attn\.[qk]_proj": 3, "q_proj": 90}, {FULL[6]: 0.5}, {"mlp.gate_proj": 5, "no_such": 2},
            {"down_proj": 0},
        ])  # fmt: skip
    return options


def opened(base: Path, adapter: Path) -> torch.Tensor:
    model = open_llama(ModelSpec(str(base), adapter, "none", "cpu"))
    return logits(model.double())


@pytest.mark.parametrize("seed", [*range(14), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(14, 80))])
def test_any_plain_shape_answers_as_in_peft(base: tuple[Path, LlamaForCausalLM], tmp_path: Path, seed: int) -> None:
    folder, theirs = base
    draw = random.Random(seed)
    dtype = draw.choice([None, torch.float16, torch.bfloat16])
    with suppress(ValueError):  # of PEFT, where nothing is left that the options name
        peft_folder(theirs, tmp_path / "adapter", seed, dtype, **made(draw))
    if not (adapter := tmp_path / "adapter").exists():
        return
    expected = in_peft(theirs, adapter)
    assert (opened(folder, adapter) - expected).abs().max() <= 1e-5 * expected.abs().max()
    ranks = frozen_ranks(adapter, TINY)
    updates = lora.stored(adapter, TINY)
    assert sum(map(sum, ranks)) == sum(len(update.a) for update in updates.values())
    assert adapter_values(adapter, TINY) == sum(u.a.numel() + u.b.numel() for u in updates.values())


#: What is set beside plain options, and the name that the refusal gives; none: it changes nothing, and is opened.
ODD: list[tuple[dict[str, Any], str]] = [
    ({"use_dora": True}, "use_dora"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"bias": "all"}, ""), ({"bias": "lora_only"}, ""),
    ({"lora_bias": True}, "lora_bias"),
    ({"trainable_token_indices": [3, 5]}, "trainable_token_indices"),
    ({"fan_in_fan_out": True}, ""),
    ({"ensure_weight_tying": True}, ""),
    ({"init_lora_weights": "pissa"}, "pissa"), ({"init_lora_weights": "pissa_niter_2"}, "pissa_niter_2"),
    ({"init_lora_weights": "olora"}, "olora"),
    ({"init_lora_weights": "eva"}, ""),
    ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    ({"use_qalora": True}, "use_qalora"),
    ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    ({"target_parameters": ["q_proj.weight"], "target_modules": []}, "target_parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "named"), ODD)
def test_what_is_more_than_lora_is_refused_by_name(
    base: tuple[Path, LlamaForCausalLM], tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    folder, theirs = base
    adapter = peft_folder(theirs, tmp_path, **{"r": 4, "target_modules": ["q_proj", "up_proj"]} | options)
    expected = in_peft(theirs, adapter)
    if named:
        with pytest.raises(InputError, match=named):
            opened(folder, adapter)
    else:
        assert (opened(folder, adapter) - expected).abs().max() <= 1e-5 * expected.abs().max()


def ours(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter that we wrote; its tensors."""
    model, config = Llama(TINY), lora.LoraConfig(r=2, projections=("q_proj", "up_proj"))
    lora.attach(model, config)
    lora.save(model, config, folder, "tiny")
    return load_file(folder / lora.WEIGHTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_value_that_is_no_number_is_named_with_its_tensor(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in ours(tmp_path).items()}
    save_file(tensors, tmp_path / lora.WEIGHTS)
    assert len(lora.stored(tmp_path, TINY)) == 4
    name = random.Random(str((value, dtype))).choice(sorted(tensors))
    tensors[name][1, 1] = value
    save_file(tensors, tmp_path / lora.WEIGHTS)
    for weights in (True, False):  # told before the base is read
        with pytest.raises(InputError, match=rf"(?s)no finite numbers.*{name}: 1 of"):
            lora.stored(tmp_path, TINY, weights=weights)


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    tensors = ours(tmp_path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name].to(torch.int8)}, tmp_path / lora.WEIGHTS)
    with pytest.raises(InputError, match=rf"{name}: it holds torch.int8"):
        lora.stored(tmp_path, TINY)


@pytest.mark.parametrize(
    ("old", "new"),
    [("base_model.model.", ""), ("base_model.model.model.", "base_model.model."), (".weight", ".default.weight"),
     ("base_model.", "module.base_model.")],
)  # fmt: skip
def test_names_that_peft_does_not_read_are_refused(tmp_path: Path, old: str, new: str) -> None:
    save_file({name.replace(old, new): tensor for name, tensor in ours(tmp_path).items()}, tmp_path / lora.WEIGHTS)
    with pytest.raises(InputError, match=r"(?s)missing.*save_pretrained"):
        lora.stored(tmp_path, TINY)


def test_half_a_pair_another_shape_and_one_too_many_are_named(tmp_path: Path) -> None:
    tensors = ours(tmp_path)
    draw = random.Random(8)
    for _ in range(12):
        name = draw.choice(sorted(tensors))
        other = draw.choice(["lost", "turned", "wider"])
        changed = dict(tensors)
        if other == "lost":
            del changed[name]
        else:
            changed[name] = tensors[name].T.contiguous() if other == "turned" else torch.cat([tensors[name]] * 2, 1)
        save_file(changed, tmp_path / lora.WEIGHTS)
        with pytest.raises(InputError, match=re.escape(name.removeprefix("base_model.model.").removesuffix(".weight"))):
            lora.stored(tmp_path, TINY)
        more = f"base_model.model.{draw.choice(['lm_head', 'model.norm', 'model.layers.7.mlp.up_proj'])}.lora_A.weight"
        save_file({**tensors, more: torch.ones(2, 64)}, tmp_path / lora.WEIGHTS)
        with pytest.raises(InputError, match=rf"(?s)no place for.*{more}.*merged model"):
            lora.stored(tmp_path, TINY)


def test_a_pickle_and_a_folder_of_adapters_say_what_to_do(tmp_path: Path) -> None:
    ours(tmp_path / "one")
    ours(tmp_path / "two")
    with pytest.raises(InputError, match=r"(?s)it holds: one, two.*Give one of them"):
        lora.check_files(tmp_path)
    (tmp_path / "one" / lora.WEIGHTS).rename(tmp_path / "one" / "adapter_model.bin")
    for opened_by in (lora.check_files, lambda folder: lora.stored(folder, TINY)):
        with pytest.raises(InputError, match=r"(?s)pickle.*save_pretrained"):
            opened_by(tmp_path / "one")
    (tmp_path / "one" / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match="no weights"):
        lora.check_files(tmp_path / "one")
    with pytest.raises(InputError, match="no adapter in"):
        lora.check_files(tmp_path / "nowhere")


def test_another_kind_of_adapter_is_named_alone(tmp_path: Path) -> None:
    ours(tmp_path)
    for kind in ("IA3", "PREFIX_TUNING", "ADALORA", "lora", None):
        settings = {"peft_type": kind, "feedforward_modules": ["up_proj"], "num_virtual_tokens": 8}
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(InputError, match=rf"\npeft_type={kind!r} in "):
            lora.check_files(tmp_path)


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    """A base whose projections add biases."""
    theirs = LlamaForCausalLM(TheirLlama(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        attention_bias=True, mlp_bias=True,
    )).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(folder := tmp_path_factory.mktemp("biased"))
    return folder, theirs


@pytest.mark.parametrize("kind", ["none", "lora_only", "all"])
def test_biases_of_the_base_stay_and_learnt_ones_are_refused(
    biased: tuple[Path, LlamaForCausalLM], tmp_path: Path, kind: str
) -> None:
    folder, theirs = biased
    adapter = peft_folder(theirs, tmp_path, r=3, target_modules=["q_proj", "o_proj", "up_proj"], bias=kind)
    expected = in_peft(theirs, adapter)
    if kind == "none":
        assert (opened(folder, adapter) - expected).abs().max() <= 1e-5 * expected.abs().max()
    else:
        with pytest.raises(InputError, match=r"(?s)no place for.*\.bias"):
            opened(folder, adapter)


#: What may stand in a damaged or hand-written file.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 4.5, float("inf"), float("nan"), 10**400, "", "x", "8", "(", "false", [], [1], ["q_proj"],
    [None], [["a"]], ["("], {}, {"q_proj": 1}, {"(": 1}, {"q_proj": None}, {"q_proj": "x"}, {"q_proj": float("inf")}, {"q_proj": -2},
    {"q_proj": 2.5}, {"q_proj": True},
]  # fmt: skip


def test_any_value_of_any_option_opens_or_is_refused(tmp_path: Path) -> None:
    ours(tmp_path)
    path = tmp_path / "adapter_config.json"
    written = json.loads(path.read_text())
    read = set[tuple[str, str]]()
    lists = [
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
    ]
    for option in ("r", "lora_alpha", "lora_dropout", "use_rslora", "bias", *lists):
        for value in VALUES:
            path.write_text(json.dumps(written | {option: value}))
            with suppress(InputError):
                config = read_adapter_config(tmp_path)
                assert all(type(c.r) is int and c.r > 0 and math.isfinite(c.scale) for c in config.modules(2).values())
                read.add((option, repr(value)))
    assert {value for option, value in read if option == "r"} == {"1"}
    assert {value for option, value in read if option == "use_rslora"} == {"None", "True", "False"}
    assert {value for option, value in read if option == "lora_alpha"} == {"0", "1", "-1", "4.5"}
