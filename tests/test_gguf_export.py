"""A GGUF file of ours: other readers and our own find the same weights in it; nothing is left of one that failed."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from conftest import CHATML, SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.cli.main import app
from stilnovo.errors import InputError, StilnovoError
from stilnovo.export import gguf_writer
from stilnovo.export.gguf_model import export_gguf, rope_divisors
from stilnovo.export.gguf_types import GGUFEntry
from stilnovo.export.gguf_writer import write_gguf
from stilnovo.export.merged import export_model
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.io.gguf_names import gguf_name, paired_heads, stored_rows
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import RotaryTable
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LlamaConfig, RopeScaling
from stilnovo.spec import ModelSpec

TOKENS = torch.tensor([3, 40, 99, 7, 200, 31, 5, 258, 17, 60])


def logits(model: Path | str) -> Tensor:
    opened = open_model(ModelSpec(str(model), quantization="none", device="cpu"))[0]
    with torch.no_grad():
        return opened(TOKENS, positions_of([len(TOKENS)]), Blocks([len(TOKENS)]))


def spec(model: Path, adapter: Path | None = None) -> ModelSpec:
    return ModelSpec(str(model), quantization="none", adapter=adapter, device="cpu")


def folder_of(path: Path, **changes: Any) -> Path:
    """A tiny model of some shape, with a tokeniser of bytes and one pair of them."""
    path.mkdir()
    write_weights(path, replace(TINY, vocab_size=260, max_positions=512, **({"tie_embeddings": True} | changes)))
    write_byte_tokenizer(path, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    definition = json.loads((path / "tokenizer.json").read_text())
    definition["model"]["vocab"]["ab"], definition["model"]["merges"] = 259, [["a", "b"]]
    (path / "tokenizer.json").write_text(json.dumps(definition))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("gguf") / "model")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_a_file_opens_again_with_the_same_logits(folder: Path, tmp_path: Path, kind: str) -> None:
    made = export_gguf(spec(folder), tmp_path / "out", type_name=kind)
    exact = logits(folder)
    difference = (logits(tmp_path / "out" / made.file) - exact).std() / exact.std()
    assert difference <= {"f32": 0, "f16": 1e-3, "bf16": 1e-2, "q8_0": 2e-2}[kind]
    assert made.size == (tmp_path / "out" / made.file).stat().st_size
    assert torch.equal(logits(tmp_path / "out"), logits(tmp_path / "out" / made.file))  # a folder of one file


def test_an_own_head_of_another_width_and_stretched_frequencies_are_written(tmp_path: Path) -> None:
    model = folder_of(tmp_path / "model", tie_embeddings=False, head_dim=32, rope_theta=500_000.0)
    settings = json.loads((model / "config.json").read_text())
    settings["rope_scaling"] = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }  # fmt: skip
    (model / "config.json").write_text(json.dumps(settings))
    made = export_gguf(spec(model), tmp_path / "out", type_name="f32")
    contents = gguf_contents(tmp_path / "out" / made.file)
    assert contents.tensors["output.weight"].shape == (260, 64)
    assert contents.tensors["rope_freqs.weight"].shape == (16,)
    assert (logits(tmp_path / "out") - logits(model)).abs().max() < 1e-5


def test_divisors_bring_back_the_stretched_frequencies() -> None:
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192)
    config = replace(TINY, head_dim=128, rope_theta=500_000.0, rope_scaling=scaling)
    divisors = rope_divisors(config)
    assert divisors.min() == 1 and divisors.max() == pytest.approx(8)
    again = replace(config, rope_scaling=None, rope_factors=tuple(divisors.tolist()))
    torch.testing.assert_close(RotaryTable(again).frequencies, RotaryTable(config).frequencies)


def test_an_adapter_is_merged_as_into_a_folder(folder: Path, tmp_path: Path) -> None:
    from stilnovo.model import lora
    from stilnovo.plan.shape import LoraConfig

    model, config = open_model(spec(folder))[0], LoraConfig(r=4, alpha=6.0)
    lora.attach(model, config)
    for module in lora.adapters(model).values():
        module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=torch.Generator().manual_seed(1))
    lora.save(model, config, tmp_path / "adapter", str(folder))
    adapted = spec(folder, tmp_path / "adapter")
    export_model(adapted, tmp_path / "folder", dtype=torch.float32)
    made = export_gguf(adapted, tmp_path / "gguf", type_name="f32")
    assert made.merged == 14 and made.arrived == pytest.approx(1)
    assert torch.equal(logits(tmp_path / "gguf"), logits(tmp_path / "folder"))


def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (export_gguf(spec(folder), tmp_path / name, type_name="q8_0") for name in ("a", "b"))
    assert (tmp_path / "a" / first.file).read_bytes() == (tmp_path / "b" / second.file).read_bytes()


def test_rows_of_pairs_are_a_permutation_of_each_head() -> None:
    rows = stored_rows(24, 3)
    assert rows[:8] == [0, 4, 1, 5, 2, 6, 3, 7] and sorted(rows) == list(range(24))
    assert paired_heads("model.layers.3.self_attn.q_proj.bias", 8, 2) == 8
    assert paired_heads("blk.3.attn_k.weight", 8, 2) == 2
    assert paired_heads("model.layers.3.self_attn.v_proj.weight", 8, 2) is None
    assert paired_heads("blk.3.attn_norm.weight", 8, 2) is None


def test_names_are_those_of_the_package() -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, TINY.layers)
    for name in LlamaConfig.weight_shapes(TINY):
        stem = name.removesuffix(".weight")
        assert gguf_name(name) == f"{names.get_name(stem)}.weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_values_that_a_type_cannot_hold_are_refused(tmp_path: Path, value: float, kind: str) -> None:
    rows = torch.zeros(4, 32)
    rows[2, 7] = value
    entry = GGUFEntry("blk.0.attn_q.weight", (4, 32), kind)
    with pytest.raises(InputError, match=r"blk\.0\.attn_q"):
        list(write_gguf(tmp_path / "x.gguf", gguf.GGUFWriter(None, "llama"), [entry], lambda _: iter([rows])))


def test_a_disk_that_ends_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf_writer, "encode", full)
    with pytest.raises(StilnovoError, match="disk is full"):
        export_gguf(spec(folder), tmp_path / "new" / "out", type_name="q8_0")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    encode = gguf_writer.encode

    def interrupted(*given: Any) -> Tensor:
        calls.append(given)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return encode(*given)

    monkeypatch.setattr(gguf_writer, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_gguf(spec(folder), tmp_path / "out", type_name="q8_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["q6_k", "q5_k_m", "q4_k_m"])
def test_files_of_k_quants_open_again_close_to_the_exact_one(tmp_path: Path, kind: str) -> None:
    model = folder_of(tmp_path / "model", hidden_size=256, intermediate_size=512, heads=4, kv_heads=2, head_dim=64)
    made = export_gguf(spec(model), tmp_path / "out", type_name=kind)
    assert made.fallen_back() == {} and made.kinds()["Q6_K"] >= 3
    exact = logits(model)
    difference = (logits(tmp_path / "out") - exact).std() / exact.std()
    assert difference <= {"q6_k": 0.15, "q5_k_m": 0.25, "q4_k_m": 0.45}[kind]
    again = export_gguf(spec(tmp_path / "out"), tmp_path / "again", type_name=kind)  # a GGUF file as base
    assert (logits(tmp_path / "again") - logits(tmp_path / "out")).std() <= 0.01 * exact.std()
    assert again.kinds() == made.kinds()


def test_no_room_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))  # type: ignore[attr-defined]
    with pytest.raises(StilnovoError, match="no room"):
        export_gguf(spec(folder), tmp_path / "out", type_name="q8_0")
    assert list(tmp_path.iterdir()) == []


def test_q8_0_is_the_packages_or_better() -> None:
    rows = torch.randn(16, 96, generator=torch.Generator().manual_seed(3))
    kind = gguf.GGMLQuantizationType.Q8_0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(rows.numpy(), kind), kind)
    entry = GGUFEntry("x", (16, 96), "Q8_0")
    ours = gguf.quants.dequantize(gguf_writer.encode(rows, entry).numpy(), kind)
    assert np.square(ours - rows.numpy()).sum() <= np.square(theirs - rows.numpy()).sum() * (1 + 1e-3)


def test_the_command_writes_a_file_and_says_its_types(folder: Path, tmp_path: Path) -> None:
    arguments = ["export", "--model", str(folder), "--format", "gguf", "--type", "Q8_0", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["type"] == "q8_0" and said["kinds"] == {"Q8_0": 15, "F32": 5}
    assert (tmp_path / "out" / said["file"]).stat().st_size == said["bytes"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "onnx"], "--format"),
        (["--format", "gguf", "--dtype", "float16"], "--type"),
        (["--type", "q8_0"], "--format gguf"),
        (["--format", "gguf", "--type", "q3"], "Choose a --type"),
        (["--format", "gguf", "--shard-gigabytes", "1"], "--shard-gigabytes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    folder: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = CliRunner().invoke(app, ["export", "--model", str(folder), "--out", str(tmp_path / "out"), *arguments])
    assert isinstance(done.exception, InputError) and told in str(done.exception)
    assert not (tmp_path / "out").exists()
