"""Table of benchmarks, one small file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stilnovo.benchmarks.task import Task
from stilnovo.benchmarks.task_file import SUFFIXES, open_task_file
from stilnovo.benchmarks.tasks import (
    arc_challenge,
    arc_it,
    belebele_it,
    evalita_llm,
    exams_it,
    global_mmlu_it,
    gsm8k,
    hellaswag,
    hellaswag_it,
    include_it,
    invalsi,
    invalsi_report,
    itacola,
    italic,
    mmlu,
    mmlu_it,
    multiblimp_it,
    sample_completions,
    sample_questions,
    squad_it,
    truthfulqa,
    truthfulqa_it,
    wic_ita,
    winogrande,
    xcopa_it,
)
from stilnovo.errors import InputError, did_you_mean

_ITALIAN = (
    arc_it, hellaswag_it, mmlu_it, truthfulqa_it, xcopa_it, exams_it, invalsi, invalsi_report, squad_it, italic, include_it,
    global_mmlu_it, belebele_it, itacola, wic_ita, multiblimp_it, evalita_llm,
)  # fmt: skip
_ENGLISH = (arc_challenge, hellaswag, mmlu, truthfulqa, winogrande, gsm8k)
_MORE = {  # of one file
    invalsi_report: (invalsi_report.TASK_WRITTEN,), global_mmlu_it: (global_mmlu_it.TASK_LITE,),
    multiblimp_it: (multiblimp_it.TASK_BLIMP,), evalita_llm: evalita_llm.MORE,
}  # fmt: skip
_SAMPLES = (sample_questions, sample_completions)
TASKS: dict[str, Task] = {
    task.name: task for module in (*_ITALIAN, *_ENGLISH, *_SAMPLES) for task in (module.TASK, *_MORE.get(module, ()))
}
OLDER = {f"{task.name}@{task.version}": task for task in (arc_it.TASK_1_0,)}  # known, but not offered
SAMPLES = tuple(module.TASK.name for module in _SAMPLES)  # what needs no data folder


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Look up tasks by name, in order, without duplicates; `NAME@VERSION` is an older version.

    A name that ends in .yaml, .yml or .py is a user's own task file.

    Raises:
        InputError: a name is unknown (with the nearest known ones), a task file cannot be used, or there is none.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    known = TASKS | OLDER
    tasks: dict[str, Task] = {}
    for name in wanted:
        own = Path(name).suffix in SUFFIXES
        if not own and name not in known:
            if Path(name).is_file():
                raise InputError(
                    f"{name} is no task file.",
                    next="A task file ends in .yaml, .yml or .py; describe this data in one.",
                )
            hint = did_you_mean(name, TASKS, most=3, cutoff=0.5)
            raise InputError(f"There is no task '{name}'.", hint, f"Choose from: {', '.join(TASKS)}.")
        task = open_task_file(Path(name)) if own else known[name]
        named = next(
            (other for other, candidate in (known | tasks).items() if task.name in (other, candidate.name)), None
        )
        if own and named:
            fault = f"{name} and {named} are both named {task.name}."
            raise InputError(
                f"{named} is a shipped benchmark, and {name} is named so too." if named in known else fault,
                next=f"Add `name: my_{task.name}` to {name} (in a task of lm-evaluation-harness `task`).",
            )
        tasks[name] = task
    if not wanted:
        raise InputError("No task was named.", next=f"Choose from: {', '.join(TASKS)}.")
    return list(tasks.values())
