"""GGUF files of every supported type, written here and read back; and files that must be refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf.quants import dequantize, quantize

from stilnovo.errors import InputError
from stilnovo.model.llama import Llama, LlamaConfig, random_source
from stilnovo.model.load import build
from stilnovo.model.weights import GGUF_TYPES, GGUFReader

CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=256, intermediate_size=256, layers=1, heads=4, kv_heads=2, head_dim=64, tie_embeddings=True,
    max_positions=128, rms_eps=float(np.float32(1e-5)),
)  # fmt: skip
NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm",
    "blk.0.attn_norm": "model.layers.0.input_layernorm", "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    "blk.0.attn_q": "model.layers.0.self_attn.q_proj", "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
    "blk.0.attn_v": "model.layers.0.self_attn.v_proj", "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
    "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj", "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
    "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
}  # fmt: skip
Array = npt.NDArray[np.generic]


def blocks(weight: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> Array:
    """Bytes of a quantised matrix. The package cannot quantise to K types: those get random bytes, a small scale."""
    if kind.name in ("Q4_K", "Q5_K", "Q6_K"):
        values, size = gguf.GGML_QUANT_SIZES[kind]
        raw = np.random.default_rng(weight.size).integers(
            0, 256, (weight.shape[0], weight.shape[1] // values, size), dtype=np.uint8
        )
        scale = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
        if kind.name == "Q6_K":
            raw[..., -2:] = scale
        else:
            raw[..., :2] = raw[..., 2:4] = scale
        return raw.reshape(weight.shape[0], -1)
    found: Array = quantize(weight, kind)
    return found


def permuted(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows in GGUF's order: the two halves of a head's rotary dimensions interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, kind: gguf.GGMLQuantizationType, architecture: str = "llama") -> dict[str, torch.Tensor]:
    """Write a model; returns what a reader must see, by Hugging Face name."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"t{i}" for i in range(64)])
    expected: dict[str, torch.Tensor] = {}

    def record(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        expected[name] = source(name, shape)
        return expected[name]

    source = random_source(9)
    Llama(CONFIG, record)
    for stored, name in NAMES.items():
        key = f"{name}.weight"
        weight = expected[key].numpy()
        if weight.ndim == 1:
            writer.add_tensor(f"{stored}.weight", weight)
            continue
        heads = {"blk.0.attn_q": 4, "blk.0.attn_k": 2}.get(stored)
        raw = blocks(permuted(weight, heads) if heads else weight, kind)
        writer.add_tensor(f"{stored}.weight", raw, raw_dtype=kind)
        seen = dequantize(raw, kind).astype(np.float32).reshape(weight.shape)
        if heads:  # undo the order: the inverse of `permuted`
            seen = seen.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        expected[key] = torch.from_numpy(np.ascontiguousarray(seen))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


@pytest.mark.parametrize("name", GGUF_TYPES)
def test_every_type_reads_as_the_package_dequantises(name: str, tmp_path: Path) -> None:
    expected = write(tmp_path / "m.gguf", gguf.GGMLQuantizationType[name])
    model = build(GGUFReader(tmp_path / "m.gguf"), "none", torch.device("cpu"), torch.float32)
    assert model.config == CONFIG
    assert torch.equal(model.embed_tokens, expected["model.embed_tokens.weight"])
    for projection in ("q_proj", "k_proj", "v_proj"):
        got = getattr(model.layers[0].self_attn, projection).dense(torch.float32)  # type: ignore[union-attr]
        assert torch.equal(got, expected[f"model.layers.0.self_attn.{projection}.weight"])
    if name == "F32":
        assert torch.equal(expected["model.layers.0.self_attn.q_proj.weight"], random_q())


def random_q() -> torch.Tensor:
    seen: dict[str, torch.Tensor] = {}
    source = random_source(9)
    Llama(CONFIG, lambda name, shape: seen.setdefault(name, source(name, shape)))
    return seen["model.layers.0.self_attn.q_proj.weight"]


def test_unsupported_type_and_architecture(tmp_path: Path) -> None:
    write(tmp_path / "k.gguf", gguf.GGMLQuantizationType.Q5_K)
    with pytest.raises(InputError, match=r"(?s)Q5_K.*Supported: F32"):
        GGUFReader(tmp_path / "k.gguf")
    write(tmp_path / "q.gguf", gguf.GGMLQuantizationType.F16, architecture="qwen2")
    with pytest.raises(InputError, match="'qwen2' is not supported"):
        GGUFReader(tmp_path / "q.gguf")


@pytest.mark.parametrize("keep", [0, 3, 40, 2000, 0.5, 0.99])
def test_truncated_files_are_refused(keep: float, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", gguf.GGMLQuantizationType.Q8_0)
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError):
        build(GGUFReader(tmp_path / "m.gguf"), "none", torch.device("cpu"), torch.float32)
