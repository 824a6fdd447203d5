"""Groups of benchmarks, asked by one name (`--tasks knowledge`) and summed up in a macro average.

A group names its tasks once each and in one form: two translations of the same questions would not be two witnesses, and an
average of both would count them twice. So MMLU stands here as Global-MMLU, whose translation was revised, not as Okapi's
`mmlu_it`, INVALSI as the whole suite, WiC-ITA once; `evalita` is Evalita-LLM's own set, whose
three sorts of text with entities count as three tasks. English benchmarks are in none.

One's own group is `NAME=TASK+TASK` among the names of `--tasks`; a task file may be one of its tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stilnovo.errors import InputError

_KNOWLEDGE = ("italic", "include_it", "global_mmlu_full_it", "exams_it", "arc_it", "evalita_at")
_UNDERSTANDING = (
    "belebele_it", "squad_it", "invalsi", "hellaswag_it", "xcopa_it", "evalita_te", "evalita_sa", "evalita_hs", "evalita_faq",
)  # fmt: skip
_LANGUAGE = ("itacola", "multiblimp_it", "blimp_it", "wic_ita")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "knowledge": _KNOWLEDGE,
    "understanding": _UNDERSTANDING,
    "language": _LANGUAGE,
    "italian": (*_KNOWLEDGE, *_UNDERSTANDING, *_LANGUAGE, "truthfulqa_it", "ifeval_it"),
    "evalita": (
        "evalita_te", "evalita_sa", "evalita_hs", "evalita_at", "evalita_wic", "evalita_faq", "evalita_ls", "evalita_re",
        "evalita_sum_fp", "evalita_ner_adg", "evalita_ner_fic", "evalita_ner_wn",
    ),
}  # fmt: skip


def expanded(names: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Replace the names of groups by those of their tasks, in order and without duplicates; also return each group's.

    Raises:
        InputError: one's own group has no name, a shipped group's, or fewer than two tasks.
    """
    listed: list[str] = []
    groups: dict[str, tuple[str, ...]] = {}
    for name in filter(None, map(str.strip, names)):
        if "=" in name and not Path(name).is_file():
            name, members = _own(name)
        elif (members := GROUPS.get(name, ())) == ():
            listed.append(name)
            continue
        if groups.setdefault(name, members) != members:
            raise InputError(f"Two groups are named {name}.", next="Give one of them another name.")
        listed += members
    return list(dict.fromkeys(listed)), groups


def _own(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and tasks of `NAME=TASK+TASK`."""
    name, _, given = (part.strip() for part in text.partition("="))
    members = tuple(dict.fromkeys(filter(None, map(str.strip, given.split("+")))))
    if not name or name in GROUPS:
        fault = f"{name} is a shipped group: {', '.join(GROUPS[name])}." if name else "The group has no name."
        raise InputError(fault, f"Found: {text}.", "Name your own group otherwise: --tasks NAME=TASK+TASK.")
    if len(members) < 2:
        raise InputError(f"Group {name} needs at least two tasks.", f"Found: {text}.", "Write --tasks NAME=TASK+TASK.")
    return name, members
