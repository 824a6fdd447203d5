"""One name for one thing, and nothing too long to read: classes, modules, files and functions of the project."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stilnovo"
BENCH = ROOT / "bench"
FILE_LINES, FUNCTION_LINES = 400, 60
# Modules that play the same part in sibling rooms may share a file name: a command and what it calls, a benchmark's file.
SAME_PART = {"cli", "tasks"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def twice(places: dict[str, list[str]]) -> list[str]:
    return [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]


def test_no_class_name_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(PACKAGE):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 100
    assert not twice(places), "\n".join(twice(places))


def test_no_module_name_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(PACKAGE):
        if path.stem not in {"__init__", "__main__"} and path.parent.name not in SAME_PART:
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert not twice(places), "\n".join(twice(places))


@pytest.mark.parametrize("folder", [PACKAGE, BENCH], ids=["src", "bench"])
def test_no_file_is_too_long(folder: Path) -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(folder)}
    assert not [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES]


def functions(node: ast.AST) -> Iterator[Function]:
    """The functions inside `node`, at any depth, that no other function between holds."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from functions(child)


def lines_from(start: ast.stmt, end: ast.stmt) -> int:
    """Lines from one statement to the end of another, decorators counted."""
    first = min([start.lineno, *(decorator.lineno for decorator in getattr(start, "decorator_list", []))])
    return (end.end_lineno or first) - first + 1


def own_lines(function: Function) -> int:
    """Lines of a function's body: neither its signature (a command's options stand there) nor functions in it."""
    inner = sum(lines_from(nested, nested) for nested in functions(function))
    return lines_from(function.body[0], function) - inner


@pytest.mark.parametrize("folder", [PACKAGE, BENCH], ids=["src", "bench"])
def test_no_function_is_too_long(folder: Path) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {node.name} has {own_lines(node)} lines"
        for path in sources(folder)
        for node in ast.walk(tree(path))
        if isinstance(node, Function) and own_lines(node) > FUNCTION_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_the_measure_sees_what_is_too_long() -> None:
    body = "\n".join("    pass" for _ in range(FUNCTION_LINES))
    (long,) = functions(ast.parse(f"def long(\n    a,\n    b,\n):\n{body}\n    pass"))
    (outer,) = functions(
        ast.parse(f"def outer():\n    @mark\n    def inner():\n    {body.replace(chr(10), chr(10) + '    ')}")
    )
    assert own_lines(long) == FUNCTION_LINES + 1
    assert own_lines(outer) == 0
