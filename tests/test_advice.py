"""Advice can be followed: every option and command that a message, a help text, a docstring or a page names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from stilnovo.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[1]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
COMMAND = re.compile(r"(?:^|[`(:;>$]\s?|\n\s*)stilnovo (?!is |does )((?:--debug )?[a-z]+)(?: ([a-z]+))?")
CALL = re.compile(r"stilnovo ([a-z]+)(?: ([a-z]+))?([^`\n]*)")
#: Options of other programs, each where its program is named beside it.
OTHERS = {
    "--no-deps": "pip", "--nproc-per-node": "torchrun", "--standalone": "torchrun", "--query-gpu": "nvidia-smi",
    "--abbrev": "git", "--always": "git", "--dirty": "git", "--build-arg": "docker",
    "--gpus": "docker", "--repo-type": "hf download", "--rm": "docker", "--pip-args": "pipx", "--python": "uv tool",
    "--headless": "chromium", "--no-sandbox": "chromium", "--disable-gpu": "chromium", "--virtual-time-budget": "chromium",
    "--dump-dom": "chromium", "--user-data-dir": "chromium", "--export-filename": "inkscape", "--export-width": "inkscape",
    "--lora": "llama-cli", "--llama-cpp": "bench/travel.py", "--show": "bench/graders.py", "--kernels": "bench/memory.py",
}  # fmt: skip
GROUPS = {"data", "library"}


def commands() -> dict[str, Any]:
    """Every command by its words, groups' members included."""
    root: Any = typer.main.get_command(app)
    known: dict[str, Any] = {"": root}
    for name in (name for section in COMMANDS.values() for name in section):
        known[name] = root.get_command(None, name)
        known |= {f"{name} {inner}": command for inner, command in getattr(known[name], "commands", {}).items()}
    return known


KNOWN = commands()
OPTIONS = {"--help"} | {
    option
    for command in KNOWN.values()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
}


def strings(path: Path) -> list[str]:
    """Every string of a source, docstrings and the pieces of f-strings included; of a page, its text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [text]
    nodes = ast.walk(ast.parse(text))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


PAGES = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_option_named_exists() -> None:
    wrong = []
    for path in PAGES:
        content = path.read_text(encoding="utf-8")
        others = {option for option, program in OTHERS.items() if program in content}
        for text in strings(path):
            named = set(OPTION.findall(text)) - OPTIONS - others
            wrong += [f"{path.relative_to(ROOT)}: {option}" for option in sorted(named)]
    assert not wrong, "\n".join(wrong)


def test_every_option_of_a_command_is_that_commands() -> None:
    wrong = []
    for path in PAGES:
        for text in strings(path):
            for name, member, rest in CALL.findall(text):
                command = KNOWN.get(f"{name} {member}") or KNOWN.get(name)
                own = (
                    {option for part in command.params for option in (*part.opts, *part.secondary_opts)}
                    if command
                    else set()
                )
                named = set(OPTION.findall(rest.partition("stilnovo ")[0])) - own - {"--help"}
                wrong += [
                    f"{path.relative_to(ROOT)}: stilnovo {name} {member}: {option}" for option in named if command
                ]
    assert not wrong, "\n".join(wrong)


def test_every_command_named_exists() -> None:
    wrong = []
    for path in PAGES:
        for text in strings(path):
            for name, member in COMMAND.findall(text):
                name = name.removeprefix("--debug ")
                if name not in KNOWN or (name in GROUPS and member and f"{name} {member}" not in KNOWN):
                    wrong.append(f"{path.relative_to(ROOT)}: stilnovo {name} {member}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        ("Choose one with --template.", ["--template"], []),
        ("Run `stilnovo trian --out DIR`.", ["--out"], [("trian", "")]),
        ("Make it: stilnovo library add FILE", [], [("library", "add")]),
        ("a dash -- and a rule ---", [], []),
    ],
)
def test_what_is_collected(text: str, options: list[str], found: list[tuple[str, str]]) -> None:
    assert OPTION.findall(text) == options
    assert COMMAND.findall(text) == found
