"""Recipes: one complete description of a run, YAML on disk, frozen typed objects in memory; unknown keys are refused.

Every problem of a recipe is reported at once. A name without a suffix is one of the recipes shipped in `recipes/`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stilnovo.errors import InputError

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Beta = Annotated[float, Field(ge=0, lt=1)]
ALL_PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
#: Quantization of the frozen weights; `none`: as they are stored.
Scheme = Literal["nf4", "fp4", "int8", "int4", "none"]


@dataclass(frozen=True)
class ObjectiveEntry:
    """Where a training objective is implemented (`module:class`, imported when used), and the recipe keys that only some read."""

    implementation: str
    keys: tuple[str, ...] = ()


_REHEARSAL = ("data.rehearsal", "data.rehearsal_share", "train.rehearse_by", "train.kl_weight")
#: The training objectives, by the name that `train.task` gives. A new one is one file and one entry here.
OBJECTIVES = {
    "text": ObjectiveEntry(
        "stilnovo.train.objectives.text:TextObjective", (*_REHEARSAL, "data.rows", "data.comprehension")
    ),
    "sft": ObjectiveEntry("stilnovo.train.objectives.sft:ConversationObjective", _REHEARSAL),
    "dpo": ObjectiveEntry("stilnovo.train.objectives.dpo:PreferenceObjective", ("train.beta",)),
}


#: What PEFT, TRL and transformers call a recipe key.
_ELSEWHERE = {
    "target_modules": "lora.projections", "lora_r": "lora.r", "rank": "lora.r", "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout", "use_rslora": "lora.rslora", "model_name_or_path": "model.name",
    "per_device_train_batch_size": "train.batch_packs", "batch_size": "train.batch_packs",
    "gradient_accumulation_steps": "train.accumulation", "num_train_epochs": "train.epochs", "max_steps": "train.steps",
    "max_seq_length": "data.pack_tokens", "max_length": "data.pack_tokens", "lr": "train.learning_rate",
    "lr_scheduler_type": "train.schedule", "optim": "train.optimizer", "max_grad_norm": "train.clip_norm",
    "save_steps": "train.checkpoint_every", "save_total_limit": "train.keep_checkpoints",
}  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """The base model and its quantization."""

    name: str = Field(default="smollm2", description="Short name, local folder or .gguf file, or Hugging Face id.")
    quantization: Scheme = Field(default="nf4", description="Quantization of the frozen weights.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")


class LoraSection(_Section):
    """The LoRA adapter (Hu et al. 2022)."""

    r: int = Field(default=32, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32.0, gt=0, description="α; the update is scaled by α/√r with rsLoRA, α/r without.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input during training.")
    rslora: bool = Field(default=True, description="Scale by α/√r (Kalajdzievski 2023).")
    projections: tuple[Projection, ...] = Field(
        default=ALL_PROJECTIONS, min_length=1, description="LoRA target modules."
    )
    upper_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the layers, from the top, that get an adapter."
    )
    quantization_aware: Literal["none", "int8", "int4"] = Field(
        default="none",
        description="Quantization-aware training: learn under the rounding that the merged model will meet (report §5.1).",
    )

    @field_validator("projections")
    @classmethod
    def _each_once(cls, names: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each projection may be named once")
        return names


class DataSection(_Section):
    """The training data."""

    paths: tuple[str, ...] = Field(
        default=("sample",),
        min_length=1,
        description="Files of texts, conversations or pairs, or a prepared corpus; `sample` is built in.",
    )
    pack_tokens: int = Field(default=512, ge=16, description="Sequence length: tokens of one packed row.")
    rows: Literal["packed", "truncated"] = Field(
        default="packed",
        description="packed: documents share full rows, no token is lost; truncated: one row per document, cut at `pack_tokens`.",
    )
    held_out: float = Field(
        default=0.15,
        ge=0,
        lt=1,
        description="Held-out share of the rows, drawn by seed and never trained on; of a prepared corpus, at most this share.",
    )
    max_documents: int | None = Field(default=None, ge=1, description="Read at most this many rows.")
    comprehension: float = Field(
        default=0.0, ge=0, le=1, description="Share of the documents that are also read as questions and answers."
    )
    rehearsal: tuple[str, ...] = Field(default=(), description="Files of conversations mixed in against forgetting.")
    rehearsal_share: float = Field(default=0.15, gt=0, lt=1, description="Share of all tokens that is rehearsal.")


class TrainSection(_Section):
    """Training objective, schedule and optimizer."""

    task: str = Field(
        default="text",
        description="Training objective: text (every token), sft (the assistant's turns) or dpo (preference pairs).",
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; overrides `epochs`.")
    epochs: float = Field(default=1.0, gt=0, description="Epochs.")
    batch_packs: int = Field(default=2, ge=1, description="Batch size: packed rows per forward pass.")
    accumulation: int = Field(default=1, ge=1, description="Gradient accumulation steps.")
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="Learning rate schedule after warm-up, down to `final_ratio`."
    )
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps used for linear warm-up.")
    warmup_steps: int | None = Field(default=None, ge=0, description="Warm-up steps; overrides `warmup_ratio`.")
    final_ratio: float = Field(default=0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay (AdamW, decoupled).")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="AdamW's β₁ and β₂.")
    clip_norm: float = Field(default=1.0, gt=0, description="Maximum gradient norm (clipping).")
    optimizer: Literal["auto", "adamw8bit", "paged_adamw8bit", "adamw"] = Field(
        default="auto",
        description="AdamW with 8-bit, paged 8-bit (card only) or fp32 states; auto: 8-bit on a card, else fp32.",
    )
    rehearse_by: Literal["learn", "anchor", "both"] = Field(
        default="learn",
        description="Loss on rehearsal tokens: learn (cross-entropy), anchor (KL to the base) or both.",
    )
    kl_weight: float = Field(default=1.0, gt=0, description="Weight of KL(base ‖ model) on rehearsal tokens.")
    beta: float = Field(default=0.1, gt=0, description="DPO's β.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute every layer in backward; otherwise the plan decides layer by layer."
    )
    engine: Literal["auto", "plain"] = Field(
        default="auto", description="auto: the planned training engine where it applies; plain: torch's autograd."
    )
    loss_chunk: int | None = Field(
        default=None, ge=1, description="Logit chunk size: tokens whose logits exist at once; None: as the plan says."
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Checkpoints to keep.")
    seed: int = Field(
        default=42, ge=0, lt=2**63, description="Random seed of data order, adapter initialisation and dropout."
    )

    @field_validator("task")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in OBJECTIVES:
            raise ValueError(f"there is no such training objective; choose {', '.join(OBJECTIVES)}")
        return name


class GuardSection(_Section):
    """The guard against forgetting: what is evaluated during training, and when training stops; off without `every`."""

    every: int | None = Field(default=None, ge=1, description="Steps between evaluations; None: no guard.")
    tasks: tuple[str, ...] = Field(default=(), description="Multiple-choice benchmarks, pooled.")
    items: int = Field(default=100, ge=1, description="Items per benchmark, drawn by seed.")
    texts: tuple[str, ...] = Field(
        default=(), description="Files of texts or conversations to protect, each tested by itself."
    )
    documents: int = Field(
        default=20, ge=8, description="Documents per protected file, and of the held-out set that measures the gain."
    )
    data_dir: str | None = Field(default=None, description="Folder with one subfolder per benchmark.")
    tolerance_points: float = Field(
        default=2.0, ge=0, le=100, description="Tolerated loss of the benchmark score, in points."
    )
    tolerance_percent: float = Field(
        default=2.0, ge=0, description="Tolerated rise of a protected text's bits per byte, in percent."
    )
    alpha: float = Field(
        default=0.05, gt=0, le=0.5, description="False alarm rate over all evaluations and everything protected."
    )
    on_loss: Literal["stop", "best"] = Field(
        default="best", description="stop: keep the adapter of that step; best: go back to the best step before it."
    )


class Recipe(_Section):
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
            "Recipe keys would have no effect on this run.", " · ".join(problems),
            "Leave them out, or give what they need.",
        )  # fmt: skip
