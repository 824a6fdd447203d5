"""Every script of bench/ runs in the extra that its head names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench"
SCRIPTS = {path.stem: path for path in sorted(BENCH.glob("*.py"))}
#: Modules beside the questions.
NEIGHBOURS = {path.stem for path in (BENCH / "questions").glob("*.py")}
OWN_ENVIRONMENT = "an environment of its own (README.md)"


def plain(name: str) -> str:
    """A distribution's name as indexes compare it, without extras and bounds."""
    found = re.match(r"[\w.-]+", name)
    assert found is not None, name
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def distributions(extra: str | None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return {plain(one) for one in [*project["dependencies"], *(extras[extra] if extra else [])]}


def needs(path: Path) -> str:
    head = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = head.splitlines()[-1]
    assert line.startswith("Needs: "), f"{path.name}: the last line of its docstring says what it needs"
    return line.removeprefix("Needs: ").removesuffix(".")


def packages(path: Path) -> set[str]:
    """Top-level packages that a script imports anywhere, its neighbours and Python's own left out."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - set(SCRIPTS) - NEIGHBOURS - {"stilnovo", "__future__"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_imports_is_in_the_extra_that_it_names(script: str) -> None:
    asked = needs(SCRIPTS[script])
    known = importlib.metadata.packages_distributions()
    imported = {plain(known.get(package, [package])[0]) for package in packages(SCRIPTS[script])}
    if asked == OWN_ENVIRONMENT:
        named = {plain(word) for word in re.findall(r"\w[\w.-]*", (BENCH / "README.md").read_text(encoding="utf-8"))}
        assert imported <= named | distributions("bench"), "bench/README.md says how its environment is made"
        return
    extras = re.fullmatch(r"stilnovo(?:\[([\w,]+)\])?", asked)
    assert extras is not None, asked
    named = set[str]().union(*(distributions(extra or None) for extra in (extras.group(1) or "").split(",")))
    assert imported <= named, f"{script} names {asked}"


def test_every_script_says_what_it_takes() -> None:
    """All in one interpreter, so that torch is imported once."""
    names = [
        name
        for name, path in SCRIPTS.items()
        if needs(path) != OWN_ENVIRONMENT and "ArgumentParser" in path.read_text(encoding="utf-8")
    ]
    code = f"""
import contextlib, importlib, io, sys
sys.path.insert(0, {str(BENCH)!r})
for name in {names!r}:
    sys.argv = [name + ".py", "--help"]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            importlib.import_module(name).main()
    except SystemExit as end:
        assert end.code == 0 and "usage:" in shown.getvalue(), (name, end.code)
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == names, done.stderr[-2000:]
    assert len(names) > 10
