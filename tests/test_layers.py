"""Imports point down (docs/tour.md draws the floors), lazy ones too, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "stilnovo"
FLOORS = {
    "folderlock": 0, "bundle": 9, "remote_address": 1,
    "errors": 0, "dist": 0, "progress": 0, "runlog": 0, "hub": 0, "statistics": 0, "io": 0, "recipe": 1, "spec": 1, "plan": 2, "text": 2,
    "data": 3, "model": 3, "engine": 4, "train": 4, "generate": 4, "library": 4, "export": 4, "benchmarks": 4, "scoring": 5, "chat": 5,
    "reading": 3, "recipe_sections": 1, "remote": 4, "compare": 6, "forgetting": 7, "report": 8, "demo": 9, "serve": 9, "api": 9, "cli": 10,
    "trials": 5, "modelcard": 3,
}  # fmt: skip
# Arrows between rooms of one floor that the plan draws; everything else on a floor keeps to itself.
BESIDE = {
    ("spec", "recipe"),
    ("spec", "recipe_sections"),
    ("recipe", "recipe_sections"),
    ("train", "engine"),
    ("export", "generate"),
    ("progress", "errors"),
    ("runlog", "errors"),
    ("runlog", "progress"),
    ("folderlock", "errors"),
    ("folderlock", "runlog"),
    ("hub", "errors"),
    ("io", "errors"),
    ("remote", "generate"),
    ("modelcard", "data"),
    ("bundle", "api"),
}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "stilnovo" and len(parts) > 1 else None


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from stilnovo import recipe` names a module; `from stilnovo.recipe import load` a thing in one.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module else set()
    return found


def files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.name != "__init__.py"]


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in files()}
    assert rooms == set(FLOORS)


def test_imports_point_down() -> None:
    wrong = []
    for path in files():
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for module in imports(path):
            there = room(module)
            if there is None or there == here or there not in FLOORS:
                continue
            if FLOORS[there] > FLOORS[here] or (FLOORS[there] == FLOORS[here] and (here, there) not in BESIDE):
                wrong.append(f"{path.relative_to(SOURCE)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_no_circles_inside_a_room() -> None:
    names = {
        ".".join(("stilnovo", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in files()
    }

    def target(module: str) -> str | None:
        while module and module not in names:
            module = module.rpartition(".")[0]
        return module or None

    graph = {name: {t for m in imports(path) if (t := target(m)) and t != name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for following in graph[name]:
                visit(following, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, stilnovo.cli.main; print([m for m in ('torch', 'transformers', 'pyarrow', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
