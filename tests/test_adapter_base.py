"""The base beside which an adapter learnt: known wherever the adapter lies, and told where it is another that is opened."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path

import pytest

from conftest import TINY
from stilnovo.generate.generator import open_engine
from stilnovo.model import lora
from stilnovo.model.budget import fitting_spec
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.lora import LoraConfig
from stilnovo.model.scaling import parse, save_scaled
from stilnovo.recipe import Recipe
from stilnovo.spec import SCHEMES, ModelSpec, adapter_differences, spec_of, trained_scheme

ANITA = "swap-uniba/LLaMAntino-3-ANITA-8B-Inst-DPO-ITA"


def adapted() -> Llama:
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, LoraConfig(r=4))
    return model


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_copied_adapter_knows_its_scheme(scheme: str, tmp_path: Path, tiny_folder: Path) -> None:
    lora.save(adapted(), LoraConfig(r=4), tmp_path / "run" / "adapter", str(tiny_folder), scheme=scheme)  # type: ignore[arg-type]
    shutil.copytree(tmp_path / "run" / "adapter", copy := tmp_path / "elsewhere" / "mine")
    (copy.parent / "recipe.yaml").write_text(
        Recipe().changed({"model.quantization": "fp4"}).to_yaml()
    )  # of another run
    assert trained_scheme(copy) == scheme
    assert spec_of(str(tiny_folder), copy, None).quantization == scheme
    assert fitting_spec("evaluate", ModelSpec(str(tiny_folder), copy), None, 64)[0].quantization == scheme


def test_a_scaled_adapter_keeps_it_and_an_adapter_of_others_says_nothing(tmp_path: Path) -> None:
    model = adapted()
    save_scaled(model, LoraConfig(r=4), parse("0.5"), tmp_path / "half", "tiny", "int8")
    lora.save(model, LoraConfig(r=4), tmp_path / "plain", "tiny")
    assert trained_scheme(tmp_path / "half") == "int8" and trained_scheme(tmp_path / "plain") is None


@pytest.mark.parametrize("seed", range(20))
def test_what_is_no_file_of_weights_says_nothing(seed: int, tmp_path: Path) -> None:
    """What is wrong with it is told where the adapter is opened."""
    source = random.Random(seed)
    header = json.dumps(
        source.choice([{"__metadata__": 3}, [], {"__metadata__": {"base_quantization": "int3"}}, None])
    ).encode()
    whole = len(header).to_bytes(8, "little") + header
    damaged = bytearray(whole[: source.randrange(len(whole) + 1)])
    for _ in range(source.randrange(3)):
        if damaged:
            damaged[source.randrange(len(damaged))] = source.randrange(256)
    (tmp_path / "adapter_model.safetensors").write_bytes(damaged)
    assert trained_scheme(tmp_path) is None
    assert adapter_differences(ModelSpec("smollm2", tmp_path)) == []


@pytest.mark.parametrize(
    ("trained", "used", "same"),
    [
        ("anita", ANITA, True), ("anita", "anita-4bit", True), (ANITA, f"/models/{ANITA.partition('/')[2]}.Q4_K_M.gguf", True),
        ("smollm2", "/somewhere/SmolLM2-135M-Instruct.Q4_1.gguf", True), ("smollm2", "smollm2", True),
        ("/old/place/Meta-Llama-3-8B", "/new/Meta-Llama-3-8B", True), ("meta-llama/Llama-3-8B", "unsloth/llama-3-8b-bnb-4bit", True),
        ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "unsloth/Llama-3.2-1B", True), ("me/model-GGUF", "me/model-f16.gguf", True),
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct", False), ("smollm2", "anita", False),
        ("meta-llama/Llama-3-8B", "meta-llama/Llama-3.1-8B", False),
    ],
)  # fmt: skip
def test_another_base_is_told(trained: str, used: str, same: bool, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": trained}), encoding="utf-8")
    scheme = trained_scheme(tmp_path) or "none"
    told = adapter_differences(ModelSpec(used, tmp_path, scheme))
    assert told == ([] if same else [f"The adapter was trained on {trained}, and is used on {used}."])


def test_whoever_writes_with_an_adapter_is_told(
    tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lora.save(adapted(), LoraConfig(r=4), tmp_path / "adapter", "another/base", scheme="int8")
    caplog.set_level(logging.INFO, logger="stilnovo")
    open_engine(ModelSpec(str(tiny_folder), tmp_path / "adapter", "nf4", "cpu"))
    assert f"trained on another/base, and is used on {tiny_folder}." in caplog.text
    assert "trained on the base in int8, and is used on it in nf4" in caplog.text
    caplog.clear()
    lora.save(adapted(), LoraConfig(r=4), tmp_path / "adapter", str(tiny_folder), scheme="int8")
    open_engine(spec_of(str(tiny_folder), tmp_path / "adapter", None, "cpu"))
    assert "trained" not in caplog.text
