"""What licences of benchmarks forbid, said before a run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stilnovo.benchmarks.task import Selection
from stilnovo.benchmarks.tasks import TASKS

_FORBIDDEN = {
    r"\bNC\b|no[nt][- ]?commercial": "no commercial use",
    r"\bND\b|no-?deriv": "no adapted copies may be passed on",
}


def licence_limits(selections: Sequence[Selection]) -> str:
    """One line that names the licences which forbid something, and what; empty where none does.

    Rows that are not known to be the benchmark's are under its licence all the same if they are.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for selection in selections:
        task = selection.task
        licence = task.licence if selection.known or task.name not in TASKS else TASKS[task.name].licence
        limits = [limit for pattern, limit in _FORBIDDEN.items() if re.search(pattern, licence, re.IGNORECASE)]
        if limits:
            names = found.setdefault((licence, " and ".join(limits)), [])
            names.append(task.name if selection.known else f"{task.name} (if these rows are its own)")
    said = [f"{', '.join(names)}: {licence} ({limits})" for (licence, limits), names in found.items()]
    return f"LICENCE: {'; '.join(said)}." if said else ""
