"""Scaled rotations and biases in GGUF files: opened again here, and by a real llama.cpp, with the same answers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor

from conftest import CHATML, ROOT, SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.errors import InputError
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.merged import export_model
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.load import open_model
from stilnovo.plan.model_shape import config_from_gguf, config_of
from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import ATTENTION_PROJECTIONS, PROJECTIONS
from stilnovo.spec import ModelSpec

sys.path.append(str(ROOT / "bench"))
PROMPT = [(7 * n) % 256 + 3 for n in range(60)]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SHAPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "yarn": {"rope_scaling": YARN},
    "yarn-own-factor": {"rope_scaling": YARN | {"attention_factor": 0.7}},
    "attention-biases": {"attention_bias": True},
    "all-biases": {"attention_bias": True, "mlp_bias": True, "rope_scaling": YARN},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
}


def folder_of(path: Path, settings: dict[str, Any]) -> Path:
    path.mkdir()
    names: tuple[str, ...] = ATTENTION_PROJECTIONS if settings.get("attention_bias") else ()
    names = PROJECTIONS if settings.get("mlp_bias") else names
    names = ("q_proj", "k_proj", "v_proj") if settings.get("model_type") == "qwen2" else names
    shape = replace(TINY, vocab_size=256 + len(SPECIALS), tie_embeddings=True, max_positions=512, biases=names)
    write_weights(path, shape)
    write_byte_tokenizer(path, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | settings))
    return path


def spec(path: Path) -> ModelSpec:
    return ModelSpec(str(path), quantization="none", device="cpu")


def last_logits(path: Path) -> Tensor:
    model = open_model(spec(path))[0]
    with torch.no_grad():
        logits: Tensor = model(torch.tensor(PROMPT), positions_of([len(PROMPT)]), Blocks([len(PROMPT)]))[-1]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("name", SHAPES)
def test_a_gguf_file_computes_what_the_folder_computes(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", SHAPES[name])
    expected, plain = last_logits(folder), last_logits(folder_of(tmp_path / "plain", {}))
    assert name == "dynamic" or (expected - plain).abs().max() > 0.01  # the option is seen at all
    file = tmp_path / "gguf" / export_gguf(spec(folder), tmp_path / "gguf", type_name="f32").file
    assert (last_logits(file) - expected).abs().max() <= 1e-5
    assert config_of(str(file)).biases == config_of(str(folder)).biases
    if "yarn" in name or name == "all-biases":
        return  # a config.json cannot say YaRN's divisors; see below
    export_model(spec(file), tmp_path / "back", dtype=torch.float32)
    assert (last_logits(tmp_path / "back") - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_computes_what_the_folder_computes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    from llama_server import LlamaServer  # of bench/

    folder = folder_of(tmp_path / "m", SHAPES[name])
    file = tmp_path / "gguf" / export_gguf(spec(folder), tmp_path / "gguf", type_name="f32").file
    with LlamaServer(file) as theirs:
        found = theirs.likeliest(PROMPT, 256 + len(SPECIALS))
    expected = last_logits(folder)
    assert max(abs(value - float(expected[token])) for token, value in found.items()) <= 2e-3


def test_yarns_divisors_are_no_rule_that_a_config_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", SHAPES["yarn"])
    file = tmp_path / "gguf" / export_gguf(spec(folder), tmp_path / "gguf", type_name="f32").file
    with pytest.raises(InputError, match=r"(?s)rotary scaling.*Hugging Face folder"):
        export_model(spec(file), tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"type": "none"}, None),
        ({"type": "linear", "factor": 4.0}, RopeScaling(4.0, kind="linear")),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 64},
         RopeScaling(4.0, original_max_positions=64, kind="yarn", attention_factor=1.1386294361119891)),
    ],
)  # fmt: skip
def test_scaling_that_others_write_as_metadata_is_read(
    metadata: dict[str, Any], scaling: RopeScaling | None, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "m", {})
    file = tmp_path / "gguf" / export_gguf(spec(folder), tmp_path / "gguf", type_name="f32").file
    contents = gguf_contents(file)
    contents.fields.update({f"llama.rope.scaling.{key}": value for key, value in metadata.items()})
    try:
        assert config_from_gguf(contents, file).rope_scaling == scaling
        contents.fields["llama.rope.scaling.type"] = "longrope"
        with pytest.raises(InputError, match=r"rope\.scaling\.type=longrope"):
            config_from_gguf(contents, file)
    finally:
        from stilnovo.io import gguf_file

        gguf_file.forget()
    assert gguf.RopeScalingType.YARN.value == "yarn"
