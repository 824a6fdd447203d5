"""README's walk-through, line by line as written: on a tiny model, and with few steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stilnovo.cli.main import app
from stilnovo.io import sample
from test_docs import ROOT, commands

SECTION = "## The first training"
#: What stands for something larger, or for the reader's own: the word as written, and what it is here.
HERE = {"wikipedia-it": "sample", "4100": "2"}


def lines() -> list[list[str]]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return commands(readme.split(SECTION)[1].split("\n## ")[0])


def shortened(words: list[str], model: str) -> list[str]:
    """The command on the tiny model; a training without `--steps` gets few."""
    if words[0] == "plan":
        return words
    words = [HERE.get(word, model if word in ("smollm2", "anita") else word) for word in words]
    if words[0] == "train":
        words += [
            "--set",
            "data.pack_tokens=64",
            "--set",
            "train.accumulation=1",
            "--device",
            "cpu",
        ]
        words += [] if "--steps" in words else ["--steps", "2"]
        words += [] if "--model" in words else ["--model", model]
    return words + (["--max-new-tokens", "3"] if words[0] == "generate" else [])


def test_the_walk_through_works_as_written(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    shutil.copy(sample.path("conversations.jsonl"), "chat.jsonl")
    written = lines()
    assert [words[0] for words in written] == [
        "train", "train", "evaluate", "evaluate", "compare", "generate", "export", "export", "plan", "prepare", "train",
    ]  # fmt: skip
    for words in written:
        result = CliRunner().invoke(app, shortened(words, str(tiny_folder)), catch_exceptions=True)
        assert result.exit_code == 0, f"{' '.join(words)}: {result.exception or result.output}"
    for made in (
        "runs/first/adapter",
        "runs/before",
        "runs/after",
        "models/first",
        "models/first-gguf",
        "prepared",
        "runs/wiki/adapter",
    ):
        assert (tmp_path / made).is_dir()


def test_the_recipes_can_be_tried_as_the_training_page_says(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    tried = [
        words
        for words in commands(page)
        if {"sample", "sample-chat", "sample-pairs"} & {*words} and words[0] == "train" and "--tracker" not in words
    ]
    assert {words[words.index("--recipe") + 1] for words in tried} >= {"anita-sft", "anita-dpo", "rehearsal"}
    for words in tried:
        given = [*shortened(words, str(tiny_folder)), "--set", "data.pack_tokens=512"]
        result = CliRunner().invoke(app, given, catch_exceptions=True)
        assert result.exit_code == 0, f"{' '.join(words)}: {result.exception or result.output}"


def test_before_and_after_are_read_under_the_same_scheme() -> None:
    """What was trained on NF4 weights is compared with NF4 weights."""
    schemes = [words[words.index("--quantization") + 1] for words in lines() if words[0] == "evaluate"]
    assert schemes == ["nf4", "nf4"]
