"""Files are whole or absent; models are found or the error says what would help."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stilnovo import hub
from stilnovo.errors import InputError, StilnovoError
from stilnovo.runlog import RunFolder, check_writable, environment, write_atomic


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EFBIG, "too large"), (errno.EROFS, "Cannot write")]
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, words: str
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(StilnovoError, match=words):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_an_interrupted_write_leaves_the_old_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a.json", "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.json", b"new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for path in (tmp_path / "a" / "b.json", tmp_path / "a" / "b" / "c.json"):
        with pytest.raises(StilnovoError, match="Cannot write"):
            write_atomic(path, "new")
    with pytest.raises(StilnovoError, match="Cannot write"):
        RunFolder(tmp_path / "a")


def test_metrics_survive_a_cut_last_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    run.keep_metrics_until(2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_environment_says_where_a_figure_comes_from() -> None:
    facts = environment()
    assert facts["versions"]["torch"]
    assert {"commit", "hardware", "date", "versions"} <= set(facts)


def test_embedded_model_is_found(smollm2_gguf: Path) -> None:
    assert hub.find_model("smollm2").path == smollm2_gguf


@pytest.mark.parametrize("name", ["nowhere.gguf", "./no/such", "too/many/parts", "plain"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(InputError, match="There is no model"):
        hub.find_model(name)


def test_wrong_file_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="must be GGUF"):
        hub.find_model(str(tmp_path / "a.bin"))
    with pytest.raises(InputError, match=r"config\.json"):
        hub.find_model(str(tmp_path))


def test_a_hub_id_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **options: object) -> str:
        raise OSError("cannot connect" if options.get("local_files_only") is None else "not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"(?s)could not be reached.*--model smollm2"):
        hub.find_model("owner/name")


def test_the_cache_is_asked_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def cached(*_: object, **options: object) -> str:
        asked.append(bool(options.get("local_files_only")))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    (tmp_path / "config.json").write_text("{}")
    assert hub.find_model("owner/name").path == tmp_path
    assert asked == [True, False]  # a folder without weights is not a cached model
    (tmp_path / "model.safetensors").write_bytes(b"")
    asked.clear()
    assert hub.find_model("owner/name").path == tmp_path
    assert asked == [True]
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").write_bytes(b"")
    asked.clear()
    hub.find_model("owner/name")
    assert asked == [True, False, False]  # one shard is missing, and its name is known from the index alone


HELD = (
    "README.md", "config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "chat_template.jinja", "LICENSE", "USE_POLICY.md", "model.safetensors.index.json",
    "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
)  # fmt: skip
COPIES = (
    "consolidated.safetensors", "params.json", "original/consolidated.00.pth", "original/params.json", "original/tokenizer.model",
    "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.fp16.safetensors", "model.gguf", "onnx/model.onnx",
    "tf_model.h5", "flax_model.msgpack", "gguf/model-q4.gguf", "diffusion_pytorch_model.safetensors",
)  # fmt: skip


def test_one_copy_of_a_repository_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights once, and everything that an export takes over; shards of other names by the index that names them."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    held = [*HELD, *COPIES]
    asked: list[list[str]] = []

    def snapshot(*_: object, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if not local_files_only:
            asked.append(sorted(filter_repo_objects(held, allow_patterns=allow_patterns)))
            for name in asked[-1]:
                index = {
                    "weight_map": {str(n): name for n, name in enumerate(held) if name.endswith("-of-3.safetensors")}
                }
                (tmp_path / name).write_text(json.dumps(index) if name.endswith("index.json") else "{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    hub.find_model("owner/name")
    assert asked == [sorted({*HELD} - {"README.md", "tokenizer.model"})]
    held = [
        "config.json",
        "model.safetensors.index.json",
        "part-1-of-3.safetensors",
        "part-2-of-3.safetensors",
        *COPIES,
    ]
    for path in tmp_path.iterdir():
        path.unlink()
    asked.clear()
    hub.find_model("owner/name")
    assert asked == [
        ["config.json", "model.safetensors.index.json"],
        ["part-1-of-3.safetensors", "part-2-of-3.safetensors"],
    ]


def test_the_real_client_offline(tmp_path: Path) -> None:
    """In a process of its own: the client reads its settings when it is imported."""
    code = (
        "from stilnovo.errors import InputError\nfrom stilnovo.hub import find_model\n"
        "try:\n    find_model('HuggingFaceTB/SmolLM2-135M-Instruct')\nexcept InputError as error:\n    print(error)"
    )
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "could not be reached" in done.stdout
    assert len(done.stdout.splitlines()) <= 3


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_a_folder_where_nothing_can_be_made_is_no_fault_of_the_program() -> None:
    with pytest.raises(InputError, match=r"(?s)Cannot write /proc/none.*Choose another folder"):
        check_writable(Path("/proc/none"))
