"""What is written agrees with what is: the command line's page, the tour's tree, links and pictures."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from stilnovo.cli.main import app
from test_layers import FLOORS

ROOT = Path(__file__).parents[1]


def test_cli_page_is_the_command_lines_own() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.text(), "run: make docs"


def test_the_tours_tree_is_the_disks() -> None:
    tree = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8").split("## The tree")[1]
    named = {name.rstrip("/") for name in re.findall(r"^ *([\w./-]+)/? {2,}\S", tree, re.MULTILINE)}
    rooms = {p.name for p in (ROOT / "src" / "stilnovo").iterdir() if p.is_dir() and p.name != "__pycache__"}
    modules = {p.name for p in (ROOT / "src" / "stilnovo").glob("*.py")} - {"__init__.py"}
    assert not (rooms | modules) - named, f"not in the tour's tree: {sorted((rooms | modules) - named)}"


def test_the_tours_floors_are_the_tested_ones() -> None:
    picture = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8").split("```")[1]
    drawn = {room: int(floor) for floor, room in re.findall(r"^ ?(\d+) (\w+) ", picture, re.MULTILINE)}
    assert drawn == FLOORS
    floors = list(drawn.values())
    assert floors == sorted(floors, reverse=True), "the highest floor stands first"


def test_the_tour_names_files_that_exist() -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")))
    assert len(named) > 50
    assert not {
        name for name in named if not (ROOT / "src" / "stilnovo" / name).exists() and not (ROOT / name).exists()
    }


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def markdown() -> list[Path]:
    return [path for folder in (".", "docs", "results", "bench") for path in sorted((ROOT / folder).glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """The lines that call stilnovo in code blocks, as words; a line ending in a backslash goes on."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("stilnovo ")]


def options(words: list[str]) -> set[str]:
    """Every option of the command that the words begin with."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("stilnovo", ["--help"], resilient_parsing=True)
    for word in words:
        if not hasattr(command, "get_command"):
            break
        command = command.get_command(context, word)
        assert command is not None, f"there is no command {word}"
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize(
    "page", [page for page in markdown() if page.name not in ("cli.md", "LOG.md")], ids=lambda page: page.name
)
def test_commands_that_pages_show_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options(words), f"{' '.join(words)}: {given - options(words)}"


def test_pages_show_commands() -> None:
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"))) >= 8


@pytest.mark.parametrize("page", markdown(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    dead = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert not dead


@pytest.mark.parametrize("picture", ["chat.png", "report.png"])
def test_pictures_are_light(picture: str) -> None:
    content = (ROOT / "docs" / "images" / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert 20_000 < len(content) < 250_000


def test_no_file_holds_a_path_of_one_machine() -> None:
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".json", ""}
    skipped = {".git", ".venv", "runs", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    for path in ROOT.rglob("*"):
        if path.is_file() and path.suffix in suffixes and not skipped & set(path.relative_to(ROOT).parts):
            found = re.search(
                r"(?<![\w.])/(?:home|root|work|tmp)/\w", path.read_text(encoding="utf-8", errors="replace")
            )
            assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"
