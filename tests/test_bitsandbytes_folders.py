"""Folders that bitsandbytes saved in 4 bits (what Unsloth publishes): taken as they are, or quantised again and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.errors import InputError
from stilnovo.export.merged import export_model
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.quantize import FourBitLinear, FrozenLinear, quantized_linear
from stilnovo.model.weights import SafetensorsReader
from stilnovo.spec import ModelSpec

SHAPE = replace(TINY, vocab_size=256 + len(SPECIALS))


def projections(model: Llama) -> dict[str, FrozenLinear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, FrozenLinear)}


def four_bit_folder(
    folder: Path,
    scheme: str,
    *,
    double: bool = True,
    blocksize: int = 64,
    storage: torch.dtype = torch.uint8,
    plain: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """A model as bitsandbytes saves it in 4 bits (`plain`: parts of names that stay dense); gives the tensors."""
    from stilnovo.model.four_bit import bitsandbytes_functional

    write_weights(folder, SHAPE, torch.bfloat16)
    stored = dict[str, torch.Tensor]()
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = weight
        if "_proj" in name and not any(part in name for part in plain):
            stored[name], state = bitsandbytes_functional().quantize_4bit(
                weight, blocksize=blocksize, quant_type=scheme, compress_statistics=double, quant_storage=storage
            )
            stored |= {f"{name}.{key}": part.contiguous() for key, part in state.as_dict(packed=True).items()}
    save_file(stored, folder / "model.safetensors")
    return stored


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_a_bitsandbytes_folder_is_taken_as_it_is(scheme: str, storage: torch.dtype, tmp_path: Path) -> None:
    stored = four_bit_folder(tmp_path, scheme, storage=storage)
    model = open_llama(ModelSpec(str(tmp_path), quantization=scheme, device="cpu"))  # type: ignore[arg-type]
    for path, module in projections(model).items():
        name = f"model.{path}.weight"
        assert isinstance(module, FourBitLinear)
        assert torch.equal(module.packed.flatten(), stored[name].view(torch.uint8).flatten())
        assert torch.equal(module.absmax, stored[f"{name}.absmax"])
        assert torch.equal(module.nested_absmax, stored[f"{name}.nested_absmax"])
        assert torch.equal(module.nested_code, stored[f"{name}.nested_quant_map"])
        as_stored = SafetensorsReader(tmp_path).tensor(name, (module.out_features, module.in_features))
        assert torch.equal(module.dense(torch.float32).to(as_stored.dtype), as_stored)


def test_maxima_that_are_not_quantised_are_quantised_alone(tmp_path: Path) -> None:
    stored = four_bit_folder(tmp_path, "nf4", double=False)
    model = open_llama(ModelSpec(str(tmp_path), quantization="nf4", device="cpu"))
    for path, module in projections(model).items():
        assert torch.equal(module.packed.flatten(), stored[f"model.{path}.weight"].flatten())
        maxima = stored[f"model.{path}.weight.absmax"]
        assert torch.allclose(module.scales(), maxima, rtol=0, atol=0.02 * float(maxima.max()))


@pytest.mark.parametrize(
    ("saved", "asked", "words"),
    [
        ({"scheme": "nf4", "blocksize": 128}, "nf4", "nf4, blocks of 128; it is quantised a second time, to nf4"),
        ({"scheme": "fp4"}, "nf4", "fp4, blocks of 64; it is quantised a second time, to nf4"),
        ({"scheme": "nf4"}, "int8", "nf4, blocks of 64; it is quantised a second time, to int8"),
    ],
)
def test_another_kind_of_four_bits_is_quantised_again_and_said(
    saved: dict[str, Any], asked: Any, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    four_bit_folder(tmp_path, **saved)
    model = open_llama(ModelSpec(str(tmp_path), quantization=asked, device="cpu"))
    assert words in caplog.text
    for path, module in projections(model).items():
        as_stored = SafetensorsReader(tmp_path).tensor(
            f"model.{path}.weight", (module.out_features, module.in_features)
        )
        assert torch.equal(module.dense(torch.float32), quantized_linear(as_stored, asked).dense(torch.float32))
    caplog.clear()
    open_llama(ModelSpec(str(tmp_path), quantization="none", device="cpu"))  # asked for dense, on purpose
    assert not caplog.text


def test_projections_that_a_maker_left_dense_are_quantised(tmp_path: Path) -> None:
    stored = four_bit_folder(tmp_path, "nf4", plain=("layers.0.", "down_proj"))
    model = open_llama(ModelSpec(str(tmp_path), quantization="nf4", device="cpu"))
    for path, module in projections(model).items():
        weight = stored[f"model.{path}.weight"]
        right = quantized_linear(weight, "nf4").packed if weight.dtype == torch.bfloat16 else weight  # type: ignore[operator]
        assert torch.equal(module.packed.flatten(), right.flatten())  # type: ignore[union-attr]


def test_an_export_of_a_bitsandbytes_folder_computes_what_is_opened(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    four_bit_folder(tmp_path / "model", "nf4")
    write_byte_tokenizer(tmp_path / "model", SPECIALS, eos_token="<|im_end|>")
    spec = ModelSpec(str(tmp_path / "model"), quantization="nf4", device="cpu")
    export_model(spec, tmp_path / "out", dtype=torch.float32)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for path, module in projections(open_llama(spec)).items():
        assert torch.equal(exported[f"model.{path}.weight"], module.dense(torch.float32))


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("absmax", lambda t: t[:-1]), ("nested_absmax", lambda t: t[:0]), ("nested_quant_map", lambda t: t[:16]),
        ("quant_map", lambda t: t * 2), ("quant_map", lambda t: t[:8]), ("", lambda t: t[:-1]),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(key: str, change: Any, tmp_path: Path) -> None:
    stored = four_bit_folder(tmp_path, "nf4")
    name = "model.layers.1.mlp.up_proj.weight" + (f".{key}" if key else "")
    save_file({**stored, name: change(stored[name]).contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"(?s)up_proj.weight is no bitsandbytes 4-bit weight"):
        open_llama(ModelSpec(str(tmp_path), quantization="nf4", device="cpu"))
