"""The benchmarks, one small file each; the table of their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from stilnovo.benchmarks.task import Task
from stilnovo.benchmarks.tasks import (
    arc_challenge,
    arc_it,
    exams_it,
    gsm8k,
    hellaswag,
    hellaswag_it,
    invalsi,
    invalsi_report,
    mmlu,
    mmlu_it,
    sample_completions,
    sample_questions,
    squad_it,
    truthfulqa,
    truthfulqa_it,
    winogrande,
    xcopa_it,
)
from stilnovo.errors import InputError

_ITALIAN = (arc_it, hellaswag_it, mmlu_it, truthfulqa_it, xcopa_it, exams_it, invalsi, invalsi_report, squad_it)
_ENGLISH = (arc_challenge, hellaswag, mmlu, truthfulqa, winogrande, gsm8k)
_SAMPLES = (sample_questions, sample_completions)
TASKS: dict[str, Task] = {
    task.name: task
    for module in (*_ITALIAN, *_ENGLISH, *_SAMPLES)
    for task in (module.TASK, *([invalsi_report.TASK_WRITTEN] if module is invalsi_report else []))
}
OLDER = {f"{task.name}@{task.version}": task for task in (arc_it.TASK_1_0,)}  # known, but not offered
SAMPLES = tuple(module.TASK.name for module in _SAMPLES)  # what needs no data folder


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Tasks by name, in the order given, each once; `NAME@VERSION` is an older version that a protocol needs.

    Raises:
        InputError: a name is unknown (with the nearest known ones), or there is none.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    known = TASKS | OLDER
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], TASKS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(TASKS)}."
        raise InputError(f"There is no task '{unknown[0]}'.", hint, f"Choose from: {', '.join(TASKS)}.")
    if not wanted:
        raise InputError("No task was named.", next=f"Choose from: {', '.join(TASKS)}.")
    return [known[name] for name in wanted]
