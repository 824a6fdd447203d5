"""Recipes: one complete description of a run, YAML on disk, frozen typed objects in memory; unknown keys are refused.

Every problem of a recipe is reported at once. A name without a suffix is one of the recipes shipped in `recipes/`.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stilnovo.errors import InputError
from stilnovo.recipe_sections import (
    OBJECTIVES,
    DataSection,
    GuardSection,
    LoraSection,
    ModelSection,
    RecipeSection,
    TrainSection,
)

#: What PEFT, TRL and transformers call a recipe key.
_ELSEWHERE = {
    "target_modules": "lora.projections", "lora_r": "lora.r", "rank": "lora.r", "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout", "use_rslora": "lora.rslora", "model_name_or_path": "model.name",
    "per_device_train_batch_size": "train.batch_packs", "batch_size": "train.batch_packs",
    "gradient_accumulation_steps": "train.accumulation", "num_train_epochs": "train.epochs", "max_steps": "train.steps",
    "max_seq_length": "data.pack_tokens", "max_length": "data.pack_tokens", "lr": "train.learning_rate",
    "lr_scheduler_type": "train.schedule", "optim": "train.optimizer", "max_grad_norm": "train.clip_norm",
    "save_steps": "train.checkpoint_every", "save_total_limit": "train.keep_checkpoints",
    "eval_steps": "train.evaluate_every", "early_stopping_patience": "train.patience",
    "report_to": "train.trackers", "completion_only_loss": "data.completion_only",
}  # fmt: skip


class Recipe(RecipeSection):
    """A complete recipe."""

    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    guard: GuardSection = GuardSection()

    def changed(self, changes: dict[str, Any]) -> Recipe:
        """A copy with `section.key` values replaced, checked again.

        Raises:
            InputError: for an unknown key or a bad value.
        """
        data = self.model_dump(mode="json")
        for key, value in changes.items():
            section, _, name = key.partition(".")
            if section not in data or not name:
                raise InputError(f"There is no recipe key {key!r}.", next=f"Nearest: {_nearest(key)}.")
            data[section][name] = value
        return _validated(data, "The changed recipe")

    def to_yaml(self) -> str:
        """The recipe as YAML, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """List the recipes inside the package."""
    folder = resources.files("stilnovo").joinpath("recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(source: str | Path) -> Recipe:
    """Load a recipe from a file, or a shipped one by name.

    Raises:
        InputError: with every problem found.
    """
    named = str(source) in shipped()
    path = Path(str(resources.files("stilnovo").joinpath("recipes", f"{source}.yaml")) if named else source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"There is no recipe {str(source)!r}.", next=f"Shipped: {', '.join(shipped())}; or give a YAML file."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML.", " ".join(str(error).split())[:200]) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a recipe.", "It holds no keys.", f"Keys: {', '.join(Recipe.model_fields)}.")
    return _validated(data, str(path))


def _validated(data: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems, places = [], [item["loc"] for item in error.errors()]
        for item in error.errors():
            # A list with a bad item is also reported as too short.
            if item["type"] == "too_short" and any(place[:-1] == item["loc"] for place in places):
                continue
            key = ".".join(str(part) for part in item["loc"])
            unknown = item["type"] == "extra_forbidden"
            what = f"unknown key, nearest {_nearest(key)}" if unknown else f"{item['msg']} (found {item['input']!r})"
            problems.append(f"{key}: {what}")
        raise InputError(f"{where} cannot be used; problems: {len(problems)}.", " · ".join(problems)) from None


#: Keys that change nothing of what is learnt, or only how it is computed: a resumed run may have others than it began with.
FREE_AT_RESUME = (
    "train.checkpoint_every", "train.checkpoint_minutes", "train.keep_checkpoints",
    "train.trackers", "train.samples", "train.sample_tokens", "model.device", "train.optimizer", "train.deterministic",
)  # fmt: skip


def keys() -> list[str]:
    """List every recipe key as `section.key`."""
    return [f"{name}.{key}" for name in Recipe.model_fields for key in type(getattr(Recipe(), name)).model_fields]


def value_of(recipe: Recipe, key: str) -> object:
    """Get the value of `section.key`."""
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


def _nearest(key: str) -> str:
    """Suggest the recipe keys nearest to a misspelt one, or the sections where none is near."""
    name = key.rpartition(".")[2]
    named_alike = [known for known in keys() if known.partition(".")[2] == name or known == _ELSEWHERE.get(name)]
    return (
        ", ".join(named_alike or difflib.get_close_matches(key, keys())) or f"sections {', '.join(Recipe.model_fields)}"
    )


def plain_reason(recipe: Recipe) -> str:
    """Explain why a run uses torch's autograd and not the training engine; empty where it uses the engine."""
    if recipe.train.engine == "plain":
        return "train.engine: plain"
    if recipe.lora.dropout:
        return f"lora.dropout: {recipe.lora.dropout:g}"
    aware = recipe.lora.quantization_aware
    return "" if aware == "none" else f"lora.quantization_aware: {aware}"


def anchors(recipe: Recipe) -> bool:
    """Whether the divergence from the base on rehearsed texts is a part of the loss."""
    return bool(recipe.data.rehearsal) and recipe.train.rehearse_by != "learn"


def learns_parts(recipe: Recipe) -> bool:
    """Whether some tokens may have no loss: prompts, or what is rehearsed."""
    return recipe.train.task != "text" or bool(recipe.data.rehearsal or recipe.data.comprehension)


def ignored_keys(recipe: Recipe, *, on_card: bool) -> dict[str, str]:
    """List recipe keys that the run would ignore, whatever their value, each with what it needs."""
    data, train, guard = recipe.data, recipe.train, recipe.guard
    others = {
        key: f"train.task: {' or '.join(name for name, reader in OBJECTIVES.items() if key in reader.keys)}"
        for entry in OBJECTIVES.values()
        for key in entry.keys
        if key not in OBJECTIVES[train.task].keys
    }
    guard_keys = tuple(f"guard.{name}" for name in GuardSection.model_fields if name != "every")
    conditions: tuple[tuple[object, str, tuple[str, ...]], ...] = (
        (data.rehearsal, "data.rehearsal", ("data.rehearsal_share", "train.rehearse_by", "train.kl_weight")),
        (train.rehearse_by != "learn", "train.rehearse_by: anchor or both", ("train.kl_weight",)),
        (not data.rehearsal, "no data.rehearsal", ("data.rows",)),
        (train.schedule != "constant", "train.schedule: linear or cosine", ("train.final_ratio",)),
        (
            on_card or train.optimizer != "paged_adamw8bit",
            "a card (elsewhere: --set train.optimizer=auto)",
            ("train.optimizer",),
        ),
        (train.samples, "train.samples", ("train.sample_tokens",)),
        (data.held_out, "data.held_out", ("train.patience", "train.evaluation_tokens")),
        (data.held_out or train.samples, "data.held_out or train.samples", ("train.evaluate_every",)),
        (
            train.evaluate_every != 0,
            "train.evaluate_every above 0",
            ("train.patience", "train.evaluation_tokens", "train.samples", "train.sample_tokens"),
        ),
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
            "Recipe keys would have no effect on this run.", " · ".join(problems),
            "Leave them out, or give what they need.",
        )  # fmt: skip
