"""The public interface: its page's examples run, it is imported lazily, and a type checker sees it."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import stilnovo

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_gguf: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert tried > 15
    assert (tmp_path / "runs" / "first" / "adapter" / "adapter_config.json").exists()


def test_import_is_lazy_and_unknown_names_are_refused() -> None:
    code = (
        "import sys, stilnovo\n"
        "from stilnovo import recipe, dist\n"
        "assert not {'torch', 'numpy', 'stilnovo.api'} & set(sys.modules)\n"
        "try: stilnovo.no_such_name\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no attribute 'no_such_name'" in done.stdout


def test_every_public_name_is_documented() -> None:
    from stilnovo import api

    page = PAGE.read_text(encoding="utf-8")
    functions = [name for name in api.__all__ if name[0].islower() and name != "load_recipe"]
    assert not [name for name in functions if f"`{name}(" not in page and f"stilnovo.{name}(" not in page]
    assert all(getattr(stilnovo, name) is getattr(api, name) and getattr(api, name).__doc__ for name in api.__all__)
