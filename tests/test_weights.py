"""Weights on disk: every GGUF type and kind of safetensors read back, files that must be refused, and peak memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from conftest import TINY, write_weights
from stilnovo.errors import InputError
from stilnovo.io import gguf_file
from stilnovo.io.gguf_file import readable_kinds
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, LlamaConfig, random_source
from stilnovo.model.load import build, choose_device, open_llama
from stilnovo.model.weights import GGUFReader, SafetensorsReader
from stilnovo.recipe import Recipe
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import open_tokenizer
from stilnovo.train.planning import run_of

CPU = torch.device("cpu")
CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=256, intermediate_size=256, layers=1, heads=4, kv_heads=2, head_dim=64, tie_embeddings=True,
    max_positions=128, rms_eps=float(np.float32(1e-5)),
)  # fmt: skip
MATRICES = {
    "token_embd": "model.embed_tokens", "blk.0.attn_q": "model.layers.0.self_attn.q_proj",
    "blk.0.attn_k": "model.layers.0.self_attn.k_proj", "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
    "blk.0.attn_output": "model.layers.0.self_attn.o_proj", "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj",
    "blk.0.ffn_up": "model.layers.0.mlp.up_proj", "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
}  # fmt: skip
NORMS = {
    "output_norm": "model.norm", "blk.0.attn_norm": "model.layers.0.input_layernorm",
    "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
}  # fmt: skip
Kind = gguf.GGMLQuantizationType
Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


#: Where in a block of 256 values a type that the package cannot quantise keeps its scales, in 16 bits.
SCALES = {
    "Q2_K": (-4, -2), "Q3_K": (-2,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (-2,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,),
    "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ1_S": (0,), "IQ4_XS": (0,), "IQ4_NL": (0,),
}  # fmt: skip


def encoded(weight: Floats, kind: Kind) -> Array:
    """A matrix as the file keeps it. To many types the package cannot quantise: those get random bytes, a small scale."""
    with contextlib.suppress(NotImplementedError):
        found: Array = quantize(weight, kind)
        return found
    values, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(weight.size)
    raw = rng.integers(0, 256, (weight.shape[0], weight.shape[1] // values, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
    if kind.name == "IQ1_M":  # its scale is spread over the upper four bits of its last four 16-bit words
        raw[..., -8:] = np.frombuffer(np.array([0xEFFF, 0x8FFF, 0x6FFF, 0x0FFF], "<u2").tobytes(), np.uint8)
    for place in SCALES.get(kind.name, ()):
        raw[..., place % size : place % size + 2] = scale
    return raw.reshape(weight.shape[0], -1)


def permuted(weight: Floats, heads: int) -> Floats:
    """Rows in GGUF's order: the two halves of a head's rotary dimensions interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def unpermuted(weight: Floats, heads: int) -> Floats:
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path, kind: Kind, architecture: str = "llama", more: Callable[[gguf.GGUFWriter], None] | None = None, drop: str = ""
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Write a model; returns what a reader must see, by Hugging Face name. `drop` leaves a tensor or the tokens out."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    if drop != "eps":
        writer.add_layer_norm_rms_eps(1e-5)
    if drop != "tokens":
        writer.add_token_list([f"t{i}" for i in range(64)])
    if more is not None:
        more(writer)
    source, expected = random_source(9), dict[str, torch.Tensor]()
    Llama(CONFIG, lambda name, shape: expected.setdefault(name, source(name, shape)))
    for stored, name in NORMS.items():
        writer.add_tensor(f"{stored}.weight", expected[f"{name}.weight"].numpy())
    for stored, name in MATRICES.items():
        key, heads = f"{name}.weight", {"blk.0.attn_q": 4, "blk.0.attn_k": 2}.get(stored)
        weight = expected[key].numpy()
        raw = encoded(permuted(weight, heads) if heads else weight, kind)
        seen = dequantize(raw, kind).astype(np.float32).reshape(weight.shape)
        expected[key] = torch.from_numpy(np.ascontiguousarray(unpermuted(seen, heads) if heads else seen))
        if stored != drop:
            writer.add_tensor(f"{stored}.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def load(path: Path) -> Llama:
    reader = GGUFReader(path) if path.is_file() else SafetensorsReader(path)
    return build(reader, "none", CPU, torch.float32)


def parts(model: Llama) -> dict[str, torch.Tensor]:
    """Every weight of a one-layer model by Hugging Face name."""
    found = {"model.embed_tokens.weight": model.embed_tokens, "model.norm.weight": model.norm}
    for index, layer in enumerate(model.layers):
        for name, buffer in layer.named_buffers(prefix=f"model.layers.{index}"):
            found[name if name.endswith(".weight") else f"{name}.weight"] = buffer
    return found


def test_the_types_of_common_files_are_read() -> None:
    common = {
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
    }
    assert common <= set(readable_kinds())


@pytest.mark.parametrize("name", readable_kinds())
def test_every_type_reads_as_the_package_dequantises(name: str, tmp_path: Path) -> None:
    expected = write(tmp_path / "m.gguf", Kind[name])
    model = load(tmp_path / "m.gguf")
    assert model.config == CONFIG
    got = parts(model)
    assert set(got) == set(expected)
    assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert all(weight.isfinite().all() and weight.unique().numel() > 1 for weight in got.values())
    if name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"):  # and nothing was put in another place on the way
        original = random_source(9)("model.embed_tokens.weight", (64, 256))
        step = {"Q4_0": 0.02, "Q4_1": 0.01}.get(name, 5e-4)
        assert (got["model.embed_tokens.weight"] - original).abs().max() <= step


@pytest.mark.parametrize("piece", [1, 257, 3 * 256, 64 * 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pieces_of_any_size_make_the_same_matrix(
    piece: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(tmp_path / "m.gguf", Kind.Q6_K)
    reader = GGUFReader(tmp_path / "m.gguf")
    monkeypatch.setattr(gguf_file, "PIECE", piece)
    for name, weight in expected.items():
        assert torch.equal(reader.tensor(name, tuple(weight.shape), dtype), weight.to(dtype))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", torch.float32), ("BF16", torch.bfloat16), ("F16", torch.float16), ("Q5_K", torch.float16)],
)
def test_large_tables_stay_in_sixteen_bits_on_a_processor(
    kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(tmp_path / "m.gguf", Kind[kind])
    wide = load(tmp_path / "m.gguf")
    monkeypatch.setattr("stilnovo.model.load.TABLE_BYTES", 4 * 64 * 256 - 1)
    narrow = load(tmp_path / "m.gguf")
    assert (wide.embed_tokens.dtype, narrow.embed_tokens.dtype) == (torch.float32, dtype)
    assert narrow.norm.dtype == torch.float32
    assert torch.equal(narrow.embed_tokens, expected["model.embed_tokens.weight"].to(dtype))
    tokens = torch.arange(20)
    torch.testing.assert_close(logits(narrow, tokens), logits(wide, tokens), atol=2e-3, rtol=0)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, Kind.F16)
    reader = GGUFReader(path)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(InputError, match=r"(?s)m\.gguf cannot be read.*truncated"):
        build(reader, "none", CPU, torch.float32)


def test_a_file_of_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="other byte order"):
        GGUFReader(tmp_path / "m.gguf")


def logits(model: Llama, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens, positions_of([len(tokens)]), Blocks([len(tokens)]))


def test_gguf_with_worked_out_rotary_factors_is_llama_3_1(tmp_path: Path) -> None:
    """A GGUF file keeps Llama 3.1's scaling as one divisor a frequency; transformers computes it from the settings."""
    low, high, factor, original = 1.0, 4.0, 8.0, 64
    waves = 2 * np.pi * 500_000.0 ** (np.arange(0, 64, 2) / 64)
    smooth = (original / waves - low) / (high - low)
    divisors = np.where(
        waves < original / high, 1.0, np.where(waves > original / low, factor, 1 / ((1 - smooth) / factor + smooth))
    )
    assert len(set(divisors.round(6))) > 3  # kept, slowed and blended ones

    def more(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_freq_base(500_000.0)
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))

    state = write(tmp_path / "m.gguf", Kind.F32, more=more)
    theirs = LlamaForCausalLM(
        TheirConfig(
            vocab_size=64, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500_000.0, "factor": factor, "low_freq_factor": low,
                "high_freq_factor": high, "original_max_position_embeddings": original,
            },
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    tokens = torch.arange(120) % 64
    with torch.no_grad():
        expected = theirs(tokens[None], use_cache=False).logits[0]
    assert (logits(load(tmp_path / "m.gguf"), tokens) - expected).abs().max() <= 1e-4


def test_unsupported_type_and_architecture(tmp_path: Path) -> None:
    write(
        tmp_path / "k.gguf",
        Kind.F32,
        more=lambda writer: writer.add_tensor("blk.0.extra.weight", np.ones(4, np.float64)),
    )
    with pytest.raises(InputError, match=r"(?s)F64.*k\.gguf.*Supported: F32"):
        GGUFReader(tmp_path / "k.gguf")
    write(tmp_path / "q.gguf", Kind.F16, architecture="qwen2")
    with pytest.raises(InputError, match=r"(?s)'qwen2' is not supported.*Supported: 'llama'"):
        GGUFReader(tmp_path / "q.gguf")


def test_options_that_would_change_the_result_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, Kind.F16, more=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE))
    with pytest.raises(InputError, match="longrope"):
        GGUFReader(path)
    write(path, Kind.F16, more=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN))
    with pytest.raises(InputError, match=r"lacks llama\.rope\.scaling\.factor"):
        GGUFReader(path)
    write(path, Kind.F16, more=lambda writer: writer.add_tensor("blk.0.attn_norm.bias", np.ones(256, np.float32)))
    with pytest.raises(InputError, match=r"attn_norm\.bias"):
        GGUFReader(path).check()
    write(path, Kind.F16, more=lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.ones(256, np.float32)))
    assert GGUFReader(path).config.biases == ("q_proj",)
    write(path, Kind.F16, more=lambda writer: writer.add_sliding_window(96))
    assert GGUFReader(path).config.max_positions == 96


@pytest.mark.parametrize(
    ("drop", "words"), [("tokens", "no vocabulary"), ("eps", "rms_epsilon"), ("blk.0.ffn_up", r"blk\.0\.ffn_up")]
)
def test_an_incomplete_gguf_is_refused(drop: str, words: str, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", Kind.F16, drop=drop)
    with pytest.raises(InputError, match=words):
        load(tmp_path / "m.gguf")


@pytest.mark.parametrize("keep", [0, 3, 4, 40, 2000, 0.5, 0.99])
def test_truncated_gguf_is_refused(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, Kind.Q8_0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError) as caught:
        load(path)
    assert 2 <= len(str(caught.value).splitlines()) <= 3
    assert "m.gguf" in str(caught.value)


def test_a_training_reads_the_metadata_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan, tokenizer and weights of a GGUF file come from one reading, which the opened model does not keep."""

    def more(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "ab", *(f"t{i}" for i in range(61))])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(63)

    readings = []
    begin = gguf.GGUFReader.__init__
    monkeypatch.setattr(
        gguf.GGUFReader, "__init__", lambda self, path, *more: readings.append(path) or begin(self, path, *more)
    )
    path = tmp_path / "m.gguf"
    for number in (1, 2):
        write(path, Kind.Q8_0, drop="tokens", more=more)
        recipe = Recipe().changed({"model.name": str(path), "model.quantization": "none", "model.device": "cpu"})
        assert run_of(recipe, torch.device("cpu")).config.layers == 1
        assert open_tokenizer(str(path)).encode("ab") == [2]
        open_llama(ModelSpec(str(path), quantization="none", device="cpu"))
        assert len(readings) == number


def test_wrong_magic(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match=r"(?s)not a GGUF file.*begin with 'GGUF'"):
        GGUFReader(tmp_path / "m.gguf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_in_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    write_weights(tmp_path, replace(TINY, tie_embeddings=True), dtype)
    stored = load_file(tmp_path / "model.safetensors")
    got = parts(load(tmp_path))
    assert set(got) == set(stored)
    assert all(torch.equal(got[key], stored[key].float()) for key in got)


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_weights_that_bitsandbytes_saved_in_four_bits(scheme: str, double: bool, tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    write_weights(tmp_path, TINY, torch.float16)
    tensors, dense = load_file(tmp_path / "model.safetensors"), dict[str, torch.Tensor]()
    for name in [name for name in tensors if "_proj" in name]:
        linear = Linear4bit(*reversed(tensors[name].shape), bias=False, compress_statistics=double, quant_type=scheme)
        linear.load_state_dict({"weight": tensors.pop(name)})
        linear.to("cpu")  # quantises
        tensors.update({name.removesuffix("weight") + key: value for key, value in linear.state_dict().items()})
        functional, state = sys.modules["bitsandbytes.functional"], linear.weight.quant_state
        assert state is not None
        shape, state.shape = state.shape, torch.Size((state.shape.numel(),))  # right on every processor: a single row
        dense[name] = functional.dequantize_4bit(linear.weight.data, state).float().view(shape)
    assert any("quant_state.bitsandbytes" in name for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    got = parts(load(tmp_path))
    assert all(torch.equal(got[name], dense[name]) for name in dense)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported"),
        ({"architectures": None, "model_type": "gpt2"}, "gpt2 is not supported"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "the nearest is Qwen2ForCausalLM"),
        ({"architectures": ["MixtralForCausalLM"]}, "the nearest is MistralForCausalLM"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
        ({"num_attention_heads": 0}, "does not describe"),
        ({"num_attention_heads": "four"}, "does not describe"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"attention_bias": True}, r"no tensor model\.layers\.0\.self_attn\.q_proj\.bias"),
        ({"rope_scaling": {"type": "longrope", "factor": 2}}, "rope_type=longrope"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "does not describe"),
        ({"rope_scaling": {"type": "linear"}}, "lacks 'factor'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "lacks 'low_freq_factor'"),
        ({"hidden_size": 32}, "unexpected shape"),
        ({"num_hidden_layers": 3}, r"no tensor model\.layers\.2"),
    ],
)
def test_a_config_that_is_not_ours(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    edit_config(tmp_path, **changes)
    with pytest.raises(InputError, match=words) as caught:
        load(tmp_path)
    assert 2 <= len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_config_that_is_broken(content: str, tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="not valid JSON"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1000])
def test_truncated_safetensors(keep: int, tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"(?s)model\.safetensors cannot be read.*truncated"):
        load(tmp_path)


def test_missing_weights_and_shards(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"No model\.safetensors"):
        load(tmp_path)
    index = {"weight_map": {name: f"model-0000{1 + ('layers.1' in name)}-of-00002.safetensors" for name in whole}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"(?s)2 weight files are missing.*00001-of-00002"):
        load(tmp_path)
    for file in set(index["weight_map"].values()):
        save_file({"other": torch.ones(1)}, tmp_path / file)
    with pytest.raises(InputError, match=r"00001-of-00002.* cannot be read"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load(tmp_path)


def test_other_quantisations_are_refused_not_misread(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    for foreign, words in (
        (torch.int8, "int8"),
        (torch.float8_e4m3fn, "float8_e4m3fn"),
        (torch.uint8, "no bitsandbytes"),
    ):
        save_file({**tensors, name: tensors[name].to(foreign)}, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=words):
            load(tmp_path)


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    for bad in ("cpuu", "tpu", "mps", ""):
        with pytest.raises(InputError, match=r"(?s)auto, cpu, cuda"):
            choose_device(bad)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="No CUDA card"):
            choose_device("cuda:0")


PEAK = """
import sys
from pathlib import Path
import torch
from stilnovo.model.load import build
from stilnovo.model.quantize import FrozenLinear, quantized_linear
from stilnovo.model.weights import GGUFReader, SafetensorsReader

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

quantized_linear(torch.randn(64, 64), sys.argv[2]).dense(torch.float32)  # what importing and first use take
before = status("VmRSS")
reader = (SafetensorsReader if Path(sys.argv[1]).is_dir() else GGUFReader)(Path(sys.argv[1]))
model = build(reader, sys.argv[2], torch.device("cpu"), torch.float32)
kept = sum(m.nbytes for m in model.modules() if isinstance(m, FrozenLinear))
print(kept, status("VmHWM") - before, status("VmRSS") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's memory")
@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_peak_memory_of_loading_is_near_the_quantised_size(
    scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "wide-model"
    config = LlamaConfig(
        vocab_size=128, hidden_size=1024, intermediate_size=4096, layers=8, heads=16, kv_heads=8, head_dim=64
    )
    if not folder.exists():
        folder.mkdir()
        write_weights(folder, config, torch.float16)
    sixteen = (folder / "model.safetensors").stat().st_size
    assert sixteen > 250e6
    run = [sys.executable, "-c", PEAK, str(folder), scheme]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    kept, peak, after = (int(word) for word in out.split())
    assert kept < {"nf4": 0.3, "int8": 0.55}[scheme] * sixteen
    largest = 4 * 1024 * 4096  # one dense projection in fp32
    assert peak < kept + 6 * largest, f"{kept=} {peak=} {after=} {sixteen=}"
    assert peak < 0.8 * sixteen


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's memory")
def test_peak_memory_of_loading_a_gguf_file_is_its_tables_and_one_matrix(tmp_path: Path) -> None:
    rows, columns, inner = 16_384, 1024, 4096  # a table in fp32: 64 MiB
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(columns)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(16)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"t{i}" for i in range(rows)])
    shapes = {
        "token_embd": (rows, columns), "output": (rows, columns), "blk.0.attn_q": (columns, columns),
        "blk.0.attn_k": (512, columns), "blk.0.attn_v": (512, columns), "blk.0.attn_output": (columns, columns),
        "blk.0.ffn_gate": (inner, columns), "blk.0.ffn_up": (inner, columns), "blk.0.ffn_down": (columns, inner),
    }  # fmt: skip
    for name in NORMS:
        writer.add_tensor(f"{name}.weight", np.ones(columns, np.float32))
    for name, shape in shapes.items():
        raw = encoded(np.empty(shape, np.float32), Kind.Q6_K)
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=Kind.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    run = [sys.executable, "-c", PEAK, str(tmp_path / "m.gguf"), "int8"]
    kept, peak, after = (int(word) for word in subprocess.check_output(run, text=True).split())
    table, matrix = 4 * rows * columns, 4 * inner * columns
    metadata = 64 * 2**20  # the package's own lists of the vocabulary, and the rows that are dequantised
    assert peak < kept + 2 * table + 3 * matrix + metadata, f"{kept=} {peak=} {after=}"


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_weight_in_parts_is_the_weight(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Blocks of rows in order, each alone; a vector is one."""
    reader = SafetensorsReader(tiny_folder)
    monkeypatch.setattr("stilnovo.model.weights.ROWS_PART", rows * reader.config.hidden_size)
    for name, shape in reader.config.weight_shapes().items():
        parts = list(reader.parts(name, shape))
        assert torch.equal(torch.cat(parts), reader.tensor(name, shape))
        assert len(shape) == 1 or all(part.numel() <= max(rows * reader.config.hidden_size, shape[1]) for part in parts)
    with pytest.raises(InputError, match="has no tensor"):
        next(reader.parts("model.layers.9.mlp.up_proj.weight", (1, 1)))
