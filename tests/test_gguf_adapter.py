"""An adapter alone as GGUF: on the base in a real llama.cpp it does what it does merged, at the strength it was trained with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from conftest import CHATML, ROOT, SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.cli.main import app
from stilnovo.errors import InputError
from stilnovo.export.gguf_adapter import export_adapter
from stilnovo.export.gguf_model import export_gguf
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.model import lora
from stilnovo.model.load import open_model
from stilnovo.plan.model_shape import config_of
from stilnovo.plan.shape import LoraConfig
from stilnovo.spec import ModelSpec

sys.path.append(str(ROOT / "bench"))

PROMPTS = ([3, 40, 99, 7], [200, 31, 5, 250, 17, 60], [9])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with key/value heads of their own and stretched frequencies, as Llama 3.1 has them."""
    folder = tmp_path_factory.mktemp("base")
    write_weights(folder, replace(TINY, vocab_size=260, max_positions=512, rope_theta=500_000.0))
    write_byte_tokenizer(folder, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    settings = json.loads((folder / "config.json").read_text())
    settings["rope_scaling"] = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter with numbers in A and B, written as `train` writes it."""
    model = open_model(spec(base))[0]
    config = LoraConfig(**{"r": 4, "alpha": 6.0} | settings)
    lora.attach(model, config)
    draw = torch.Generator().manual_seed(1)
    for module in lora.adapters(model).values():
        module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=draw)
    lora.save(model, config, folder, str(base))
    return folder


def spec(base: Path, adapter: Path | None = None) -> ModelSpec:
    return ModelSpec(str(base), quantization="none", adapter=adapter, device="cpu")


@pytest.fixture
def likeliest() -> Iterator[Any]:
    pytest.importorskip("xllamacpp", reason="needs a real llama.cpp: pip install xllamacpp")
    from llama_server import LlamaServer

    opened = []

    def ask(path: Path, adapter: Path | None = None) -> Tensor:
        """Log-probabilities of all tokens after each prompt (prompts, vocabulary)."""
        opened.append(LlamaServer(path, adapter=adapter))
        found = [opened[-1].likeliest(prompt, 260) for prompt in PROMPTS]
        return torch.tensor([[logs[token] for token in range(260)] for logs in found])

    yield ask
    for model in opened:
        model.close()


def ours(base: Path, adapter: Path | None) -> Tensor:
    from stilnovo.model.attention import Blocks, positions_of

    model = open_model(spec(base, adapter))[0]
    with torch.no_grad():
        rows = [model(torch.tensor(p), positions_of([len(p)]), Blocks([len(p)]))[-1] for p in PROMPTS]
    return torch.stack(rows).log_softmax(-1)


@pytest.mark.parametrize(
    "settings", [{}, {"rslora": True, "r": 8}, {"rslora": False, "projections": ("q_proj", "v_proj")}]
)
def test_llama_cpp_applies_the_trained_strength(
    base: Path, tmp_path: Path, likeliest: Any, settings: dict[str, Any]
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", **settings)
    whole = export_gguf(spec(base), tmp_path / "base", type_name="f32")
    alone = export_adapter(str(base), adapter, tmp_path / "alone")
    merged = export_gguf(spec(base, adapter), tmp_path / "merged", type_name="f32")
    plain = likeliest(tmp_path / "base" / whole.file)
    adapted = likeliest(tmp_path / "base" / whole.file, tmp_path / "alone" / alone.file)
    torch.testing.assert_close(adapted, likeliest(tmp_path / "merged" / merged.file), atol=1e-3, rtol=0)
    torch.testing.assert_close(adapted, ours(base, adapter), atol=1e-3, rtol=0)
    torch.testing.assert_close(plain, ours(base, None), atol=1e-3, rtol=0)
    assert (adapted - plain).abs().max() > 0.1  # it does something


def test_ranks_and_scales_of_their_own_are_kept(base: Path, tmp_path: Path, likeliest: Any) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", rslora=False)
    _with_patterns(adapter)
    alone = export_adapter(str(base), adapter, tmp_path / "alone")
    whole = export_gguf(spec(base), tmp_path / "base", type_name="f32")
    adapted = likeliest(tmp_path / "base" / whole.file, tmp_path / "alone" / alone.file)
    torch.testing.assert_close(adapted, ours(base, adapter), atol=1e-3, rtol=0)
    ranks = {
        tensor.shape[0]
        for name, tensor in gguf_contents(tmp_path / "alone" / alone.file).tensors.items()
        if name.endswith("a")
    }
    assert ranks == {2, 4}


def _with_patterns(adapter: Path) -> None:
    """Cut layer 1's queries to rank 2 and give its gates another alpha."""
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    weights[f"{name}.lora_A.weight"] = weights[f"{name}.lora_A.weight"][:2].contiguous()
    weights[f"{name}.lora_B.weight"] = weights[f"{name}.lora_B.weight"][:, :2].contiguous()
    save_file(weights, adapter / "adapter_model.safetensors")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings |= {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"gate_proj": 20}}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))


def test_the_command_writes_adapter_and_modelfile(base: Path, tmp_path: Path) -> None:
    adapter, out = write_adapter(base, tmp_path / "adapter"), tmp_path / "out"
    arguments = ["export", "--model", str(base), "--format", "gguf", "--adapter-only", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--adapter", str(adapter), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    fields = gguf_contents(out / said["file"]).fields
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert fields["adapter.lora.alpha"] == pytest.approx(said["alpha"]) and said["modules"] == 14
    assert f"ADAPTER ./{said['file']}" in (out / "Modelfile").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "gguf"], "needs an adapter"),
        (["--adapter", "x"], "--adapter-only says nothing about --format huggingface"),
        (["--format", "gguf", "--adapter", "x", "--type", "f16"], "--type says nothing"),
    ],
)
def test_options_that_do_not_go_with_an_adapter_alone_are_refused(
    base: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    whole = ["export", "--model", str(base), "--adapter-only", "--out", str(tmp_path / "out"), *arguments]
    done = CliRunner().invoke(app, whole)
    assert isinstance(done.exception, InputError) and words in str(done.exception)


def test_an_adapter_of_another_shape_is_refused_and_nothing_is_left(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_weights(other, replace(TINY, vocab_size=260, hidden_size=32, heads=2, kv_heads=2))
    write_byte_tokenizer(other, SPECIALS, eos_token="<|im_end|>")
    adapter = write_adapter(base, tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit"):
        export_adapter(str(other), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists() and config_of(str(other)).hidden_size == 32
