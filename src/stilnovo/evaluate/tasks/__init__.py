"""The benchmarks, one small file each; the table of their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from stilnovo.errors import InputError
from stilnovo.evaluate.task import Task
from stilnovo.evaluate.tasks import arc_it, sample_completions, sample_questions

TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in (arc_it, sample_questions, sample_completions)}
SAMPLES = (sample_questions.TASK.name, sample_completions.TASK.name)  # what needs no data folder


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Tasks by name, in the order given, each once.

    Raises:
        InputError: a name is unknown (with the nearest known ones), or there is none.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    unknown = [name for name in wanted if name not in TASKS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], TASKS, n=2, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(TASKS)}."
        raise InputError(f"There is no task '{unknown[0]}'.", hint, f"Choose from: {', '.join(TASKS)}.")
    if not wanted:
        raise InputError("No task was named.", next=f"Choose from: {', '.join(TASKS)}.")
    return [TASKS[name] for name in wanted]
