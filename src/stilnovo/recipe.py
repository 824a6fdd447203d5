"""One complete description of a run: YAML on disk, frozen typed objects in memory, unknown keys refused.

Every problem of a recipe is reported at once. A name without a suffix is one of the recipes shipped in `recipes/`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stilnovo.errors import InputError

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Beta = Annotated[float, Field(ge=0, lt=1)]
ALL_PROJECTIONS: tuple[Projection, ...] = get_args(Projection)


#: How frozen weights are kept; `none`: as they are stored.
Scheme = Literal["nf4", "fp4", "int8", "int4", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Which base, and how it is kept."""

    name: str = Field(default="smollm2", description="Short name, local folder or .gguf file, or Hugging Face id.")
    quantization: Scheme = Field(default="nf4", description="How frozen weights are kept.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")


class LoraSection(_Section):
    """What learns (Hu et al. 2022)."""

    r: int = Field(default=32, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32.0, gt=0, description="α; the update is scaled by α/√r with rsLoRA, α/r without.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="On the adapter's input, while training.")
    rslora: bool = Field(default=True, description="Scale by α/√r (Kalajdzievski 2023).")
    projections: tuple[Projection, ...] = Field(
        default=ALL_PROJECTIONS, min_length=1, description="Which projections carry an adapter."
    )
    upper_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the layers, from the top, that carry an adapter."
    )
    quantization_aware: Literal["none", "int8", "int4"] = Field(
        default="none", description="Learn in front of the rounding that a merged model will meet (report §5.1)."
    )

    @field_validator("projections")
    @classmethod
    def _each_once(cls, names: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each projection may be named once")
        return names


class DataSection(_Section):
    """What it learns from."""

    paths: tuple[str, ...] = Field(
        default=("sample",), min_length=1, description="Text, JSONL or Parquet; `sample` is the project's own."
    )
    pack_tokens: int = Field(
        default=512, ge=16, description="Tokens of one pack: how many a layer sees at once per row."
    )
    rows: Literal["packed", "truncated"] = Field(
        default="packed",
        description="packed: every token, rows full; truncated: one row a document, its first `pack_tokens` tokens alone.",
    )
    held_out: float = Field(
        default=0.15,
        ge=0,
        lt=1,
        description="Share of texts, conversations or pairs kept aside for measuring, chosen by seed.",
    )
    max_documents: int | None = Field(default=None, ge=1, description="Read no more documents than this.")
    comprehension: float = Field(
        default=0.0, ge=0, le=1, description="Share of the documents that are read as questions and answers too."
    )
    rehearsal: tuple[str, ...] = Field(
        default=(), description="Conversations mixed in, so that what the model could do is not forgotten."
    )
    rehearsal_share: float = Field(default=0.15, gt=0, lt=1, description="Their share of all tokens.")


class TrainSection(_Section):
    """How it learns."""

    task: Literal["text", "sft", "dpo"] = Field(
        default="text", description="Texts; conversations (the assistant's turns are learnt); preference pairs."
    )
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps; None = `epochs` over the data.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the data when `steps` is None.")
    batch_packs: int = Field(default=2, ge=1, description="Packs in one forward pass.")
    accumulation: int = Field(default=1, ge=1, description="Forward passes in one optimizer step.")
    learning_rate: float = Field(default=2e-4, gt=0, allow_inf_nan=False, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="After warm-up, down to `final_ratio`."
    )
    warmup_ratio: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the steps over which the rate rises from zero."
    )
    warmup_steps: int | None = Field(default=None, ge=0, description="The same in steps; goes before `warmup_ratio`.")
    final_ratio: float = Field(default=0.1, ge=0, le=1, description="Learning rate at the end, as a share of the peak.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled decay.")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="AdamW's moments.")
    clip_norm: float = Field(default=1.0, gt=0, description="Largest gradient norm.")
    optimizer: Literal["auto", "adamw8bit", "paged_adamw8bit", "adamw"] = Field(
        default="auto",
        description="8-bit states (bitsandbytes), those in memory that may leave the card, or fp32 (torch); auto: 8-bit on a card.",
    )
    rehearse_by: Literal["learn", "anchor", "both"] = Field(
        default="learn",
        description="What rehearsal is for: learn the answers, stay near the base's own predictions (KL), or both.",
    )
    kl_weight: float = Field(default=1.0, gt=0, description="Weight of KL(base ‖ model) on rehearsal tokens.")
    beta: float = Field(default=0.1, gt=0, description="DPO's β: how far the model may move from the base.")
    gradient_checkpointing: bool = Field(
        default=False, description="On a CPU: recompute layers in backward. On a card the plan decides layer by layer."
    )
    engine: Literal["auto", "plain"] = Field(
        default="auto", description="auto: the planned step; plain: torch's autograd, one layer after another."
    )
    loss_chunk: int = Field(default=256, ge=1, description="Rows of logits that exist at once.")
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="How many of the newest stay.")
    seed: int = Field(default=42, ge=0, lt=2**63, description="Data order, adapter start, dropout.")


class GuardSection(_Section):
    """What must not be lost while it learns, and what happens if it is; off unless `every` is given."""

    every: int | None = Field(default=None, ge=1, description="Steps between looks; none: nobody looks.")
    tasks: tuple[str, ...] = Field(default=(), description="Benchmarks of given answers, pooled.")
    items: int = Field(default=100, ge=1, description="Items of each, drawn by seed.")
    texts: tuple[str, ...] = Field(
        default=(), description="Files of text or conversations to protect, each by itself: what the model should keep."
    )
    documents: int = Field(
        default=20, ge=8, description="Documents of each, and of the held-out ones that measure what is gained."
    )
    data_dir: str | None = Field(default=None, description="Folder with one folder a benchmark.")
    tolerance_points: float = Field(
        default=2.0, ge=0, le=100, description="Points of the benchmarks' score that may be lost."
    )
    tolerance_percent: float = Field(
        default=2.0, ge=0, description="Percent by which a protected text's bits per byte may rise."
    )
    alpha: float = Field(
        default=0.05, gt=0, le=0.5, description="Chance of a false alarm, over all looks and all that is protected."
    )
    on_loss: Literal["stop", "best"] = Field(
        default="best", description="stop: the adapter of that step; best: of the best step before it."
    )


class Recipe(_Section):
    """A whole run."""

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
                raise InputError(f"There is no recipe key {key!r}.", next=f"Sections: {', '.join(data)}.")
            data[section][name] = value
        return _validated(data, "the changed recipe")

    def to_yaml(self) -> str:
        """The recipe as YAML, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("stilnovo").joinpath("recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(source: str | Path) -> Recipe:
    """A recipe from a file, or a shipped one by name.

    Raises:
        InputError: with every problem found.
    """
    path = Path(source)
    if isinstance(source, str) and source in shipped():
        path = Path(str(resources.files("stilnovo").joinpath("recipes", f"{source}.yaml")))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"There is no recipe {str(source)!r}.", next=f"Shipped: {', '.join(shipped())}; or give a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML.", " ".join(str(error).split())[:200]) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a recipe.", "It holds no keys.", f"Keys: {', '.join(Recipe.model_fields)}.")
    return _validated(data, str(path))


def _validated(data: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                problems.append(f"{key}: unknown key")
            else:
                problems.append(f"{key}: {item['msg']} (found {item['input']!r})")
        known = "; ".join(f"{n}: {', '.join(type(getattr(Recipe(), n)).model_fields)}" for n in Recipe.model_fields)
        raise InputError(
            f"{len(problems)} problem(s) in {where}.", " · ".join(problems), f"Known keys — {known}"
        ) from None
