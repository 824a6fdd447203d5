"""Load a benchmark from a user's own file: YAML with its data beside it, or Python that defines a task.

A result says whose it is: the task's name, the file's name and hash, those of its data, and the licence that was given.
A Python file is the user's own code, and is run.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from stilnovo.benchmarks.harness_yaml import harness_task
from stilnovo.benchmarks.quiz_yaml import quiz_task
from stilnovo.benchmarks.task import METRIC_NAMES, Task
from stilnovo.errors import InputError
from stilnovo.runlog import sha256_file

SUFFIXES = (".yaml", ".yml", ".py")
_HARNESS = ("task", "dataset_path", "output_type", "doc_to_text", "doc_to_target")


def open_task_file(path: Path) -> Task:
    """Load the task of a user's file.

    Raises:
        InputError: there is no such file, or it does not describe a task.
    """
    if not path.is_file():
        raise InputError(f"There is no task file {path}.", next=f"Give a file that ends in {', '.join(SUFFIXES)}.")
    if path.suffix == ".py":
        task = _python_task(path)
    else:
        settings = _settings(path)
        task = (harness_task if any(key in settings for key in _HARNESS) else quiz_task)(path, settings)
    files = {str(path.resolve()): sha256_file(path), **task.files}
    listed = ", ".join(f"{Path(file).name} (sha256 {digest[:12]})" for file, digest in files.items())
    source = f"the user's own file {listed}" + (f"; taken from {task.source}" if task.source else "")
    return replace(task, source=source, licence=task.licence or "not stated", files=files)


def _settings(path: Path) -> dict[str, Any]:
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


def reopen_task_file(path: Path, files: Mapping[str, str]) -> Task:
    """Load a task file again if it and its data (file name → sha256) are unchanged.

    Raises:
        InputError: one of them is not there, or has changed since.
    """
    if not path.is_file() or sha256_file(path) != files.get(path.name):
        raise InputError("Its task file is not there, or has changed since.", f"File: {path}.")
    task = open_task_file(path)
    if {Path(file).name: digest for file, digest in task.files.items()} != files:
        raise InputError("The data of its task file have changed since.", f"Task file: {path}.")
    return task


def _python_task(path: Path) -> Task:
    try:
        defined = runpy.run_path(str(path), run_name=f"task_file_{path.stem}")
        task = defined.get("TASK") or defined.get("task", lambda: None)()
    except Exception as error:  # the user's own code may raise anything
        raise InputError(f"{path} cannot be run.", f"{type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise InputError(f"{path} defines no task.", next="Define TASK, a stilnovo.benchmarks.task.Task, or task().")
    if unknown := [metric for metric in task.metrics if metric not in METRIC_NAMES]:
        raise InputError(
            f"{path}: metric '{unknown[0]}' is not known.", next=f"Choose from: {', '.join(METRIC_NAMES)}."
        )
    return task
