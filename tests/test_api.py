"""The public interface: its page's examples run, it is imported lazily, and a type checker sees it."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import stilnovo
from stilnovo.errors import InputError

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


def test_dir_lists_the_public_names() -> None:
    assert {"open_model", "evaluate_model", "__version__"} <= set(dir(stilnovo))


def test_a_path_may_be_a_str_or_a_path(tmp_path: Path) -> None:
    assert stilnovo.ModelSpec(adapter="runs/a").adapter == Path("runs/a")  # type: ignore[arg-type]
    assert stilnovo.ModelSpec(Path("models/a")).model == "models/a"  # type: ignore[arg-type]
    (tmp_path / "gatto.txt").write_text("Il gatto di Teresa si chiamava Briciola.\n", encoding="utf-8")
    assert stilnovo.read_work(str(tmp_path / "gatto.txt")) == stilnovo.read_work(tmp_path / "gatto.txt")
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(InputError, match="no evaluation here"):
            stilnovo.compare_runs(path, path)
        with pytest.raises(InputError, match="holds: gatto"):
            stilnovo.open_model(path)
    task = tmp_path / "mine.yaml"
    for tasks in ([task], task, str(task)):
        with pytest.raises(InputError, match=r"mine\.yaml"):
            stilnovo.evaluate_model("smollm2", tasks)
    result = stilnovo.EvaluationResult("m", "none", None, {}, None, None, 0.0)
    assert result.save(str(tmp_path)) == tmp_path / "evaluation.json"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stilnovo.search_library("sample", "Tecla"), "library must be Library"),  # type: ignore[arg-type]
        (lambda: stilnovo.ask_library(Path("x"), "Chi?"), "library must be Library"),  # type: ignore[arg-type]
        (lambda: stilnovo.check_quotes("«Tecla»", "sample"), "library must be Library"),  # type: ignore[arg-type]
        (lambda: stilnovo.ask_library(stilnovo.open_library("sample"), "Chi?", mode="foo"), "no mode 'foo'"),  # type: ignore[arg-type]
        (lambda: stilnovo.evaluate_model("smollm2", []), "Nothing is to be evaluated"),
        (lambda: stilnovo.evaluate_model(3), "spec must be ModelSpec or Path or str"),  # type: ignore[arg-type]
        (lambda: stilnovo.evaluate_model("smollm2", "no_such_task"), "There is no task 'no_such_task'"),
        (lambda: stilnovo.generate_text("smollm2", "Ciao"), "model must be Generator"),  # type: ignore[arg-type]
        (lambda: stilnovo.open_model("smollm2", 3), "adapter must be"),  # type: ignore[arg-type]
        (lambda: stilnovo.train_recipe(3), "recipe must be Recipe"),  # type: ignore[arg-type]
        (lambda: stilnovo.compare_runs(3, "x"), "before must be EvaluationResult"),  # type: ignore[arg-type]
        (lambda: stilnovo.Draw(limit=-1), "^The limit must be a share"),
        (lambda: stilnovo.Draw(limit="3"), "limit must be int or float or None"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_used_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_a_prompt_is_text() -> None:
    model = stilnovo.Generator.__new__(stilnovo.Generator)
    with pytest.raises(InputError, match=r"prompt must be str\.\nFound: None"):
        stilnovo.generate_text(model, None)  # type: ignore[arg-type]


def test_every_public_name_is_documented() -> None:
    from stilnovo import api

    page = PAGE.read_text(encoding="utf-8")
    functions = [name for name in api.__all__ if name[0].islower() and name != "load_recipe"]
    assert not [name for name in functions if f"`{name}(" not in page and f"stilnovo.{name}(" not in page]
    assert all(getattr(stilnovo, name) is getattr(api, name) and getattr(api, name).__doc__ for name in api.__all__)
