"""Kept bases: what is mapped is what was quantised, whatever happens to file, record, folder, model or process meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from conftest import TINY, write_weights
from stilnovo.cli.main import app
from stilnovo.errors import InputError, StilnovoError
from stilnovo.model import base_file, kept_bases, load, lora
from stilnovo.model.attention import Blocks
from stilnovo.model.kept_bases import KeptBases
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.weights import GGUFReader, SafetensorsReader
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import ModelSpec

SCHEMES: tuple[Scheme, ...] = ("nf4", "fp4", "int8", "int4")
# Rows that are no multiple of the block, and short last groups.
ODD = replace(TINY, hidden_size=48, head_dim=12, intermediate_size=90)


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the bases of this test; models of any size are kept."""
    monkeypatch.setattr(kept_bases, "LEAST_WEIGHTS", 1)
    monkeypatch.setenv("STILNOVO_BASES", str(tmp_path / "bases"))
    return tmp_path / "bases"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return made(tmp_path / "model")


def made(folder: Path, tied: bool = True, dtype: torch.dtype = torch.bfloat16, std: float = 0.1) -> Path:
    folder.mkdir()
    write_weights(folder, replace(ODD, tie_embeddings=tied), dtype, std)
    return folder


def opened(folder: Path, scheme: Scheme = "nf4", adapter: Path | None = None) -> Llama:
    return open_llama(ModelSpec(str(folder), adapter, scheme, "cpu"))


def plain(folder: Path, scheme: Scheme = "nf4", adapter: Path | None = None) -> Llama:
    """As it is opened where nothing is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILNOVO_BASES", "none")
        return opened(folder, scheme, adapter)


def parts(model: Llama) -> dict[str, Tensor]:
    return {**dict(model.named_buffers()), **dict(model.named_parameters())}


def assert_same(one: Llama, other: Llama) -> None:
    first, second = parts(one), parts(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name
    tokens = torch.arange(20) % 97
    with torch.no_grad():
        logits = [model(tokens, torch.arange(20), Blocks([20])) for model in (one, other)]
    assert torch.equal(*logits)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weights that are read from a model from now on."""
    names, honest = list[str](), SafetensorsReader.tensor

    def tensor(self: SafetensorsReader, name: str, shape: tuple[int, ...]) -> Tensor:
        names.append(name)
        return honest(self, name, shape)

    monkeypatch.setattr(SafetensorsReader, "tensor", tensor)
    return names


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tied", [True, False])
def test_first_second_and_without_are_one_model(
    scheme: Scheme, tied: bool, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "model", tied)
    adapted = plain(folder, scheme)
    lora.attach(adapted, LoraConfig(r=4), seed=3)
    for parameter in lora.parameters(adapted):
        parameter.data.normal_(0, 0.1)
    lora.save(adapted, LoraConfig(r=4), tmp_path / "adapter", str(folder))
    for adapter in (None, tmp_path / "adapter"):
        assert_same(opened(folder, scheme, adapter), plain(folder, scheme, adapter))
    assert len(list(bases.glob("*.safetensors"))) == len(list(bases.glob("*.json"))) == 1
    names = reads(monkeypatch)
    again = opened(folder, scheme)
    assert not [name for name in names if "_proj" in name]
    assert_same(again, plain(folder, scheme))


def test_a_gguf_file_is_kept_too(bases: Path, smollm2_gguf: Path) -> None:
    from conftest import short_smollm2

    first, again = short_smollm2(smollm2_gguf, 1, "nf4"), short_smollm2(smollm2_gguf, 1, "nf4")
    assert len(list(bases.glob("*.json"))) == 1
    assert all(torch.equal(tensor, parts(first)[name]) for name, tensor in parts(again).items())


def test_tables_that_a_gguf_file_quantises_are_kept_with_it(
    bases: Path, smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import short_smollm2

    monkeypatch.setattr(load, "TABLE_BYTES", 1)
    first = short_smollm2(smollm2_gguf, 1, "nf4")
    assert first.embed_tokens.dtype == torch.float16
    names, honest = list[str](), GGUFReader.tensor

    def tensor(self: GGUFReader, name: str, *rest: Any) -> Tensor:
        names.append(name)
        return honest(self, name, *rest)

    monkeypatch.setattr(GGUFReader, "tensor", tensor)
    again = short_smollm2(smollm2_gguf, 1, "nf4")
    assert names and all("norm" in name for name in names)  # no matrix is read again
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILNOVO_BASES", "none")
        without = short_smollm2(smollm2_gguf, 1, "nf4")
    for model in (first, again):
        assert all(torch.equal(tensor, parts(without)[name]) for name, tensor in parts(model).items())


def test_the_file_is_an_ordinary_one_with_aligned_tensors(bases: Path, model: Path) -> None:
    found = opened(model)
    (file,) = bases.glob("*.safetensors")
    stored = load_file(file)
    name = "layers.1.mlp.down_proj"
    assert torch.equal(stored[f"model.{name}.weight.packed"], parts(found)[f"{name}.packed"])
    assert all(t.data_ptr() % t.element_size() == 0 for t in parts(found).values())
    assert json.loads(file.with_suffix(".json").read_text())["size"] == file.stat().st_size


def test_what_is_not_worth_it_is_not_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILNOVO_BASES", str(tmp_path / "bases"))
    opened(model)  # small
    monkeypatch.setattr(kept_bases, "LEAST_WEIGHTS", 1)
    opened(model, "none")
    monkeypatch.setenv("STILNOVO_BASES", "none")
    opened(model)
    assert not (tmp_path / "bases").exists()
    assert kept_bases.LEAST_WEIGHTS == 1
    monkeypatch.delenv("STILNOVO_BASES")
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    opened(model)
    assert len(list((tmp_path / "cache" / "bases").glob("*.safetensors"))) == 1


def test_one_base_whatever_the_model_is_called(bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(model)
    (model.parent / "alias").symlink_to(model)
    opened(model.parent / "alias")
    monkeypatch.chdir(model.parent)
    opened(Path("model"))
    assert len(list(bases.glob("*.safetensors"))) == 1


@pytest.mark.parametrize("same_times", [False, True])
def test_a_changed_model_is_another_base(bases: Path, model: Path, same_times: bool) -> None:
    opened(model)
    weights, (first,) = model / "model.safetensors", bases.glob("*.safetensors")
    before = weights.stat()
    write_weights(model, replace(ODD, tie_embeddings=True), torch.bfloat16, std=0.07)
    if same_times:  # the same size and time of writing as before
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert weights.stat().st_size == before.st_size
    assert_same(opened(model), plain(model))
    (second,) = bases.glob("*.safetensors")  # the one before made room
    assert second != first


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def change_record(file: Path, **changes: Any) -> None:
    path = file.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, Any] = {
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "empty": lambda file: os.truncate(file, 0),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "header": lambda file: flip(file, 200),
    "first tensor": lambda file: flip(file, base_file.PAGE * 8),
    "last byte": lambda file: flip(file, -1),
    "no file": lambda file: file.unlink(),
    "no record": lambda file: file.with_suffix(".json").unlink(),
    "record cut": lambda file: os.truncate(file.with_suffix(".json"), 20),
    "another record": lambda file: file.with_suffix(".json").write_text("[1]"),
    "record without states": lambda file: change_record(file, sources=["x"]),
    "record of numbers": lambda file: change_record(file, sources=[[1, 2]], content=3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_base_is_written_anew(
    damage: str, bases: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(model)
    (file,) = bases.glob("*.safetensors")
    whole = file.read_bytes()
    DAMAGES[damage](file)
    caplog.clear()
    assert_same(opened(model), plain(model))
    assert file.read_bytes() == whole
    assert sorted(path.suffix for path in bases.iterdir() if path.is_file()) == [".json", ".safetensors"]
    if "record" not in damage and damage != "no file":
        assert caplog.text.count("damaged: it is written anew") == 1


def test_a_base_that_was_copied_or_touched_is_read_once_and_trusted(
    bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(model)
    (file,) = bases.glob("*.safetensors")
    os.utime(file, ns=(1, 1))
    hashed, honest = list[Path](), base_file.content_sha256
    monkeypatch.setattr(kept_bases, "content_sha256", lambda path: hashed.append(path) or honest(path))
    written = reads(monkeypatch)
    for _ in range(3):
        opened(model)
    assert hashed == [file]
    assert not [name for name in written if "_proj" in name]


CHILD = """
import os, signal, sys
from stilnovo.model import base_file, kept_bases
from stilnovo.model.load import open_llama
from stilnovo.spec import ModelSpec

kept_bases.LEAST_WEIGHTS = 1
model, adds, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
honest, count = base_file.BaseWriter.add, 0

def add(self, name, projection):
    global count
    count += 1
    honest(self, name, projection)
    if count == adds:
        os.kill(os.getpid(), signal.SIGKILL)

base_file.BaseWriter.add = add
if moment == "before the record":
    kept_bases._save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
found = open_llama(ModelSpec(model, None, "nf4", "cpu"))
print(sum(float(b.double().sum()) for name, b in found.named_buffers()))
"""


def child(model: Path, adds: int = 0, moment: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(model), str(adds), moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("adds", "moment"), [(5, ""), (0, "before the record")])
def test_a_killed_writing_leaves_nothing_that_is_taken_for_whole(
    adds: int, moment: str, bases: Path, model: Path
) -> None:
    killed = child(model, adds, moment)
    killed.communicate()
    assert killed.returncode == -9
    assert not KeptBases(bases).bases()
    assert list(bases.glob(".*.part" if adds else "*.safetensors"))
    assert_same(opened(model), plain(model))
    assert len(KeptBases(bases).bases()) == 1
    assert not list(bases.glob(".*.part"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_a_kill_left_is_pruned(bases: Path, model: Path) -> None:
    child(model, 5).communicate()
    (left,) = bases.glob(".*.part")
    assert [path for path, _ in KeptBases(bases).prune()] == [left]
    assert not left.exists()


def test_two_processes_at_once_write_one_base(bases: Path, model: Path) -> None:
    ends = [(process.communicate(), process.returncode) for process in [child(model), child(model)]]
    assert [code for _, code in ends] == [0, 0], ends
    expected = sum(float(buffer.double().sum()) for _, buffer in plain(model).named_buffers())
    assert {out for (out, _), _ in ends} == {f"{expected}\n"}
    assert len(list(bases.glob("*.safetensors"))) == len(list(bases.glob("*.json"))) == 1
    assert not list(bases.glob(".*.part"))


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(
    model: Path, bases: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bases.write_text("a file where the folder should be")
    assert_same(opened(model), plain(model))
    assert "The quantised base is not kept" in caplog.text


def test_a_read_only_folder_serves_what_it_holds(
    bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened(model)

    def denied(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("utime", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(os, name, denied)
    names = reads(monkeypatch)
    caplog.clear()
    opened(model)
    assert not [name for name in names if "_proj" in name]
    assert not caplog.text
    opened(model, "int8")
    assert "not kept" in caplog.text


def test_no_room_is_said_before_anything_is_quantised(
    bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    names = reads(monkeypatch)
    found = opened(model)
    assert "The disk has no room" in caplog.text
    assert len([name for name in names if "_proj" in name]) == 14  # each once
    assert_same(found, plain(model))
    assert not [path for path in bases.rglob("*") if path.is_file()]


def test_an_interrupted_writing_leaves_nothing(bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(base_file.BaseWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(model)
    assert not [path for path in bases.rglob("*") if path.is_file()]


@pytest.mark.parametrize("call", ["add", "close"])
def test_a_disk_that_becomes_full_is_said_and_the_model_opens(
    call: str, bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(base_file.BaseWriter, call, full)
    assert_same(opened(model), plain(model))
    assert "No space left on device" in caplog.text
    assert not [path for path in bases.rglob("*") if path.is_file()]


def test_a_model_that_changes_while_it_is_read_is_not_kept(
    bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = base_file.BaseWriter.close

    def close(self: base_file.BaseWriter) -> None:
        honest(self)
        os.utime(model / "model.safetensors")

    monkeypatch.setattr(base_file.BaseWriter, "close", close)
    opened(model)
    assert "changed while they were read" in caplog.text
    assert not list(bases.glob("*.safetensors"))


def test_a_weight_that_cannot_be_read_is_told_as_ever(
    bases: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[Tensor]:
        raise InputError("The weight file is broken.")

    reads(monkeypatch)
    monkeypatch.setattr(SafetensorsReader, "tensor", broken)
    with pytest.raises(StilnovoError, match="The weight file is broken"):
        opened(model)
    assert not [path for path in bases.rglob("*") if path.is_file()]


def test_the_command_lists_checks_and_prunes(bases: Path, model: Path) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, ("models", *arguments, "--json"))
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return found

    assert run("--cache")["bases"] == []
    opened(model)
    opened(model, "int8")
    listed = run("--cache")["bases"]
    assert {row["scheme"] for row in listed} == {"nf4", "int8"}
    assert all(row["current"] and row["bytes"] == Path(row["file"]).stat().st_size for row in listed)
    flip(Path(listed[0]["file"]), -1)
    assert [row["whole"] for row in run("--check")["bases"]] == [False, True]
    os.utime(model / "model.safetensors")
    assert not any(row["current"] for row in run("--cache")["bases"])
    assert run("--prune", "--unused-days", "1")["removed"] == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        refused = CliRunner().invoke(app, ("models", "--prune"))
        assert isinstance(refused.exception, InputError)
    assert len(run("--prune")["removed"]) == 2
    assert not [path for path in bases.rglob("*") if path.is_file()]
