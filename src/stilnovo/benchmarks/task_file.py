"""Load a benchmark from a user's own file: YAML with its data beside it, or Python that defines a task.

A result says whose it is: the task's name, the file's name and hash, those of its data, and the licence that was given.
A Python file is the user's own code, and is run.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stilnovo.benchmarks.columns import read_settings
from stilnovo.benchmarks.harness_yaml import harness_task
from stilnovo.benchmarks.quiz_yaml import quiz_task
from stilnovo.benchmarks.task import METRIC_NAMES, Item, Request, Task
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
        settings = read_settings(path)
        task = (harness_task if any(key in settings for key in _HARNESS) else quiz_task)(path, settings)
    files = {str(path.resolve()): sha256_file(path), **task.files}
    listed = ", ".join(f"{Path(file).name} (sha256 {digest[:12]})" for file, digest in files.items())
    source = f"the user's own file {listed}" + (f"; taken from {task.source}" if task.source else "")
    return replace(task, source=source, licence=task.licence or "not stated", files=files, load=_distinct(task))


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


def _distinct(task: Task) -> Callable[[Request], Sequence[Item]]:
    """Wrap the task's `load` to report the rows of duplicate ids."""

    def load(request: Request) -> Sequence[Item]:
        items = task.load(request)
        seen: dict[str, int] = {}
        for number, item in enumerate(items, start=1):
            if (first := seen.setdefault(item.id, number)) != number:
                raise InputError(
                    f"Rows {first} and {number} of task {task.name} have the same id.", f"Found: {item.id}."
                )
        return items

    return load


def _python_task(path: Path) -> Task:
    spec = importlib.util.spec_from_file_location(f"task_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        task = module.TASK if hasattr(module, "TASK") else module.task() if hasattr(module, "task") else None
    except Exception as error:  # the user's own code may raise anything
        raise InputError(f"{path} cannot be run.", f"{type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise InputError(f"{path} defines no task.", next="Define TASK, a stilnovo.benchmarks.task.Task, or task().")
    if unknown := [metric for metric in task.metrics if metric not in METRIC_NAMES]:
        raise InputError(
            f"{path}: metric '{unknown[0]}' is not known.", next=f"Choose from: {', '.join(METRIC_NAMES)}."
        )
    return task
