"""The door: exit codes, errors of at most three lines, and the main commands on the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def stilnovo(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {
        **os.environ,
        "STILNOVO_LIBRARY": str(cwd / "library.sqlite"),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cwd),
        **environment,
    }
    command = [sys.executable, "-m", "stilnovo.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=settings, timeout=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text"\n')
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("perché".encode("latin-1"))
    (tmp_path / "short.gguf").write_bytes(b"GGUF\3\0\0\0")
    (tmp_path / "bad.yaml").write_text("train: {step: 3}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--recipe", "bad.yaml"], "train.step: unknown key"),
        (["train", "--set", "train.stepz=1"], "train.stepz: unknown key"),
        (["train", "--set", "data.rehearsal=["], "the value is not YAML"),
        (["train", "--set", "=3"], "changes no key"),
        (["train", "--model", "owner/name"], "could not be reached"),
        (["train", "--model", "short.gguf"], "cannot be read"),
        (["train", "--model", "missing.gguf"], "There is no model"),
        (["train", "--quantization", "int3"], "model.quantization"),
        (["generate", "ciao", "--model", "smollm2", "--temperature", "-1"], "cannot be used"),
        (["generate", "ciao", "--adapter", "nowhere"], "no adapter"),
        (["evaluate", "--tasks", "arc_i"], "no task 'arc_i'"),
        (["evaluate", "--tasks", "arc_it"], "arc_it"),
        (["compare", "a", "b"], "no evaluation"),
        (["library", "add", "binary.txt"], "binary"),
        (["library", "add", "empty.txt"], "empty"),
        (["library", "list"], "no library"),
        (["ask", " "], "empty"),
    ],
)
def test_bad_input_is_one_to_three_lines_and_exit_2(folder: Path, arguments: list[str], words: str) -> None:
    done = stilnovo(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    lines = [
        line for line in done.stderr.strip().splitlines() if not line.startswith("Fetching ")
    ]  # progress, not the error
    assert len(lines) <= 3, done.stderr
    left = {p.name for p in folder.iterdir()} - {
        "broken.jsonl",
        "binary.txt",
        "empty.txt",
        "latin.txt",
        "short.gguf",
        "bad.yaml",
    }
    assert left <= {"runs", "library.sqlite", "library.sqlite-wal", "library.sqlite-shm", "hub"}


@pytest.mark.parametrize(
    ("data", "words"),
    [("broken.jsonl", "line 2"), ("latin.txt", "invalid UTF-8"), ("binary.txt", "binary"), ("empty.txt", "empty")],
)
def test_bad_data_leaves_no_run_behind(folder: Path, data: str, words: str, smollm2_gguf: Path) -> None:
    done = stilnovo("train", "--data", data, "--out", "run", cwd=folder)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (folder / "run" / "metrics.jsonl").exists()


def test_usage_errors_are_exit_2(tmp_path: Path) -> None:
    assert stilnovo("train", "--no-such", cwd=tmp_path).returncode == 2
    assert stilnovo("nonsense", cwd=tmp_path).returncode == 2
    assert stilnovo("--help", cwd=tmp_path).returncode == 0


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = stilnovo("--debug", "compare", "a", "b", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_ask_without_a_library_uses_the_sample_and_says_so(tmp_path: Path) -> None:
    done = stilnovo("ask", "Chi ha insegnato a leggere a Tecla?", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert "built-in sample" in done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["quote_verified"] is True
    assert "Anselmo" in answer["quote"]
    assert not (tmp_path / "library.sqlite").exists()


def test_library_add_twice_then_ask_check_remove(tmp_path: Path) -> None:
    text = "Autore: Ada Prova\nAnno: 1901\n\nCapitolo I\n\nIl gatto di Teresa si chiamava Briciola. Dormiva sul davanzale.\n"
    (tmp_path / "gatto.txt").write_bytes(text.replace("\n", "\r\n").encode())
    for expected in ("added", "there already"):
        done = stilnovo("library", "add", "gatto.txt", cwd=tmp_path)
        assert done.returncode == 0
        assert expected in done.stdout
    answer = json.loads(
        stilnovo("ask", "Come si chiamava il gatto di Teresa?", "--json", cwd=tmp_path).stdout.splitlines()[-1]
    )
    assert answer["quote"].startswith("Il gatto di Teresa si chiamava Briciola.")
    assert answer["quote_verified"] is True
    assert "Capitolo I" in answer["citations"][0]["section"]
    assert stilnovo("library", "check", cwd=tmp_path).returncode == 0
    assert stilnovo("library", "remove", "1", cwd=tmp_path).returncode == 0
    assert json.loads(stilnovo("library", "list", "--json", cwd=tmp_path).stdout.splitlines()[-1]) == {"works": []}


def test_train_evaluate_compare_generate(tmp_path: Path, smollm2_gguf: Path) -> None:
    sets = ["--set", "data.max_documents=4", "--set", "train.batch_packs=1", "--set", "lora.r=4"]
    done = stilnovo("train", "--steps", "2", *sets, "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout.splitlines()[-1])
    assert trained["steps"] == 2
    assert trained["trainable_parameters"] == 4 * 30 * (4 * 576 + 2 * (576 + 192) + 3 * (576 + 1536))
    again = stilnovo("train", "--steps", "2", *sets, "--out", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    tasks = ["--tasks", "sample_questions", "--limit", "4"]
    for out, adapter in (("a", []), ("b", ["--adapter", trained["adapter"]])):
        assert stilnovo("evaluate", *tasks, *adapter, "--out", out, cwd=tmp_path).returncode == 0
    verdict = json.loads(stilnovo("compare", "a", "b", "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert verdict
    done = stilnovo(
        "generate", "Ciao!", "--adapter", trained["adapter"], "--max-new-tokens", "4", "--json", cwd=tmp_path
    )
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["text"] == "\n".join(done.stdout.splitlines()[:-1])


def test_chat_reads_a_pipe(tmp_path: Path, smollm2_gguf: Path) -> None:
    settings = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "stilnovo.cli.main", "chat", "--max-new-tokens", "5", "--json"]
    done = subprocess.run(
        command, input="Ciao!\nE poi?\n/esci\n", capture_output=True, text=True, env=settings, timeout=300
    )
    assert done.returncode == 0, done.stderr
    talk = json.loads(done.stdout.splitlines()[-1])
    assert [turn["question"] for turn in talk["turns"]] == ["Ciao!", "E poi?"]
    assert talk["dropped"] == 0
