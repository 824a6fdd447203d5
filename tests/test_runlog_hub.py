"""Files are whole or absent; models are found or the error says what would help."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stilnovo import hub
from stilnovo.errors import InputError, StilnovoError
from stilnovo.runlog import RunFolder, environment, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StilnovoError, match="disk is full"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


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
