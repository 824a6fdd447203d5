"""What is written agrees with what is: the command line's page, the README's tree, the figures' origin."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_cli_page_is_the_command_lines_own() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.text(), "run: make docs"


def test_readme_tree_is_the_disks() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1]
    named = set(re.findall(r"^ *([\w./-]+)/? {2,}\S", tree, re.MULTILINE))
    rooms = {p.name for p in (ROOT / "src" / "stilnovo").iterdir() if p.is_dir() and p.name != "__pycache__"}
    modules = {p.name for p in (ROOT / "src" / "stilnovo").glob("*.py")} - {"__init__.py"}
    missing = {name for name in rooms | modules if name not in {n.rstrip("/") for n in named}}
    assert not missing, f"not in the README's tree: {sorted(missing)}"


def test_no_file_holds_a_path_of_one_machine() -> None:
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".json", ""}
    skipped = {".git", ".venv", "runs", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    for path in ROOT.rglob("*"):
        if path.is_file() and path.suffix in suffixes and not skipped & set(path.relative_to(ROOT).parts):
            found = re.search(
                r"(?<![\w.])/(?:home|root|work|tmp)/\w", path.read_text(encoding="utf-8", errors="replace")
            )
            assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"
