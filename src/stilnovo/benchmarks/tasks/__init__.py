"""Table of benchmarks, one small file each, and the way from the names that a person typed to what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stilnovo.benchmarks.groups import GROUPS, expanded
from stilnovo.benchmarks.task import MissingData, Task
from stilnovo.benchmarks.task_file import SUFFIXES, open_task_file
from stilnovo.benchmarks.tasks import (
    arc_challenge,
    arc_it,
    belebele_it,
    evalita_llm,
    evalita_written,
    exams_it,
    global_mmlu_it,
    gsm8k,
    hellaswag,
    hellaswag_it,
    ifeval_it,
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
    global_mmlu_it, belebele_it, itacola, wic_ita, multiblimp_it, evalita_llm, evalita_written, ifeval_it,
)  # fmt: skip
_ENGLISH = (arc_challenge, hellaswag, mmlu, truthfulqa, winogrande, gsm8k)
_MORE = {  # of one file
    invalsi_report: (invalsi_report.TASK_WRITTEN,), global_mmlu_it: (global_mmlu_it.TASK_LITE,),
    multiblimp_it: (multiblimp_it.TASK_BLIMP,), evalita_llm: evalita_llm.MORE,
    evalita_written: evalita_written.MORE,
    italic: (italic.TASK_WRITTEN,),
}  # fmt: skip
_SAMPLES = (sample_questions, sample_completions)
TASKS: dict[str, Task] = {
    task.name: task for module in (*_ITALIAN, *_ENGLISH, *_SAMPLES) for task in (module.TASK, *_MORE.get(module, ()))
}
OLDER = {f"{task.name}@{task.version}": task for task in (arc_it.TASK_1_0,)}  # known, but not offered
_CHOOSE = f"Choose from: {', '.join(TASKS)}; groups of them: {', '.join(GROUPS)}."
SAMPLES = tuple(module.TASK.name for module in _SAMPLES)  # what needs no data folder


@dataclass(frozen=True)
class Wanted:
    """What names mean: `tasks`, and of each group among them the names of all its tasks.

    A task that was named only by a group may lack its data: it is then kept in `missing`, with the error that says so.
    """

    tasks: Sequence[Task] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: dict[str, MissingData] = field(default_factory=dict)
    _alone: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Sequence[str]) -> Wanted:
        """Look up tasks and groups by name; none for no names.

        Raises:
            InputError: as `find_tasks`; or a group is named as a task is.
        """
        if not names:
            return cls()
        tasks, (_, groups) = _by_name(names), expanded(names)
        if taken := [group for group in groups if group in {*tasks, *TASKS, "bits_per_byte"}]:
            raise InputError(f"{taken[0]} is a task; a group needs another name.", next="Write --tasks NAME=TASK+TASK.")
        named = {group: tuple(tasks[member].name for member in members) for group, members in groups.items()}
        alone = {task.name for name, task in tasks.items() if name in map(str.strip, names)}
        return cls(list(tasks.values()), named, {}, frozenset(alone))

    def absent(self, task: Task, error: MissingData) -> None:
        """Note that a task's data are not here.

        Raises:
            MissingData: it was named itself, or nothing of its group is here.
        """
        self.missing[task.name] = error
        if task.name in self._alone:
            raise error
        for group, members in self.groups.items():
            if all(member in self.missing for member in members):
                first = self.missing[members[0]]
                found = f"Its tasks: {', '.join(members)}. Of the first: {first.found}"
                raise MissingData(f"No data of group {group} are here.", found, first.next) from error

    @property
    def notes(self) -> list[str]:
        """What is said of groups of which some data are missing."""
        notes = []
        for name, members in self.groups.items():
            if absent := [member for member in members if member in self.missing]:
                here = len(members) - len(absent)
                notes.append(
                    f"{name}: incomplete, {here} of its {len(members)} tasks. No data here of {', '.join(absent)}; its macro average is "
                    f"of the other {here}."
                )
        return notes


def find_tasks(names: Sequence[str]) -> list[Task]:
    """Look up tasks by name, in order, without duplicates; a group's name (`groups.py`) means all its tasks.

    `NAME@VERSION` is an older version; a name that ends in .yaml, .yml or .py is a user's own task file.

    Raises:
        InputError: a name is unknown (with the nearest known ones), a task file cannot be used, or there is none.
    """
    return list(_by_name(names).values())


def _by_name(names: Sequence[str]) -> dict[str, Task]:
    """The tasks, by the names that they were asked for by."""
    wanted, _ = expanded(names)
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
            hint = did_you_mean(name, [*TASKS, *GROUPS], most=3, cutoff=0.5)
            raise InputError(f"There is no task '{name}'.", hint, _CHOOSE)
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
        raise InputError("No task was named.", next=_CHOOSE)
    return tasks
