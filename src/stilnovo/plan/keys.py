"""Refuse recipe keys that would have no effect on a run, each by name."""

from __future__ import annotations

from stilnovo.errors import InputError
from stilnovo.recipe import OBJECTIVES, GuardSection, Recipe, keys, value_of


def plain_reason(recipe: Recipe) -> str:
    """Why a run is done by torch's autograd and not by the training engine; empty where the engine does it."""
    if recipe.train.engine == "plain":
        return "train.engine: plain"
    if recipe.lora.dropout:
        return f"lora.dropout: {recipe.lora.dropout:g}"
    aware = recipe.lora.quantization_aware
    return "" if aware == "none" else f"lora.quantization_aware: {aware}"


def ignored_keys(recipe: Recipe, *, on_card: bool) -> dict[str, str]:
    """Recipe keys that such a run would not read, whatever their value, each with what it needs."""
    data, train, guard = recipe.data, recipe.train, recipe.guard
    readers: dict[str, list[str]] = {}
    for name, entry in OBJECTIVES.items():
        for key in entry.keys:
            readers.setdefault(key, []).append(name)
    others = {key: f"train.task: {' or '.join(names)}" for key, names in readers.items() if train.task not in names}
    guard_keys = tuple(f"guard.{name}" for name in GuardSection.model_fields if name != "every")
    conditions: tuple[tuple[object, str, tuple[str, ...]], ...] = (
        (data.rehearsal, "data.rehearsal", ("data.rehearsal_share", "train.rehearse_by", "train.kl_weight")),
        (train.rehearse_by != "learn", "train.rehearse_by: anchor or both", ("train.kl_weight",)),
        (not data.rehearsal, "no data.rehearsal", ("data.rows",)),
        (train.schedule != "constant", "train.schedule: linear or cosine", ("train.final_ratio",)),
        (on_card or train.optimizer != "paged_adamw8bit", "a card", ("train.optimizer",)),
        (guard.every, "guard.every", guard_keys),
        (guard.tasks, "guard.tasks", ("guard.items", "guard.data_dir", "guard.tolerance_points")),
        (guard.texts, "guard.texts", ("guard.tolerance_percent",)),
    )
    unmet = {key: needs for holds, needs, names in reversed(conditions) if not holds for key in names}
    return unmet | others


def refuse_ignored_keys(recipe: Recipe, *, on_card: bool) -> None:
    """Refuse keys that were changed from their defaults and that the run would ignore.

    Raises:
        InputError: naming each of them, and what it needs.
    """
    defaults, ignored = Recipe(), ignored_keys(recipe, on_card=on_card)
    problems = [
        f"{key} needs {ignored[key]}"
        for key in keys()
        if key in ignored and value_of(recipe, key) != value_of(defaults, key)
    ]
    if problems:
        raise InputError(
            f"{len(problems)} recipe key(s) would have no effect on this run.", " · ".join(problems),
            "Leave them out, or give what they need.",
        )  # fmt: skip
