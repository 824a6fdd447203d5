"""Read a user's YAML task file, and resolve its columns and Jinja templates."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from stilnovo.benchmarks.dataset_files import Row
from stilnovo.errors import InputError


def read_settings(path: Path) -> dict[str, Any]:
    """Load a YAML file as a mapping.

    Raises:
        InputError: it is no YAML, holds code (`!function`), or something other than keys with values.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except yaml.constructor.ConstructorError as error:
        raise InputError(
            f"{path} uses {error.problem}.", "Only plain values are read.", "Put code into a Python task file."
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML.", str(error).replace("\n", " ")) from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no keys.", f"Found: {type(settings).__name__}.", "Write `key: value` lines.")
    return settings


def check_keys(path: Path, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Reject unknown keys, suggesting the nearest known one.

    Raises:
        InputError: there is one.
    """
    for key in map(str, given):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else ""
            raise InputError(f"{path.name}: key '{key}' is not supported.", hint, f"Supported: {', '.join(known)}.")


@cache
def _template(text: str) -> Template:
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda value, pattern, new, count=0: re.sub(pattern, new, value, count=count)
    return environment.from_string(text)


def value_of(row: Row, key: str, expression: str) -> Any:
    """Resolve an expression for a row: the column of that name, or a rendered Jinja template.

    Raises:
        ValueError: it is neither; names the key and what is wrong.
    """
    if expression in row:
        return row[expression]
    if expression.isidentifier():
        near = difflib.get_close_matches(expression, row, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(map(str, row))}"
        raise ValueError(f"{key}: there is no column '{expression}' ({hint})")
    try:
        return _template(expression).render(row)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{key}: {error}") from error
