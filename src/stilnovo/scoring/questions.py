"""The questions of a result, read again from the data that it was made of: a result holds answers and hashes, no texts.

A task is loaded as it was asked, and its caller shows a question only where its content's hash is the one that was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.task import Draw, Item, item_sha256, select
from stilnovo.benchmarks.task_file import reopen_task_file
from stilnovo.benchmarks.tasks import OLDER, TASKS
from stilnovo.errors import InputError
from stilnovo.scoring.result import TaskResult

#: A task's items by id, none where its data are missing.
FindQuestions = Callable[[TaskResult], Mapping[str, Item]]


def questions_of(
    task: TaskResult, settings: Mapping[str, Any], data_dir: Path | None, note: Callable[[str], None]
) -> Mapping[str, Item]:
    """Load the questions of a task by id; empty where the data are missing, which is said to `note`.

    Args:
        task: The result of the task.
        settings: Of the evaluation: where it found data and task files.
        data_dir: Where the data are instead; None: where they were.
        note: Called with a line.
    """
    folder = data_dir or (Path(settings["data_dir"]) if settings.get("data_dir") else None)
    own_files = settings.get("task_files") or {}
    known = OLDER.get(f"{task.name}@{task.version}") or TASKS.get(task.name)
    try:
        if task.name in own_files:
            known = reopen_task_file(Path(own_files.get(task.name, "")), task.files)
        if known is None:
            return {}
        prompt = next(iter(task.prompts), "")
        selection = select(known, folder, task.split, Draw(seed=task.seed), shots=task.shots, prompt=prompt)
        selection = Prompting.of(settings.get("prompting") or {}).sampled(selection)
    except InputError as error:
        note(f"{task.name}: the page shows no texts. {error.what} {error.found}")
        return {}
    return {item.id: item for item in selection.items}


def same_questions(task: TaskResult, found: Mapping[str, Item]) -> dict[str, Item]:
    """Those of the found questions that are the ones which were answered, in the first prompt, by the hash of their content."""
    first = task.all_rounds[0]
    hashes = dict(zip((item.id for item in first.items), first.hashes, strict=True))
    return {name: item for name, item in found.items() if name in hashes and item_sha256(item) == hashes[name]}
