"""`stilnovo prepare`, `doctor --model`, and a training that starts from shards, as a person runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import DataSection
from stilnovo.text.tokenizer import from_folder


def stilnovo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd), "STILNOVO_DATA": ""}
    command = [sys.executable, "-m", "stilnovo.cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=settings, timeout=300, stdin=subprocess.DEVNULL
    )


def test_prepare_then_train_from_shards(tmp_path: Path, tiny_folder: Path) -> None:
    done = stilnovo(
        "prepare", "sample", "--model", str(tiny_folder), "--out", "p", "--held-out", "0.2", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rows = sum(len(read_rows(sample.path(name))) for name in sample.ENCYCLOPAEDIA)
    assert found["documents"] + found["held_out"] == found["rows"] == rows
    assert found["held_out"] > 0
    again = stilnovo("prepare", "sample", "--model", str(tiny_folder), "--out", "p", "--held-out", "0.2", cwd=tmp_path)
    assert again.returncode == 0
    other = stilnovo("prepare", "sample", "--model", str(tiny_folder), "--out", "p", cwd=tmp_path)
    assert (other.returncode, "settings.held_out" in other.stderr) == (2, True)

    from stilnovo.train.objectives.base import objective_of

    recipe = Recipe(data=DataSection(paths=(str(tmp_path / "p"),), pack_tokens=64))
    corpus = objective_of(recipe).read(from_folder(tiny_folder))
    assert len(corpus.packed.documents) == found["documents"]
    assert len(corpus.held_out) == found["held_out"]
    options = ["--model", str(tiny_folder), "--data", "p", "--steps", "2", "--quantization", "none", "--out", "run"]
    trained = stilnovo("train", *options, "--set", "data.pack_tokens=64", "--json", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout.splitlines()[-1])["steps"] == 2
    shard = tmp_path / "p" / "shards" / "00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-4])
    broken = stilnovo("train", *options[:-1], "run2", cwd=tmp_path)
    assert (broken.returncode, "00000.tokens has" in broken.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "No source was given"),
        (["missing.jsonl"], "There is no file"),
        (["broken.docx"], "unknown kind of file"),
        (["a.csv"], "Found: a, b"),
        (["columns.jsonl"], "Found: testo"),
        (["wikipedia-it"], "could not be fetched"),
        (["wikipedia-it", "--mirror", "nowhere"], "no folder"),
        (["wikipedia-it", "--mirror", "."], "Nor is it in the mirror"),
        (["sample", "--clean", "all"], "--clean all is unknown"),
        (["sample", "--on-bad", "fix"], "--on-bad fix is unknown"),
        (["sample", "--benchmarks", "nowhere"], "no file nowhere"),
        (["sample", "--model", "owner/name"], "could not be reached"),
    ],
)
def test_bad_input_is_one_to_three_lines_and_exit_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "broken.docx").write_text("a,b")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "columns.jsonl").write_text('{"testo": "a"}')
    done = stilnovo("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    last = [line for line in done.stderr.splitlines() if not line.startswith(("padding", "prepare:", "Fetching"))]
    assert 1 <= len(last) <= 3


def test_known_corpora_and_their_licences_are_listed(tmp_path: Path) -> None:
    done = stilnovo("prepare", "--list", "--json", cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wikipedia-it"]["repository"] == "wikimedia/wikipedia"
    assert all(source["licence"] for source in found.values())


def test_doctor_checks_a_models_template(tmp_path: Path, tiny_folder: Path) -> None:
    from conftest import CHATML, write_byte_tokenizer

    done = stilnovo("doctor", "--model", str(tiny_folder), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {found["level"] for found in json.loads(done.stdout.splitlines()[-1])["findings"]} == {"ok"}
    (tmp_path / "config.json").write_text("{}")
    write_byte_tokenizer(tmp_path, ("<|endoftext|>", "<|im_start|>"), eos_token="<|endoftext|>", chat_template=CHATML)
    broken = stilnovo("doctor", "--model", str(tmp_path), cwd=tmp_path)
    assert (broken.returncode, "no end" in broken.stdout) == (2, True)
