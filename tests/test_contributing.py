"""CONTRIBUTING.md's recipes, followed line by line on a copy of the package."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[tuple[str, Path, str]]:
    """Kind, file and content of a section's code blocks that name a file in their first line."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [
        (kind, Path(file), body) for kind, file, body in re.findall(r"```(\w+)\n# (\S+)\n(.*?)```", section, re.DOTALL)
    ]


def changed(text: str, diff: str) -> str:
    """A text in which every line marked `-` is found once, and the lines marked `+` after it take its place."""
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        before, after = (re.sub(r"^.", "", part, flags=re.MULTILINE) for part in (old, new))
        assert f"\n{text}".count(f"\n{before}") == 1, f"this line is there {text.count(before)} times: {before}"
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    return text


def follow(heading: str, folder: Path) -> Path:
    """A copy of the package in which a recipe was followed; the folder to put on the path."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    steps = blocks(heading)
    assert {kind for kind, _, _ in steps} == {"python", "diff"}
    for kind, file, body in steps:
        place = folder / file
        if kind == "python":
            assert not place.exists()
            place.write_text(body, encoding="utf-8")
        else:
            place.write_text(changed(place.read_text(encoding="utf-8"), body), encoding="utf-8")
    return folder / "src"


def run(source: Path, *arguments: str, code: int = 0) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "STILNOVO_CACHE": str(source.parent),
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=source.parent
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout


def stilnovo(source: Path, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(source, "-m", "stilnovo.cli.main", *arguments, "--json").splitlines()[-1])
    return answer


def test_a_benchmark(tmp_path: Path, tiny_folder: Path) -> None:
    source = follow("Add a benchmark", tmp_path)
    seas = ["Adriatico", "Tirreno"]
    rivers = [("Po", 0), ("Tevere", 1), ("Adige", 0), ("Arno", 1)]
    rows = [{"id": i, "fiume": name, "mari": seas, "giusto": right} for i, (name, right) in enumerate(rivers)]
    (tmp_path / "data" / "fiumi_it").mkdir(parents=True)
    (tmp_path / "data" / "fiumi_it" / "fiumi.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = ["--model", str(tiny_folder), "--device", "cpu"]
    stilnovo(
        source,
        "evaluate",
        *model,
        "--tasks",
        "fiumi_it",
        "--data-dir",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "run"),
    )
    record = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert list(record["tasks"]) == ["fiumi_it"]
    assert record["tasks"]["fiumi_it"]["licence"] == "not known"  # until the files' hashes are among the known ones
    assert record["tasks"]["fiumi_it"]["n"] == 4


def test_a_reader(tmp_path: Path) -> None:
    source = follow("Add a reader", tmp_path)
    cues = [
        ["1", "00:00:01,000 --> 00:00:02,500", "Buongiorno,", "signora."],
        ["rumore"],
        ["3", "00:00:03,000 --> 00:00:04,000", "Addio."],
    ]
    text = "\r\n\r\n".join("\r\n".join(cue) for cue in cues) + "\r\n"
    (tmp_path / "film.srt.gz").write_bytes(gzip.compress(text.encode()))
    code = (
        "import json, stilnovo.io.rows as rows; left = []; "
        "found = list(rows.iter_rows('film.srt.gz', lambda place, bad: left.append([place, bad.reason]))); "
        "print(json.dumps([found, left]))"
    )
    assert json.loads(run(source, "-c", code)) == [
        [{"id": "1", "text": "Buongiorno, signora."}, {"id": "3", "text": "Addio."}],
        [["film.srt.gz, row 2", "not a cue"]],
    ]


def test_a_format_of_books(tmp_path: Path) -> None:
    source = follow("Add a format of books", tmp_path)
    text = "#+title: Il faro\n#+AUTHOR: Ada Prova\n\n* Capitolo I\nEra sera.\n# da rivedere\n* Capitolo II\nEra notte,\n\ne pioveva.\n"
    (tmp_path / "faro.org").write_text(text, encoding="utf-8")
    library = ["--library", str(tmp_path / "library.sqlite")]
    (added,) = stilnovo(source, "library", "add", str(tmp_path / "faro.org"), *library)["works"]
    assert (added["title"], added["author"]) == ("Il faro", "Ada Prova")
    assert stilnovo(source, "library", "check", *library)["problems"] == []
    shown = stilnovo(source, "library", "show", "faro", "--section", "II", *library)
    assert "pioveva" in json.dumps(shown)
    assert "rivedere" not in json.dumps(shown)


def test_an_objective(tmp_path: Path, tiny_folder: Path) -> None:
    source = follow("Add an objective", tmp_path)
    (tmp_path / "testi.jsonl").write_text(
        "\n".join(json.dumps({"text": f"Primo paragrafo {i}.\n\nSecondo paragrafo, {i}."}) for i in range(12)),
        encoding="utf-8",
    )
    settings = [
        "train.task=paragraphs", "lora.r=4", "data.pack_tokens=64", "data.held_out=0", "model.device=cpu", "model.quantization=none",
    ]  # fmt: skip
    chosen = [word for setting in settings for word in ("--set", setting)]
    out = str(tmp_path / "run")
    arguments = ["--model", str(tiny_folder), "--data", "testi.jsonl", "--steps", "2", "--out", out]
    assert stilnovo(source, "train", *arguments, *chosen)["steps"] == 2
    code = f"""
from stilnovo.recipe import load
from stilnovo.text.tokenizer import open_tokenizer
from stilnovo.train.objectives.base import objective_of
recipe = load({str(Path(out) / "recipe.yaml")!r})
print(len(objective_of(recipe).documents(open_tokenizer({str(tiny_folder)!r}))[0]))
"""
    assert run(source, "-c", code).strip() == "24"


@pytest.mark.parametrize("heading", ["Add a benchmark", "Add a reader", "Add a format of books", "Add an objective"])
def test_the_examples_are_in_the_projects_style(heading: str) -> None:
    for kind, file, body in blocks(heading):
        if kind == "python":
            for command in (["check"], ["format", "--diff"]):
                asked = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(ROOT / file), "-"]
                done = subprocess.run(asked, input=body, capture_output=True, text=True, cwd=ROOT)
                assert done.returncode == 0, done.stdout + done.stderr


def test_a_recipe_that_no_longer_fits_is_seen() -> None:
    with pytest.raises(AssertionError, match="0 times"):
        changed("a = 1\nb = 2\n", "-c = 3\n+c = 4\n")
    assert changed("a = 1\nb = 2\n", "-b = 2\n+b = 3\n+c = 4\n") == "a = 1\nb = 3\nc = 4\n"
