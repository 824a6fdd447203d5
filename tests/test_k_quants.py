"""Our block quantisers: types as llama.cpp chooses them, errors below those of its own quantiser, whatever the values."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from conftest import ROOT
from stilnovo.export.gguf_types import BLOCKS, GGUFEntry, model_entries
from stilnovo.export.gguf_writer import encode
from stilnovo.plan.shape import LLAMA_3_8B, SMOLLM2_135M

sys.path.append(str(ROOT / "bench"))
import quantiser
import real_checkpoint

Values = np.ndarray[Any, np.dtype[np.float32]]
KINDS = ("Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q5_1", "Q8_0")


def ours(kind: str, values: Values, importance: Values | None = None) -> Values:
    entry = GGUFEntry("blk.0.ffn_up.weight", values.shape, kind)
    columns = None if importance is None else torch.from_numpy(importance)
    stored = encode(torch.from_numpy(values), entry, columns).numpy()
    assert stored.shape == (len(values), entry.row_bytes)
    return dense(kind, stored)


def dense(kind: str, stored: Any) -> Values:
    return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[kind])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def theirs() -> Callable[..., Values]:
    """llama.cpp's own quantiser of rows, from the library inside the wheel `xllamacpp`."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("needs the wheel xllamacpp")
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
    quantise = library.ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def quantised(kind: str, values: Values, importance: Values | None = None) -> Values:
        block, size = BLOCKS[kind]
        rows, columns = values.shape
        stored = np.empty((rows, columns // block * size), np.uint8)
        plain = np.ascontiguousarray(values)
        weights = None if importance is None else importance.ctypes.data
        number = int(gguf.GGMLQuantizationType[kind])
        written = quantise(number, plain.ctypes.data, stored.ctypes.data, 0, rows, columns, weights)
        assert written == stored.nbytes
        return dense(kind, stored)

    return quantised


def error(found: Values, values: Values, importance: Values | None = None) -> float:
    squares = np.square(found.astype("f8") - values)
    return float((squares if importance is None else squares * importance).sum())


def made_values(name: str) -> Values:
    draw = np.random.default_rng(5)
    normal = draw.standard_normal((16, 768)) * 0.02
    groups = np.exp(2 * draw.standard_normal((1, 24))).repeat(32, axis=1)
    made = {
        "normal": normal, "heavy tails": draw.standard_t(3, normal.shape) * 0.02, "one sign": np.abs(normal),
        "far from zero": 5 + normal, "large": normal * 1e5, "small": normal / 1e2,
        "mostly zero": normal * (draw.random(normal.shape) < 0.1),
        "one outlier": np.where(draw.random(normal.shape) < 0.004, 50 * normal, 0.01 * normal), "uneven groups": normal * groups,
        "few values": np.round(normal * 300) / 127, "zero": 0 * normal, "one value a group": normal * (np.arange(768) % 32 == 5),
    }  # fmt: skip
    return made[name].astype("f4")


NAMES = (
    "normal", "heavy tails", "one sign", "far from zero", "large", "small", "mostly zero", "one outlier", "uneven groups",
    "few values", "zero", "one value a group",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_no_larger_than_llama_cpps(theirs: Callable[..., Values], kind: str, name: str) -> None:
    values = made_values(name)
    found, other = ours(kind, values), theirs(kind, values)
    assert np.isfinite(found).all()
    assert error(found, values) <= error(other, values) * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weighed_errors_are_no_larger_either(theirs: Callable[..., Values], kind: str) -> None:
    values = made_values("normal")
    importance = np.exp(np.random.default_rng(2).standard_normal(768)).astype("f4")
    found, other = ours(kind, values, importance), theirs(kind, values, importance)
    assert error(found, values, importance) <= error(other, values, importance)
    if kind != "Q8_0":
        assert error(found, values, importance) < error(ours(kind, values), values, importance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_does_not_matter_may_have_no_weight(kind: str) -> None:
    importance = np.zeros(768, "f4")
    importance[::2] = 1
    values = made_values("normal")
    found = ours(kind, values, importance)
    assert np.isfinite(found).all()
    assert error(found, values, importance) <= error(ours(kind, values), values, importance) * 1.001
    assert np.isfinite(ours(kind, values, np.zeros(768, "f4"))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_encoded_alike_together_and_alone(kind: str) -> None:
    values = torch.from_numpy(made_values("normal"))
    entry = GGUFEntry("x", tuple(values.shape), kind)
    whole = encode(values, entry)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(encode(values, entry), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("type_name", ["q4_k_m", "q5_k_m", "q6_k"])
def test_types_are_those_that_llama_cpp_chooses(type_name: str) -> None:
    stored = json.loads(quantiser.REFERENCE.read_text(encoding="utf-8"))["types"]
    assert len(stored) > 10
    for label, kinds in stored.items():
        assert quantiser.entries_of(label, type_name) == {
            k: v for k, v in kinds[type_name].items() if k != "rope_freqs.weight"
        }, label


def test_the_mix_of_8b_and_of_smollm2() -> None:
    entries = model_entries(LLAMA_3_8B, "q4_k_m")
    better = [name for name, entry in entries.items() if entry.kind == "Q6_K"]
    assert len(better) == 33 and "lm_head.weight" in better  # the head, and v and down of 16 of 32 layers
    assert sum(entry.size for entry in entries.values()) == 4_912_898_048
    small = {entry.name: entry.kind for entry in model_entries(SMOLLM2_135M, "q4_k_m").values()}
    assert small["token_embd.weight"] == "Q8_0" and small["blk.0.attn_q.weight"] == "Q5_0"
    odd = model_entries(replace(SMOLLM2_135M, hidden_size=500), "q4_k_m")
    assert odd["model.layers.0.self_attn.q_proj.weight"].kind == "F16"


@pytest.mark.parametrize("type_name", quantiser.QUANTISED)
def test_a_models_errors_are_below_the_stored_ones_of_llama_cpp(tmp_path: Path, type_name: str) -> None:
    model = real_checkpoint.write(tmp_path / "model", quantiser.SMALL)
    _, found, *_ = next(quantiser.both(str(model), tmp_path / "files", (type_name,)))
    figures = quantiser.compared(found, quantiser.stored("small", type_name))
    assert figures["other_types"] == [] and figures["worst_tensor"] < 1


@pytest.mark.slow
def test_llama_cpps_own_quantiser_at_8bs_width() -> None:
    if quantiser.llama_cpp() is None:
        pytest.skip("needs llama-cpp-python (a quarter of an hour to compile)")
    with tempfile.TemporaryDirectory() as name:
        model = real_checkpoint.write(Path(name) / "model", quantiser.WIDE)
        for _, found, other, *_ in quantiser.both(str(model), Path(name) / "files", ("q4_k_m",)):
            assert other is not None
            figures = quantiser.compared(found, other)
            assert figures["other_types"] == [] and figures["worst_tensor"] < 1
